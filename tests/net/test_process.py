# SPDX-License-Identifier: BSD-2-Clause
"""Signals, the two processes, and the service that goes on when the worker dies."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import threading
import time

import pytest

from daemon import Daemon, Metrics, http_get, state_of
from peer import TIMEOUT, Task, together, wait_until
from settings import SCALE, program
from stage import LOOPBACK, PORTS, shown

KB, MB = 1024, 1024 * 1024


def round_trip(client, server, size=200):
    client.send(size)
    server.read(size)
    server.send(size)
    client.read(size)


def worker_of(stage):
    """The one worker process."""
    workers = stage.daemon.workers()
    assert len(workers) == 1, f"worker processes: {workers}"
    return workers[0]


def fill(sender, quiet=0.3):
    last = time.monotonic()
    while time.monotonic() - last < quiet:
        if sender.send_some(262144):
            last = time.monotonic()
        else:
            time.sleep(0.005)


# ---- stopping


def test_terminated_in_mid_flight_lets_sessions_finish(own_stage):
    """No new connections, but those that exist go on, at full speed and to the last byte."""
    stage = own_stage(keys={"top": [("drain_timeout", "20s")]})
    pairs = [stage.settled_pair() for _ in range(4)]
    size = 24 * MB
    tasks = []
    for client, server in pairs[:2]:
        for sender, reader in ((client, server), (server, client)):
            tasks.append(Task(sender.send, size))
            tasks.append(Task(reader.read, size))
    wait_until("bytes move", lambda: pairs[0][1].received > MB)
    stage.daemon.signal(signal.SIGTERM)

    def refused():
        try:
            stage.connect(timeout=5).close()
        except (ConnectionRefusedError, ConnectionResetError):
            return True
        return False

    wait_until("new connections are refused", refused, timeout=5)
    stage.absorb()
    together(*tasks)
    for pair in pairs:
        for _ in range(5):
            round_trip(*pair)
            time.sleep(0.02)
    assert stage.daemon.is_running(), "shuntd left while sessions were open"
    start = time.monotonic()
    for client, server in pairs:
        client.fin()
        server.expect_eof(client.sent)
        server.fin()
        client.expect_eof(server.sent)
    assert stage.daemon.wait_exit() == 0
    assert time.monotonic() - start < 2 * SCALE, "shuntd did not leave when the last session had ended"


def test_terminated_without_sessions_leaves_at_once(own_stage):
    stage = own_stage()
    client, server = stage.settled_pair()
    stage.close()
    stage.wait_idle()
    start = time.monotonic()
    stage.daemon.signal(signal.SIGTERM)
    assert stage.daemon.wait_exit() == 0
    assert time.monotonic() - start < 1 * SCALE


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.modes(*LOOPBACK)
def test_sessions_that_outlive_the_drain_timeout_are_reset(own_stage, number):
    """They may be closed spread over the last part of it."""
    stage = own_stage(keys={"top": [("drain_timeout", "1s")]})
    idle, queued = stage.settled_pair(), stage.settled_pair()
    fill(queued[0])
    start = time.monotonic()
    stage.daemon.signal(number)
    together(*(Task(peer.expect_reset) for peer in idle))
    took = time.monotonic() - start
    queued[1].expect_reset()
    assert queued[1].received < queued[0].sent
    assert stage.daemon.wait_exit() == 0
    assert 0.7 <= took <= 1 + 2 * SCALE, f"drain_timeout is 1 s, it took {took:.2f} s"


@pytest.mark.modes(*LOOPBACK)
def test_second_signal_stops_at_once(own_stage):
    stage = own_stage()
    pair = stage.settled_pair()
    stage.daemon.signal(signal.SIGTERM)
    stage.daemon.wait_log("drain")
    pair[0].expect_silence(0.3)
    round_trip(*pair)
    start = time.monotonic()
    stage.daemon.signal(signal.SIGTERM)
    together(*(Task(peer.expect_reset) for peer in pair))
    assert stage.daemon.wait_exit() == 0
    assert time.monotonic() - start < 1 * SCALE


# ---- the worker dies


class Caller(threading.Thread):
    """Connects without a pause and notes what went wrong."""

    def __init__(self, stage):
        super().__init__(daemon=True)
        self.stage = stage
        self.stopping = False
        self.calls, self.refused = 0, []
        self.start()

    def run(self):
        while not self.stopping:
            sock = self.stage.network.client_socket()
            sock.settimeout(TIMEOUT)
            try:
                sock.connect(self.stage.address)
            except ConnectionResetError:
                pass  # it was in the hands of the worker that died
            except OSError as error:
                self.refused.append(error)
            self.calls += 1
            sock.close()
            time.sleep(0.001)

    def stop(self):
        self.stopping = True
        self.join()


def seconds_until_served(stage):
    """A new client is answered through a new worker; connections that the old one took with it do not count."""
    start = time.monotonic()
    while True:
        assert time.monotonic() - start < TIMEOUT, "no session works after the worker's death"
        sock = stage.network.client_socket()
        sock.settimeout(0.5)
        with contextlib.suppress(OSError):
            sock.connect(stage.address)
            sock.send(b"hello")
            if sock.recv(5) == b"hello":
                sock.close()
                return time.monotonic() - start
        sock.close()


@pytest.fixture
def echo():
    """echo(listener) answers on every connection until the test is over."""
    stopping = threading.Event()

    def answer(sock):
        with contextlib.suppress(OSError):
            while data := sock.recv(65536):
                sock.sendall(data)
        sock.close()

    def serve(listener):
        listener.settimeout(0.1)
        while not stopping.is_set():
            with contextlib.suppress(TimeoutError):
                sock = listener.accept()[0]
                sock.settimeout(TIMEOUT)
                threading.Thread(target=answer, args=(sock,), daemon=True).start()

    threads = []

    def start(listener):
        threads.append(threading.Thread(target=serve, args=(listener,), daemon=True))
        threads[-1].start()

    yield start
    stopping.set()
    for thread in threads:
        thread.join()


def test_killed_worker_is_replaced_within_100_ms_and_nobody_is_refused(own_stage, echo):
    stage = own_stage()
    stage.allow(restarts=3, log=[r"worker \d+"], ends={"worker_died", "client_abort", "server_abort"},
                fallbacks={"half_closed"})
    echo(stage.listener)
    caller = Caller(stage)
    gone, times = [], []
    for _ in range(3):
        worker = worker_of(stage)
        seconds_until_served(stage)
        os.kill(worker, signal.SIGKILL)
        wait_until("the worker is dead", lambda: state_of(worker) == "Z", interval=0.001)
        times.append(seconds_until_served(stage))
        gone.append(worker)
        wait_until("there is one new worker", lambda: set(stage.daemon.workers()) - set(gone))
    time.sleep(0.2)
    caller.stop()
    stage.wait_idle()
    print(f"served again after {times} s; {caller.calls} calls")
    assert caller.calls > 20 and not caller.refused, f"{len(caller.refused)} of {caller.calls}: {caller.refused[:3]}"
    assert min(times) <= 0.1 * SCALE and max(times) <= 1 * SCALE, f"served again after {times} s"


@pytest.mark.parametrize("queued", [False, True], ids=["idle", "with_megabytes_queued"])
def test_sessions_of_a_killed_worker_are_reset(own_stage, queued):
    """Never a clean EOF: what had been queued is lost, and both ends can tell."""
    stage = own_stage()
    stage.allow(restarts=1, log=[r"worker \d+"], ends={"worker_died"})
    pairs = [stage.settled_pair() for _ in range(5)]
    if queued:
        together(*(Task(fill, peer) for pair in pairs for peer in pair))
    os.kill(worker_of(stage), signal.SIGKILL)
    together(*(Task(peer.expect_reset) for pair in pairs for peer in pair))
    stage.daemon.wait_metric("a restart", lambda metrics: metrics.total("shunt_worker_restarts_total") == 1)
    delta = stage.wait_idle().since(stage.base)
    assert delta.total("shunt_sessions_ended_total", reason="worker_died") == 5
    round_trip(*stage.settled_pair())


def test_counters_survive_the_worker(own_stage):
    stage = own_stage()
    stage.allow(restarts=1, log=[r"worker \d+"])
    for _ in range(3):
        client, server = stage.settled_pair()
        client.close()
        server.close()
    before = stage.wait_idle().since(stage.base)
    os.kill(worker_of(stage), signal.SIGKILL)
    after = stage.daemon.wait_metric("a restart", lambda metrics: metrics.total("shunt_worker_restarts_total") == 1)
    after = after.since(stage.base)
    assert after.total("shunt_listener_sessions_total") == 3
    assert stage.bytes(after) == stage.bytes(before)


@pytest.mark.modes(*LOOPBACK)
def test_service_survives_a_worker_that_keeps_dying(own_stage, echo):
    """More deaths than are replaced at once: a pause, no refusal, and service again."""
    stage = own_stage()
    stage.allow(restarts=7, log=[r"worker \d+"], ends={"worker_died", "client_abort", "server_abort"},
                fallbacks={"half_closed"})
    echo(stage.listener)
    caller = Caller(stage)
    for number in range(7):
        worker = wait_until("there is a worker", stage.daemon.workers)[0]
        os.kill(worker, signal.SIGKILL)
        wait_until("the worker is gone", lambda: worker not in stage.daemon.workers())
        wait_until("there is another worker", stage.daemon.workers)
    seconds_until_served(stage)
    caller.stop()
    stage.wait_idle()
    assert not caller.refused, f"{len(caller.refused)} of {caller.calls}: {caller.refused[:3]}"
    stage.daemon.wait_metric("restarts", lambda metrics: metrics.total("shunt_worker_restarts_total") == 7)


@pytest.mark.parametrize("queued", [False, True], ids=["idle", "with_megabytes_queued"])
@pytest.mark.modes(*LOOPBACK)
def test_killed_supervisor_takes_the_worker_along_and_sessions_are_reset(own_stage, queued):
    stage = own_stage()
    stage.allow(log=["supervisor is gone"])
    pairs = [stage.settled_pair() for _ in range(3)]
    if queued:
        together(*(Task(fill, peer) for pair in pairs for peer in pair))
    worker = worker_of(stage)
    stage.daemon.signal(signal.SIGKILL)
    stage.daemon.process.wait()
    together(*(Task(peer.expect_reset) for pair in pairs for peer in pair))
    wait_until("the worker is gone", lambda: state_of(worker) == "Z", timeout=5)


# ---- a worker that does not get the CPU


@pytest.mark.modes("sockmap", "parser")
def test_kernel_path_flows_while_the_worker_stands_still(own_stage):
    stage = own_stage()
    client, server = stage.settled_pair()
    worker = worker_of(stage)
    os.kill(worker, signal.SIGSTOP)
    try:
        for _ in range(200):
            round_trip(client, server)
    finally:
        os.kill(worker, signal.SIGCONT)
    stage.prove(c2s=client.sent, s2c=server.sent)


@pytest.mark.parametrize("sender", ["client", "server"])
@pytest.mark.modes(*LOOPBACK)
def test_memory_is_bounded_while_the_worker_stands_still(own_stage, sender):
    """Promise 2: whatever the worker is doing. And it wakes up to find everything in order."""
    stage = own_stage()
    client, server = stage.settled_pair()
    sender, reader = (client, server) if sender == "client" else (server, client)
    worker = worker_of(stage)
    os.kill(worker, signal.SIGSTOP)
    try:
        fill(sender, quiet=0.5)
        taken = sender.sent - 100
        assert taken <= 24 * MB, f"{taken} bytes were taken while nobody read and the worker stood still"
    finally:
        os.kill(worker, signal.SIGCONT)
    together(Task(lambda: sender.send(8 * MB).fin()), Task(reader.expect_eof, 100 + taken + 8 * MB))
    reader.fin()
    sender.expect_eof(100)
    stage.prove(c2s=client.sent, s2c=server.sent)


# ---- privileges and start


def status_of(pid):
    with open(f"/proc/{pid}/status") as file:
        return dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)


@pytest.mark.modes("sockmap")
def test_worker_has_no_privilege(own_stage):
    status = status_of(worker_of(own_stage()))
    assert "0" not in status["Uid"].split() and "0" not in status["Gid"].split(), status["Uid"] + status["Gid"]
    assert status["Groups"].split() in ([], [status["Gid"].split()[0]]), status["Groups"]
    for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
        assert int(status[name], 16) == 0, f"{name} {status[name]}"
    assert status["NoNewPrivs"] == "1"


def run_to_exit(*argv, **options):
    return subprocess.run([*program(), *argv], capture_output=True, text=True, timeout=TIMEOUT, **options)


def test_ordinary_user_gets_the_relay():
    """Without privileges everything works but the kernel path."""
    listener = PORTS.listen()
    daemon = Daemon([("127.0.0.1:0", shown(listener.getsockname()))], path="auto", parser="auto")
    os.chown(daemon.dir, 65534, 65534)
    daemon.argv = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all", *daemon.argv]
    try:
        daemon.start()
        client = socket.create_connection(daemon.address(), timeout=TIMEOUT)
        server = listener.accept()[0]
        server.settimeout(TIMEOUT)
        client.sendall(b"to the server")
        assert server.recv(100) == b"to the server"
        server.sendall(b"to the client")
        assert client.recv(100) == b"to the client"
        client.close()
        server.close()
        metrics = daemon.wait_metric("the session is over",
                                     lambda metrics: metrics.total("shunt_listener_sessions_active") == 0)
        assert metrics.total("shunt_bytes_total", path="relay") == 26
        assert daemon.stop() == 0
        assert not daemon.trouble()
    finally:
        daemon.remove()
        listener.close()


def test_busy_address_is_a_start_error():
    listener = PORTS.listen()
    address = shown(listener.getsockname())
    done = run_to_exit("--listen", address, "--to", "127.0.0.1:9")
    assert done.returncode == 1
    assert address in done.stderr, done.stderr
    listener.close()


@pytest.mark.parametrize("argv", [["--listen", "127.0.0.1:0"], ["--no-such-option"], ["--path", "teleport"]])
def test_wrong_usage_exits_with_2(argv):
    done = run_to_exit(*argv)
    assert done.returncode == 2, f"{done.returncode}: {done.stderr}"
    assert done.stderr.strip()


@pytest.mark.modes(*LOOPBACK)
def test_metrics_are_the_same_over_tcp_and_unix(own_stage):
    tcp = PORTS.listen()
    address = shown(tcp.getsockname())
    tcp.close()
    stage = own_stage(stats=("unix", address))
    client, server = stage.settled_pair()
    together(Task(client.send, 3 * MB), Task(server.read, 3 * MB))
    stage.prove(c2s=100 + 3 * MB, s2c=100)
    status, headers, text = http_get(address)
    assert status == 200 and headers["Content-Type"].startswith("text/plain"), f"{status} {headers}"
    over_tcp, over_unix = Metrics.parse(text), stage.daemon.metrics()
    for name in ("shunt_bytes_total", "shunt_listener_sessions_total", "shunt_sessions_ended_total"):
        assert over_tcp.by(name, "listener") == over_unix.by(name, "listener")
    assert http_get(address, "/no-such-page")[0] == 404
    assert set(re.findall(r"^# TYPE (shunt_\w+)", text, re.M)) >= {
        "shunt_bytes_total", "shunt_fallbacks_total", "shunt_overflows_total", "shunt_sessions_ended_total",
        "shunt_listener_sessions_active", "shunt_worker_restarts_total"}


def test_bytes_of_live_sessions_are_counted(stage):
    client, server = stage.settled_pair()
    together(Task(client.send, 2 * MB), Task(server.read, 2 * MB))

    def counted(metrics):
        return metrics.since(stage.base).total("shunt_bytes_total", direction="c2s") == 2 * MB + 100

    stage.daemon.wait_metric("2 MB of a session that is open", counted)
    stage.prove(c2s=2 * MB + 100, s2c=100)

