# SPDX-License-Identifier: BSD-2-Clause
"""Promise 6 and the edges: servers that do not answer, descriptors and maps that run out, timeouts, and the cost."""

import contextlib
import os
import re
import select
import socket
import struct
import subprocess
import time

import pytest

import bpfmap
from daemon import cpu_seconds, rss_kib, voluntary_switches
from peer import TIMEOUT, Reset, Task, together, wait_until
from settings import DIRECT, SCALE, is_sanitized
from stage import LOOPBACK, PORTS, accept, shown

KB, MB = 1024, 1024 * 1024
shunt_only = pytest.mark.skipif(DIRECT, reason="the forwarder can do less")


def round_trip(client, server, size=100):
    client.send(size)
    server.read(size)
    server.send(size)
    client.read(size)


def expect_rejection(stage, early=0):
    """Connects and sees a reset, at connect() already or after sending some bytes."""
    with contextlib.suppress(ConnectionResetError):
        client = stage.client()
        with contextlib.suppress(Reset):
            client.send(early)
        client.expect_reset()


# ---- servers that do not answer


def test_refused_connection_is_an_abort_for_the_client(own_stage):
    closed = PORTS.listen()
    address = shown(closed.getsockname())
    closed.close()
    stage = own_stage(to=address)
    stage.allow(ends={"connect_refused"}, log=["refused"])
    for early in (0, 1000):
        for _ in range(5):
            expect_rejection(stage, early)
    delta = stage.prove(c2s=0, s2c=0)
    assert delta.total("shunt_sessions_ended_total", reason="connect_refused") == 10


class FullServer:
    """A listening socket whose backlog is full: it neither accepts nor refuses."""

    def __init__(self):
        self.sock = PORTS.listen(backlog=0)
        self.fillers = []
        for _ in range(3):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(self.sock.getsockname())
            self.fillers.append(filler)
        poller = select.poll()
        poller.register(self.fillers[0], select.POLLOUT)
        assert poller.poll(1000), "the first filler is connected"

    def open(self):
        """Makes room."""
        for filler in self.fillers:
            filler.close()
        self.sock.listen(100)
        self.sock.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                self.sock.accept()[0].close()
        self.sock.setblocking(True)

    def close(self):
        for filler in self.fillers:
            filler.close()
        self.sock.close()


@pytest.fixture
def full_server():
    server = FullServer()
    yield server
    server.close()


@pytest.mark.modes(*LOOPBACK)
def test_connection_that_times_out_is_an_abort_for_the_client(own_stage, full_server):
    stage = own_stage(to=shown(full_server.sock.getsockname()), keys={"backend": [("connect_timeout", "1s")]})
    stage.allow(ends={"connect_timeout"}, log=["timeout|timed out"])
    start = time.monotonic()
    clients = [stage.client() for _ in range(20)]
    for client in clients[:10]:
        client.send(1000)
    for client in clients[10:15]:
        client.fin()
    for client in clients:
        client.expect_reset(timeout=10)
    took = time.monotonic() - start
    assert 0.9 <= took <= 1 + 2 * SCALE, f"connect_timeout is 1 s, it took {took:.2f} s"
    delta = stage.prove(c2s=0, s2c=0)
    assert delta.total("shunt_sessions_ended_total", reason="connect_timeout") == 20


@pytest.mark.modes("relay-netns", "sockmap-netns")
def test_server_that_has_vanished_times_out(own_stage, network):
    """Packets to it are lost: a host that was switched off."""
    network.proxy.ip("neigh", "replace", "10.91.2.77", "lladdr", "02:00:00:00:00:77", "dev", "net2", "nud", "permanent")
    stage = own_stage(to="10.91.2.77:80", keys={"backend": [("connect_timeout", "1s")]})
    stage.allow(ends={"connect_timeout"}, log=["timeout|timed out"])
    client = stage.client()
    client.send(500)
    client.expect_reset(timeout=10)
    delta = stage.prove(c2s=0, s2c=0)
    assert delta.total("shunt_sessions_ended_total", reason="connect_timeout") == 1


@pytest.mark.modes(*LOOPBACK)
def test_client_that_aborts_ends_the_connecting_at_once(own_stage, full_server):
    stage = own_stage(to=shown(full_server.sock.getsockname()))
    stage.allow(ends={"client_abort"})
    clients = [stage.client() for _ in range(10)]
    stage.daemon.wait_metric("ten sessions", lambda metrics: metrics.total("shunt_listener_sessions_active") == 10)
    start = time.monotonic()
    for client in clients:
        client.abort()
    stage.wait_idle()
    assert time.monotonic() - start < 1 * SCALE


