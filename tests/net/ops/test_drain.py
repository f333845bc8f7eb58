# SPDX-License-Identifier: BSD-2-Clause
"""SIGTERM: no new connections, sessions go on for drain_timeout, what is left is closed spread over its last fifth."""

import signal
import time

import pytest

from daemon import http_get
from ops.scene import is_refused
from peer import SCALE, Reset, Task, together, wait_until

pytestmark = pytest.mark.modes("relay", "sockmap")


def ends_of(scene, clients):
    """Exchanges with all clients until they are reset; the times of that."""
    def one(client):
        try:
            while True:
                client.exchange(500)
                time.sleep(0.01)
        except Reset:
            return time.monotonic()

    return [Task(one, client) for client in clients]


def test_sessions_live_for_four_fifths_of_drain_timeout_and_end_spread_over_the_last(launch, servers):
    seconds = 3
    scene = launch(servers=servers("a"), top={"drain_timeout": f"{seconds}s"})
    front = scene.address()
    clients = [scene.connect().exchange() for _ in range(40)]
    tasks = ends_of(scene, clients)
    start = time.monotonic()
    scene.daemon.signal(signal.SIGTERM)
    wait_until("new connections are refused", lambda: is_refused(front), timeout=2)
    ends = []
    wait_until("every session has ended", lambda: all(task.done() for task in tasks), timeout=seconds + 5)
    ends = sorted(end - start for end in together(*tasks))
    assert scene.daemon.wait_exit() == 0
    took = time.monotonic() - start
    assert 0.8 * seconds - 0.02 <= ends[0], f"the first one ended after {ends[0]:.2f} s"
    assert ends[-1] <= seconds + 0.3 * SCALE, f"the last one ended after {ends[-1]:.2f} s"
    assert took <= seconds + 1 * SCALE, f"the daemon took {took:.2f} s"
    quarters = [int((end + 0.01 - 0.8 * seconds) / (0.05 * seconds)) for end in ends]
    parts = [quarters.count(part) for part in range(4)]
    assert all(3 <= count <= 22 for count in parts[:3]), f"sessions by quarters of the last fifth: {parts}, {ends}"
    assert "draining for up to 3000 ms" in scene.daemon.log()


@pytest.mark.modes("relay", "sockmap")
def test_daemon_ends_with_its_last_session(launch, servers):
    scene = launch(servers=servers("a"), top={"drain_timeout": "60s"})
    clients = [scene.connect().exchange() for _ in range(5)]
    front = scene.address()
    scene.daemon.signal(signal.SIGTERM)
    wait_until("new connections are refused", lambda: is_refused(front), timeout=2)
    for client in clients:
        client.exchange(200_000)
        assert scene.daemon.is_running()
        client.leave()
    start = time.monotonic()
    assert scene.daemon.wait_exit() == 0
    assert time.monotonic() - start < 2 * SCALE


def test_daemon_without_sessions_ends_at_once(launch, servers):
    scene = launch(servers=servers("a"), top={"drain_timeout": "60s"})
    scene.visits(3)
    scene.prove_path()
    start = time.monotonic()
    scene.daemon.signal(signal.SIGTERM)
    assert scene.daemon.wait_exit() == 0
    assert time.monotonic() - start < 2 * SCALE


@pytest.mark.parametrize("again", [signal.SIGTERM, signal.SIGINT])
def test_second_signal_stops_at_once(launch, servers, again):
    scene = launch(servers=servers("a"), top={"drain_timeout": "60s"})
    clients = [scene.connect().exchange() for _ in range(10)]
    scene.daemon.signal(signal.SIGTERM)
    scene.daemon.wait_log("draining for up to")
    for client in clients:
        client.exchange(10_000)
    start = time.monotonic()
    scene.daemon.signal(again)
    for client in clients:
        client.expect_reset(timeout=5)
    assert scene.daemon.wait_exit() == 0
    assert time.monotonic() - start < 2 * SCALE
    wait_until("the server has lost them too", lambda: not scene.farm.servers[0].conns)


def test_drain_timeout_of_0_resets_all_at_once(launch, servers):
    scene = launch(servers=servers("a"), top={"drain_timeout": "0"})
    clients = [scene.connect().exchange() for _ in range(10)]
    scene.daemon.signal(signal.SIGTERM)
    for client in clients:
        client.expect_reset(timeout=5)
    assert scene.daemon.wait_exit() == 0


def test_draining_daemon_tells_that_it_is_not_ready_and_how_many_are_left(launch, servers):
    scene = launch(servers=servers("a"), top={"drain_timeout": "60s"})
    clients = [scene.connect().exchange() for _ in range(3)]
    assert http_get(scene.daemon.stats[0], "/readyz")[0] == 200
    scene.daemon.signal(signal.SIGTERM)
    wait_until("not ready", lambda: http_get(scene.daemon.stats[0], "/readyz")[0] == 503)
    assert http_get(scene.daemon.stats[0], "/healthz")[0] == 200
    clients.pop().leave()
    metrics = scene.wait_active(2)
    assert metrics.total("shunt_sessions_ended_total", reason="complete") == 1
    scene.prove_path(metrics)
    for client in clients:
        client.leave()
    assert scene.daemon.wait_exit() == 0


def test_sessions_in_the_queue_are_served_while_the_daemon_drains(launch, servers):
    scene = launch(servers=servers("a"), top={"drain_timeout": "60s"},
                   backend={"server_max_sessions": "1", "queue_timeout": "60s"})
    holder = scene.connect().exchange()
    waiting = scene.connect(early=5000)
    scene.wait_active(2)
    scene.daemon.signal(signal.SIGTERM)
    scene.daemon.wait_log("draining for up to")
    holder.exchange().leave()
    assert waiting.who() == "a"
    waiting.read_back().exchange(50_000).leave()
    assert scene.daemon.wait_exit() == 0


@pytest.mark.modes("sockmap")
def test_retry_goes_on_while_the_daemon_drains(launch, servers, hole):
    scene = launch(servers=[hole, *servers("b")], top={"drain_timeout": "60s", "threads": "1"},
                   backend={"connect_timeout": "700ms"})
    client = scene.connect(early=5000)
    scene.wait_active(1)
    scene.daemon.signal(signal.SIGTERM)
    scene.daemon.wait_log("draining for up to")
    assert client.who() == "b"
    client.read_back().leave()
    assert scene.daemon.wait_exit() == 0


@pytest.mark.modes("sockmap")
def test_reload_during_a_drain_does_not_open_the_listeners_again(launch, servers):
    scene = launch(servers=servers("a"), top={"drain_timeout": "60s"})
    client = scene.connect().exchange()
    front = scene.address()
    scene.daemon.signal(signal.SIGTERM)
    wait_until("new connections are refused", lambda: is_refused(front), timeout=2)
    scene.daemon.signal(signal.SIGHUP)
    scene.daemon.wait_log("SIGHUP: reloading")
    client.exchange(10_000)
    assert is_refused(front)
    client.leave()
    assert scene.daemon.wait_exit() == 0


@pytest.mark.modes("sockmap")
def test_drain_timeout_of_the_last_reload_counts(launch, servers):
    scene = launch(servers=servers("a"), top={"drain_timeout": "60s"})
    scene.reload({"global": {"drain_timeout": "1s"}})
    client = scene.connect().exchange()
    start = time.monotonic()
    scene.daemon.signal(signal.SIGTERM)
    client.expect_reset(timeout=10)
    assert 0.78 <= time.monotonic() - start <= 1.5 * SCALE
    assert scene.daemon.wait_exit() == 0
