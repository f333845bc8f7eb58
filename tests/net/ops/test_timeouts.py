# SPDX-License-Identifier: BSD-2-Clause
"""Sessions that end by time, and what the kernel is told to watch."""

import contextlib
import ctypes
import os
import re
import select
import socket
import subprocess
import time

import pytest

from ops.farm import until
from peer import SCALE, Reset, Task, together, wait_until

pytestmark = pytest.mark.modes("relay", "sockmap")
LATE = 0.125 + 0.25 * SCALE  # a timeout is sampled eight times, and this machine is busy


def died(client, timeout=20):
    """When the reset came."""
    client.expect_reset(timeout=timeout)
    return time.monotonic()


# ---- idle_timeout


@pytest.mark.parametrize("way", ["c2s", "s2c"])
def test_bytes_in_one_direction_keep_a_session_alive(launch, servers, way):
    """A trickle that nobody answers, for three times the timeout; then silence ends it in time."""
    a, = servers("a")
    scene = launch(servers=[a], listener={"idle_timeout": "600ms"})
    scene.allow(ends={"idle_timeout"})
    client = scene.connect().exchange()
    conn, = a.conns
    go_on = until(1.8)
    while go_on():
        if way == "c2s":
            client.send(10)
            client.read(10)
        else:
            conn.sock.send(b"x")
            wait_until("it came", lambda: readable(client.sock), timeout=0.5)
            assert client.sock.recv(10) == b"x"
        time.sleep(0.1)
    start = time.monotonic()
    took = died(client) - start
    assert 0.45 <= took <= 0.6 * (1 + LATE), f"idle_timeout is 600 ms, it took {took:.2f} s"
    assert scene.ended("idle_timeout") == 1
    wait_until("the server has lost it too", lambda: not a.conns)


def test_time_in_the_queue_is_no_idle_time(launch, servers):
    """The session's silence begins when it has a server."""
    farm = servers("a")
    scene = launch(servers=farm, listener={"idle_timeout": "1s"},
                   backend={"server_max_sessions": "1", "queue_timeout": "60s"})
    scene.allow(ends={"idle_timeout"})
    farm[0].greets = False
    holder = scene.connect()
    scene.wait_active(1)
    waiting = scene.connect()
    scene.wait_active(2)
    start = time.monotonic()
    go_on = until(1.6)
    while go_on():
        holder.send(1)
        holder.read(1)
        time.sleep(0.05)
    assert time.monotonic() - start >= 1.6
    holder.leave()
    wait_until("it has a server", lambda: farm[0].accepted == 2)
    waiting.expect_silence(0.5)
    waiting.send(100)
    waiting.read(100)
    waiting.leave()


def test_idle_timeout_off_and_long_ones_do_not_end_a_session_early(launch, servers):
    scene = launch(servers=servers("a"), listener={"idle_timeout": "off", "half_close_timeout": "1m"})
    client = scene.connect().exchange()
    client.expect_silence(0.5)
    client.exchange().leave()


# ---- half_close_timeout


@pytest.mark.parametrize("first", ["client", "server"])
def test_half_closed_session_lives_as_long_as_bytes_move(launch, servers, first):
    a, = servers("a")
    scene = launch(servers=[a], listener={"half_close_timeout": "600ms", "idle_timeout": "10m"})
    scene.allow(ends={"half_close_timeout"})
    other = scene.connect().exchange()
    client = scene.connect().exchange()
    client.exchange(7)
    conn = next(conn for conn in a.conns if conn.received == 1007)
    a.farm.call(lambda: a.farm.epoll.unregister(conn.sock))  # it would close after the client's FIN
    if first == "client":
        client.fin()
    else:
        conn.sock.shutdown(socket.SHUT_WR)
        client.expect_eof()
    go_on = until(1.5)
    while go_on():
        if first == "client":
            conn.sock.send(b"y")
            wait_until("it came", lambda: readable(client.sock), timeout=0.5)
            assert client.sock.recv(10) == b"y"
        else:
            client.send(1)
            wait_until("it came", lambda: readable(conn.sock), timeout=0.5)
            conn.sock.recv(10)
        time.sleep(0.05)
    start = time.monotonic()
    scene.wait_ended("half_close_timeout", 1, timeout=5)
    took = time.monotonic() - start
    assert 0.4 <= took <= 0.6 * (1 + LATE), f"half_close_timeout is 600 ms, it took {took:.2f} s"
    wait_until("the client's socket is dead", lambda: client.tcp_state() == "CLOSE")
    other.exchange().leave()