@pytest.mark.parametrize("fin", [False, True])
@pytest.mark.modes(*LOOPBACK)
def test_bytes_wait_for_a_server_that_is_slow_to_accept(own_stage, full_server, fin):
    """The kernel repeats the SYN after one second; what the client has sent until then is in the socket."""
    stage = own_stage(to=shown(full_server.sock.getsockname()))
    stage.allow(fallbacks={"half_closed"} if fin else ())
    client = stage.client()
    client.send(50 * KB)
    if fin:
        client.fin()
    stage.daemon.wait_metric("a session", lambda metrics: metrics.total("shunt_listener_sessions_active") == 1)
    full_server.open()
    server = stage.server(accept(full_server.sock))
    server.read(50 * KB)
    if fin:
        server.expect_eof(50 * KB)
    else:
        round_trip(client, server)
        together(Task(client.send, 3 * MB), Task(server.read, 3 * MB))
    together(Task(lambda: server.send(MB).fin()), Task(client.expect_eof))
    stage.prove(c2s=client.sent, s2c=server.sent, share=0 if fin else 0.9)


# ---- what runs out


class Hail:
    """Many clients at once that each send ten bytes and note what happens."""

    def __init__(self, stage, count):
        self.stage = stage
        self.clients = []
        for _ in range(count):
            sock = stage.network.client_socket()
            sock.setblocking(False)
            sock.connect_ex(stage.address)
            self.clients.append(sock)
        self.greeted = set()
        self.served, self.rejected = set(), set()
        self.servers = []

    def run(self, seconds):
        """Answers what arrives until nothing has happened for so long."""
        poller = select.epoll()
        by_fd = {sock.fileno(): sock for sock in self.clients}
        poller.register(self.stage.listener, select.EPOLLIN)
        for fd in by_fd:
            poller.register(fd, select.EPOLLIN | select.EPOLLOUT)
        while True:
            events = poller.poll(seconds)
            if not events:
                return
            for fd, event in events:
                if fd == self.stage.listener.fileno():
                    sock = self.stage.listener.accept()[0]
                    self.servers.append(sock)
                    sock.settimeout(TIMEOUT)
                    sock.send(b"welcome")
                    continue
                sock = by_fd[fd]
                if event & select.EPOLLIN or event & select.EPOLLERR:
                    try:
                        (self.served if sock.recv(100) == b"welcome" else self.rejected).add(sock)
                    except OSError:
                        self.rejected.add(sock)
                    poller.unregister(fd)
                elif event & select.EPOLLOUT and sock not in self.greeted:
                    self.greeted.add(sock)
                    poller.modify(fd, select.EPOLLIN)

    def close(self):
        """Also what the daemon had not accepted yet: such a client is gone, but its session still has to come."""
        for sock in self.clients + self.servers:
            sock.close()
        quiet = select.poll()
        quiet.register(self.stage.listener, select.POLLIN)
        while quiet.poll(500):
            self.stage.listener.accept()[0].close()


def lower_limit(pid, files):
    """RLIMIT_NOFILE of another process, set as its user: root may lack the capability for it."""
    owner = os.stat(f"/proc/{pid}/task/{pid}/stat")
    subprocess.run(["setpriv", f"--reuid={owner.st_uid}", f"--regid={owner.st_gid}", "--clear-groups", "prlimit",
                    f"--pid={pid}", f"--nofile={files}:"], check=True)


@shunt_only
@pytest.mark.parametrize("limited", ["by_itself", "by_the_kernel"])
@pytest.mark.modes(*LOOPBACK)
def test_running_out_of_descriptors_serves_some_and_recovers(own_stage, limited):
    """By itself: the daemon knows its limit. By the kernel: the limit is lowered behind its back."""
    stage = own_stage(nofile=400) if limited == "by_itself" else own_stage()
    if limited == "by_the_kernel":
        for pid in stage.daemon.workers():
            lower_limit(pid, max(int(name) for name in os.listdir(f"/proc/{pid}/fd")) + 60)
    stage.allow(ends={"client_abort", "server_abort", "no_descriptor"}, fallbacks={"half_closed"})
    hail = Hail(stage, 300)
    hail.run(0.5)
    print(f"served {len(hail.served)}, rejected {len(hail.rejected)} of 300")
    assert len(hail.served) >= 10, f"served {len(hail.served)}, rejected {len(hail.rejected)}"
    pids = [stage.daemon.pid, *stage.daemon.workers()]
    before = cpu_seconds(pids)
    time.sleep(1)
    used = cpu_seconds(pids) - before
    assert used < 0.25, f"{used:.2f} s of CPU in a second while there are no descriptors"
    hail.close()
    stage.wait_idle()
    client, server = stage.settled_pair()
    round_trip(client, server)
    client.close()
    server.close()


@shunt_only
@pytest.mark.modes(*LOOPBACK)
def test_max_sessions_rejects_the_rest(own_stage):
    stage = own_stage(keys={"listener": [("max_sessions", "10")]})
    pairs = [stage.settled_pair() for _ in range(10)]
    for _ in range(5):
        expect_rejection(stage)
    for pair in pairs:
        round_trip(*pair)
    delta = stage.delta()
    assert delta.total("shunt_listener_rejected_total", reason="max_sessions") == 5
    for peer in pairs[0]:
        peer.close()
    stage.daemon.wait_metric("a free place", lambda metrics: metrics.total("shunt_listener_sessions_active") == 9)
    round_trip(*stage.settled_pair())
    stage.prove()


def tcp_pair():
    listener = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(listener.getsockname())
    server, _ = listener.accept()
    listener.close()
    return client, server


@shunt_only
@pytest.mark.modes("sockmap", "parser")
def test_full_map_is_a_fallback(own_stage):
    """Other sockets take every slot of the redirect targets; sessions go on by relay, and later ones by sockmap."""
    stage = own_stage(keys={"top": [("max_sessions", "20")]})
    stage.allow(fallbacks={"map_full"})
    targets = bpfmap.map_of([stage.daemon.pid, *stage.daemon.workers()], "redir_targets")
    strangers = [sock for _ in range(targets.max_entries // 2) for sock in tcp_pair()]
    keys = [b"stranger" + struct.pack("I", number) for number in range(len(strangers))]
    taken = []
    try:
        with contextlib.suppress(OSError):
            for key, sock in zip(keys, strangers):
                targets.put(key, sock.fileno())
                taken.append(key)
        client, server = stage.settled_pair()
        together(Task(client.send, 3 * MB), Task(server.read, 3 * MB))
        client.fin()
        server.expect_eof(3 * MB + 100)
        server.fin()
        client.expect_eof(100)
        delta = stage.prove(c2s=3 * MB + 100, s2c=100, share=0)
        assert delta.total("shunt_fallbacks_total", reason="map_full") == 1, f"{len(taken)} strangers"
        assert stage.bytes(delta)["c2s", "sockmap"] == 0
    finally:
        for key in taken:
            targets.delete(key)
        for sock in strangers:
            sock.close()
        targets.close()
    before = stage.delta()
    round_trip(*stage.settled_pair())
    stage.prove(share=0)
    moved = stage.bytes(stage.delta().since(before))
    assert moved["c2s", "sockmap"] == 200 and moved["c2s", "relay"] == 0, f"the map is free again, but {moved}"


@shunt_only
@pytest.mark.modes("sockmap", "parser")
def test_taken_key_is_a_fallback(own_stage):
    """Another session seems to have the same addresses, as with link-local addresses on two interfaces."""
    stage = own_stage()
    stage.allow(fallbacks={"collision"})
    targets = bpfmap.map_of([stage.daemon.pid, *stage.daemon.workers()], "redir_targets")
    stranger = tcp_pair()
    sock = stage.network.client_socket()
    sock.bind(("127.0.0.1", 0))
    key = bpfmap.key_of(stage.address, sock.getsockname())
    targets.put(key, stranger[0].fileno())
    try:
        sock.settimeout(TIMEOUT)
        sock.connect(stage.address)
        client = stage.client(sock)
        server = stage.server()
        round_trip(client, server)
        together(Task(client.send, 3 * MB), Task(server.read, 3 * MB))
        client.fin()
        server.expect_eof(3 * MB + 100)
        server.fin()
        client.expect_eof(100)
        delta = stage.prove(c2s=3 * MB + 100, s2c=100, share=0)
        assert delta.total("shunt_fallbacks_total", reason="collision") == 1
        stranger[1].send(b"not disturbed")
        assert stranger[0].recv(100) == b"not disturbed"
    finally:
        targets.delete(key)
        targets.close()
        for sock in stranger:
            sock.close()


# ---- timeouts


@shunt_only
@pytest.mark.modes(*LOOPBACK)
def test_idle_timeout_ends_idle_sessions_only(own_stage):
    stage = own_stage(keys={"listener": [("idle_timeout", "1s")]})
    stage.allow(ends={"idle_timeout"})
    idle, busy = stage.settled_pair(), stage.settled_pair()
    start = time.monotonic()
    gone = [Task(peer.expect_reset) for peer in idle]
    for _ in range(8):
        round_trip(*busy)
        time.sleep(0.3)
    together(*gone)
    round_trip(*busy)
    took = time.monotonic() - start
    delta = stage.prove()
    assert delta.total("shunt_sessions_ended_total", reason="idle_timeout") == 1
    assert took >= 1


@shunt_only
@pytest.mark.parametrize("first", ["client", "server"])
@pytest.mark.modes(*LOOPBACK)
def test_half_close_timeout_ends_half_closed_sessions_only(own_stage, first):
    stage = own_stage(keys={"listener": [("half_close_timeout", "1s")]})
    stage.allow(ends={"half_close_timeout"})
    other = stage.settled_pair()
    pair = stage.settled_pair()
    closer, rest = pair if first == "client" else pair[::-1]
    closer.fin()
    rest.expect_eof(100)
    for _ in range(5):  # it lives as long as bytes move
        time.sleep(0.3)
        rest.send(100)
        closer.read(100)
    together(*(Task(peer.expect_reset) for peer in (closer,)))
    round_trip(*other)
    delta = stage.prove()
    assert delta.total("shunt_sessions_ended_total", reason="half_close_timeout") == 1


# ---- the cost


def idle_cost(stage, count, seconds):
    worker = stage.daemon.workers()
    before = {pid: rss_kib(pid)[1] for pid in worker}
    pairs = []
    for number in range(count):
        pairs.append((stage.connect(), stage.accept()))
        if number % 500 == 0:
            pairs[-1][0].send(b"x")
            assert pairs[-1][1].recv(1) == b"x"
    try:
        stage.daemon.wait_metric("all sessions", lambda metrics: metrics.total("shunt_listener_sessions_active") == count)
        after = {pid: rss_kib(pid)[1] for pid in worker}
        cpu = cpu_seconds(worker)
        time.sleep(seconds)
        cpu = cpu_seconds(worker) - cpu
        per_session = sum(after[pid] - before[pid] for pid in worker) / count
        print(f"{count} sessions: {per_session:.2f} KiB each, worker {sum(after.values())} KiB, "
              f"{100 * cpu / seconds:.3f} % of a CPU")
        assert per_session <= 2, f"{per_session:.2f} KiB of worker memory per idle session"
        assert sum(after.values()) < 64 * KB, f"the worker has {sum(after.values())} KiB"
        assert cpu < 0.002 * seconds, f"{cpu * 1000:.1f} ms of CPU in {seconds} s with idle sessions"
    finally:
        for client, server in pairs:
            client.close()
            server.close()
    stage.prove(share=0)


@shunt_only
@pytest.mark.resources
@pytest.mark.modes(*LOOPBACK)
def test_idle_sessions_cost_next_to_nothing(own_stage):
    idle_cost(own_stage(), 2000, 5)


@pytest.mark.long
@pytest.mark.resources
@pytest.mark.modes(*LOOPBACK)
def test_nine_thousand_idle_sessions_cost_next_to_nothing(own_stage):
    idle_cost(own_stage(), 9000, 30)


@pytest.fixture
def echo_server(peer_program):
    """A listening socket that a program of its own answers on."""
    sock = PORTS.listen()
    process = subprocess.Popen([peer_program, "echo", str(sock.fileno())], pass_fds=[sock.fileno()])
    yield sock
    process.kill()
    process.wait()
    sock.close()


def rate(program, address, sessions, messages, seconds, size):
    done = subprocess.run([program, "rate", *map(str, (address[0], address[1], sessions, messages, seconds, size))],
                          capture_output=True, text=True, timeout=seconds + 30 * SCALE)
    assert done.returncode == 0, f"{done.stdout} {done.stderr}"
    print(done.stdout.strip())
    return {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)", done.stdout)}


def messages_at_a_rate(own_stage, echo_server, peer_program, seconds):
    stage = own_stage(to=shown(echo_server.getsockname()))
    worker = stage.daemon.workers()
    before = voluntary_switches(worker)
    seen = rate(peer_program, stage.address, 16, 1000, seconds, 200)
    switches = voluntary_switches(worker) - before
    stage.prove(c2s=seen["sent"] * 200, s2c=seen["sent"] * 200)
    return switches


@pytest.mark.modes("relay")
def test_sixteen_sessions_with_a_thousand_messages_a_second_are_exact(own_stage, echo_server, peer_program):
    messages_at_a_rate(own_stage, echo_server, peer_program, 3)


@pytest.mark.resources
@pytest.mark.modes("sockmap", "parser")
def test_messages_on_the_kernel_path_do_not_wake_the_worker(own_stage, echo_server, peer_program):
    seconds = 10
    switches = messages_at_a_rate(own_stage, echo_server, peer_program, seconds)
    print(f"{switches} voluntary context switches of the worker")
    assert is_sanitized() or DIRECT or switches < 16 * seconds, (
        f"{switches} voluntary context switches of the worker in {seconds} s with 16 sessions")


def test_sessions_leave_nothing_behind_in_the_worker(stage):
    """Descriptors after 200 sessions are as many as before."""
    round_trip(*stage.settled_pair())
    stage.close()
    stage.wait_idle()

    def open_files():
        return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in stage.daemon.workers())

    before = open_files()
    for _ in range(200):
        client, server = stage.settled_pair()
        client.close()
        server.close()
    stage.wait_idle()
    # Pipes may be kept for later; sockets may not.
    wait_until("descriptors are given back", lambda: open_files() <= before + 20)