def readable(sock):
    try:
        return sock.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return None


# ---- max_lifetime


def test_max_lifetime_ends_busy_sessions_too_and_not_all_at_once(launch, servers):
    scene = launch(servers=servers("a"), listener={"max_lifetime": "2s"}, top={"threads": "1"})
    scene.allow(ends={"max_lifetime"})
    start = time.monotonic()
    clients = [scene.connect() for _ in range(40)]
    ready = time.monotonic() - start
    ends = []

    def busy(client):
        try:
            poller = select.poll()
            poller.register(client.sock, select.POLLIN)
            while True:
                client.exchange(300)
                poller.poll(50)  # a reset is seen at once
        except Reset:
            ends.append(time.monotonic() - start)

    together(*(Task(busy, client) for client in clients))
    assert scene.ended("max_lifetime") == 40
    assert 1.8 - 0.01 <= min(ends) and max(ends) <= 2 * (1 + LATE) + ready, f"{min(ends):.2f} to {max(ends):.2f} s"
    ends.sort()
    moments = 1 + sum(after - before > 0.02 for before, after in zip(ends, ends[1:]))
    assert moments >= 3, f"they began together, and ended at {moments} moments: {[round(end, 3) for end in ends]}"


# ---- what the kernel watches


_LIBC = ctypes.CDLL(None, use_errno=True)
PIDFD_OPEN, PIDFD_GETFD = 434, 438
TCP_USER_TIMEOUT = 18


@contextlib.contextmanager
def sockets_of(pid):
    """The connected TCP sockets of another process, as sockets of ours."""
    pidfd = _LIBC.syscall(PIDFD_OPEN, pid, 0)
    found = []
    try:
        for name in os.listdir(f"/proc/{pid}/fd"):
            try:
                if not os.readlink(f"/proc/{pid}/fd/{name}").startswith("socket:"):
                    continue
            except FileNotFoundError:
                continue
            fd = _LIBC.syscall(PIDFD_GETFD, pidfd, int(name), 0)
            if fd < 0:
                continue
            sock = socket.socket(fileno=fd)
            found.append(sock)
        yield found
    finally:
        for sock in found:
            sock.close()
        os.close(pidfd)


def options_of(scene, client):
    """{end: (keepalive or None, user_timeout ms)} of the two sockets of a client's session."""
    found = {}
    front, server = client.sock.getsockname(), scene.farm.servers[0].address
    for pid in scene.daemon.workers():
        with sockets_of(pid) as socks:
            for sock in socks:
                if sock.family != socket.AF_INET or sock.type != socket.SOCK_STREAM:
                    continue
                try:
                    peer = sock.getpeername()
                except OSError:
                    continue
                end = {front: "client", server: "server"}.get(peer)
                if end:
                    found[end] = (
                        sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) and
                        sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
                        sock.getsockopt(socket.IPPROTO_TCP, TCP_USER_TIMEOUT))
    return found


def test_keepalive_and_user_timeout_have_their_defaults_on_each_side(launch, servers):
    scene = launch(servers=servers("a"))
    client = scene.connect().exchange()
    assert options_of(scene, client) == {"client": (60, 0), "server": (60, 30000)}


@pytest.mark.modes("relay", "sockmap")
def test_keepalive_and_user_timeout_are_set_on_each_side(launch, servers):
    scene = launch(servers=servers("a"), listener={"keepalive": "7s", "user_timeout": "11s"},
                   backend={"keepalive": "13s", "user_timeout": "off"})
    client = scene.connect().exchange()
    assert options_of(scene, client) == {"client": (7, 11000), "server": (13, 0)}


def test_keepalive_off_and_changes_by_reload_hold_for_new_sessions(launch, servers):
    scene = launch(servers=servers("a"), listener={"keepalive": "off"}, backend={"keepalive": "off"})
    old = scene.connect().exchange()
    assert options_of(scene, old) == {"client": (0, 0), "server": (0, 30000)}
    scene.reload({"listener front": {"keepalive": "9s", "user_timeout": "5s"}, "backend app": {"keepalive": "8s",
                                                                                              "user_timeout": "6s"}})
    new = scene.connect().exchange()
    assert options_of(scene, new) == {"client": (9, 5000), "server": (8, 6000)}
    scene.reload({"listener front": {"keepalive": "off", "user_timeout": "off"}})
    new = scene.connect().exchange()
    assert options_of(scene, new)["client"] == (0, 0)
    old.exchange()


def test_keepalive_timer_runs_on_both_sockets(launch, servers):
    scene = launch(servers=servers("a"), listener={"keepalive": "40s"}, backend={"keepalive": "20s"})
    client = scene.connect().exchange()
    ports = client.sock.getsockname()[1], scene.farm.servers[0].address[1]

    def timers():
        text = subprocess.run(["ss", "-Htno"], capture_output=True, text=True, check=True).stdout
        found = [re.search(rf"127\.0\.0\.1:{port}\s+timer:\(keepalive,(\d+)sec", text) for port in ports]
        return all(found) and [int(match.group(1)) for match in found]

    front, server = wait_until("both have a keepalive timer", timers, timeout=5)
    assert 30 <= front <= 40 and 10 <= server <= 20


@contextlib.contextmanager
def lost(space, address, device):
    """Packets from this namespace to that address get lost, as if the host were gone."""
    space.ip("neigh", "replace", address, "lladdr", "02:00:00:00:00:77", "dev", device, "nud", "permanent")
    try:
        yield
    finally:
        space.ip("neigh", "del", address, "dev", device)


@pytest.mark.modes("sockmap-netns")
def test_user_timeout_ends_the_sessions_of_a_server_that_has_vanished(launch, servers, network):
    scene = launch(servers=servers("a"), bind="10.91.1.2:0", backend={"user_timeout": "1s"})
    scene.allow(ends={"server_abort", "complete"})
    client, silent = scene.connect().exchange(), scene.connect().exchange()
    with lost(network.topology.proxy, "10.91.2.2", "net2"):
        client.send(5000)
        start = time.monotonic()
        took = died(client, timeout=10) - start
        assert 0.9 <= took <= 2.5 * SCALE, f"user_timeout is 1 s, it took {took:.2f} s"
        silent.expect_silence(0.2)  # nothing of it is unacknowledged
    assert scene.ended("server_abort") == 1
    silent.exchange(10_000).leave()


@pytest.mark.modes("sockmap-netns")
def test_user_timeout_ends_the_session_of_a_client_that_has_vanished(launch, servers, network):
    a, = farm = servers("a")
    scene = launch(servers=farm, bind="10.91.1.2:0", listener={"user_timeout": "1s"})
    scene.allow(ends={"client_abort"})
    scene.connect().exchange()
    conn, = a.conns
    with lost(network.topology.proxy, "10.91.1.1", "net1"):
        a.farm.call(lambda: conn.sock.send(b"z" * 5000))
        start = time.monotonic()
        scene.wait_ended("client_abort", 1, timeout=10)
        took = time.monotonic() - start
        assert 0.9 <= took <= 2.5 * SCALE, f"user_timeout is 1 s, it took {took:.2f} s"
        wait_until("the server has lost it too", lambda: not a.conns)
