# SPDX-License-Identifier: BSD-2-Clause
"""Sessions that wait for a server with room."""

import time

import pytest

from ops.scene import farm_lines
from peer import SCALE, Stuck, Task, together, wait_until

pytestmark = pytest.mark.modes("relay", "sockmap")
KB = 1024


def crowd(scene, count, **options):
    """Clients in the order of their sessions: each is in before the next one connects."""
    clients = []
    before = scene.active()
    for number in range(count):
        clients.append(scene.connect(**options))
        scene.wait_active(before + number + 1)
    return clients


def served(clients):
    return [number for number, client in enumerate(clients) if client.served()]


@pytest.mark.parametrize("threads", ["1", "2"])
def test_queue_is_first_in_first_out(launch, servers, threads):
    a, = farm = servers("a")
    scene = launch(servers=farm, options={"a": "max_sessions=2"}, top={"threads": threads})
    holders = [scene.connect().exchange() for _ in range(2)]
    waiting = crowd(scene, 6, early=1000)
    for client in waiting:
        client_in_front = waiting.index(client)
        assert served(waiting) == list(range(client_in_front)), "nobody overtakes, and nobody is let in too early"
        holders.pop(0).leave()
        assert client.who() == "a"
        client.read_back().exchange(100 * KB)
        holders.append(client)
    assert a.most == 2
    assert a.accepted == 8


@pytest.mark.modes("relay", "sockmap")
def test_server_max_sessions_is_never_exceeded_by_a_crowd(launch, servers):
    a, b = farm = servers("a", "b")
    scene = launch(servers=farm, options={"b": "max_sessions=5"}, backend={"server_max_sessions": "3",
                                                                          "queue_timeout": "60s"})
    clients = [scene.connect(early=500) for _ in range(80)]

    def one(client):
        client.who()
        client.read_back().exchange(2 * KB).leave()

    together(*(Task(one, client) for client in clients))
    assert (a.most, b.most) == (3, 5), "as many as allowed, and not one more"
    assert a.accepted + b.accepted == 80


def test_queue_timeout_ends_those_that_wait_and_no_others(launch, servers):
    farm = servers("a")
    scene = launch(servers=farm, backend={"server_max_sessions": "1", "queue_timeout": "700ms"})
    scene.allow(ends={"queue_timeout"})
    holder = scene.connect().exchange()
    start = time.monotonic()
    waiting = [scene.connect(early=1000) for _ in range(3)]
    together(*(Task(client.expect_reset) for client in waiting))
    took = time.monotonic() - start
    assert 0.69 <= took <= 0.7 + 0.5 * SCALE, f"queue_timeout is 700 ms, it took {took:.2f} s"
    assert scene.ended("queue_timeout") == 3
    late = scene.connect(early=1000)
    holder.exchange().leave()
    assert late.who() == "a"
    late.read_back().leave()


@pytest.mark.parametrize("position", [0, 1, 2])
def test_client_that_leaves_the_queue_makes_room_for_the_next(launch, servers, position):
    farm = servers("a")
    scene = launch(servers=farm, backend={"server_max_sessions": "1", "queue_timeout": "60s"})
    scene.allow(ends={"client_abort"})
    holder = scene.connect().exchange()
    waiting = crowd(scene, 3, early=100)
    waiting.pop(position).abort()
    scene.wait_active(3)
    assert scene.ended("client_abort") == 1
    holder.leave()
    first, second = waiting
    first.who()
    assert served(waiting) == [0]
    first.read_back().leave()
    second.who()
    second.read_back().leave()
    assert farm[0].accepted == 3, "the server has never seen the one that left"


def test_whole_queue_may_leave(launch, servers):
    farm = servers("a")
    scene = launch(servers=farm, backend={"server_max_sessions": "1", "queue_timeout": "60s"})
    scene.allow(ends={"client_abort"})
    holder = scene.connect().exchange()
    for client in crowd(scene, 10, early=100):
        client.abort()
    scene.wait_active(1)
    holder.leave()
    assert scene.visits(3) == {"a": 3}


@pytest.mark.parametrize("how", ["client_abort", "server_abort", "complete"])
def test_slot_is_released_however_a_session_ends(launch, servers, how):
    a, = farm = servers("a")
    scene = launch(servers=farm, backend={"server_max_sessions": "1", "queue_timeout": "60s"})
    scene.allow(ends={how})
    for _ in range(3):
        holder = scene.connect().exchange()
        waiting = scene.connect(early=1000)
        scene.wait_active(2)
        if how == "client_abort":
            holder.abort()
        elif how == "server_abort":
            a.drop_all()
        else:
            holder.leave()
        assert waiting.who() == "a"
        waiting.read_back().leave()
        scene.wait_active(0)


def test_slot_is_released_by_a_connection_that_fails(launch, servers, hole):
    """The attempt holds the only place of the first server; when it fails that place is free again."""
    farm = servers("b")
    scene = launch(servers=[hole, *farm], options={"b": "max_sessions=1"}, top={"threads": "1"},
                   backend={"server_max_sessions": "1", "connect_timeout": "200ms", "ejection": "off",
                            "queue_timeout": "60s", "retries": "1"})
    clients = [scene.connect(early=2000) for _ in range(4)]

    def one(client):
        assert client.who() == "b"
        client.read_back().exchange().leave()

    together(*(Task(one, client) for client in clients))
    assert scene.metrics().total("shunt_server_sessions_active") == 0


def test_session_takes_whichever_server_becomes_free(launch, servers):
    a, b = farm = servers("a", "b")
    scene = launch(servers=farm, backend={"server_max_sessions": "1", "queue_timeout": "60s"})
    holders = {client.exchange().who(): client for client in (scene.connect(), scene.connect())}
    assert set(holders) == {"a", "b"}
    for name in ("b", "a", "b"):
        waiting = scene.connect(early=100)
        scene.wait_active(3)
        holders.pop(name).leave()
        assert waiting.who() == name
        holders[name] = waiting.read_back()


def test_bytes_of_a_waiting_client_are_not_read_without_bound(launch, servers):
    """A client that sends and sends meets backpressure, and everything arrives in the end."""
    farm = servers("a")
    scene = launch(servers=farm, backend={"server_max_sessions": "1", "queue_timeout": "60s"})
    scene.share = 0
    holder = scene.connect().exchange()
    waiting = scene.connect()
    scene.wait_active(2)
    with pytest.raises(Stuck):
        waiting.send(64 << 20, timeout=1)
    sent = waiting.sent
    assert sent < 16 << 20, f"{sent} bytes went into a session without a server"
    holder.leave()
    assert waiting.who() == "a"
    waiting.read_back().leave()
    assert scene.ended("complete") == 2


# ---- what else makes room


def test_server_that_comes_up_serves_those_that_wait_in_their_order(launch, servers):
    a, b = farm = servers("a", "b")
    scene = launch(servers=farm, backend={"server_max_sessions": "1", "queue_timeout": "60s", "check": "tcp",
                                          "check_interval": "50ms", "check_rise": "1", "check_fall": "1"})
    b.shut()
    scene.wait_state("b", "down")
    holder = scene.connect().exchange()
    waiting = crowd(scene, 4, early=100)
    b.open()
    assert waiting[0].who(timeout=5) == "b"
    for number, client in enumerate(waiting[1:], 1):
        holder.leave()
        wait_until("one more is served", lambda: len(served(waiting)) > number)
        assert served(waiting) == list(range(number + 1)), "the next one in the queue"
        holder = client.read_back()
    waiting[0].read_back().leave()


def test_backup_serves_those_that_wait_when_the_full_server_goes_down(launch, servers):
    a, spare = farm = servers("a", "spare")
    scene = launch(servers=farm, options={"a": "max_sessions=1", "spare": "backup"},
                   backend={"queue_timeout": "20s", "check": "tcp", "check_interval": "50ms", "check_rise": "1",
                            "check_fall": "1"})
    holder = scene.connect().exchange()
    waiting = crowd(scene, 3, early=100)
    a.shut()
    scene.wait_state("a", "down")
    holder.exchange()
    for client in waiting:
        assert client.who(timeout=5) == "spare", "the backup is free and nobody else may serve"
        client.read_back()


@pytest.mark.parametrize("change", ["raised", "off", "more_servers"])
def test_room_that_a_reload_makes_serves_those_that_wait(launch, servers, change):
    a, b = servers("a", "b")
    scene = launch(servers=[a], backend={"server_max_sessions": "1", "queue_timeout": "20s"})
    holder = scene.connect().exchange()
    waiting = crowd(scene, 2, early=100)
    scene.reload({"backend app": {
        "raised": {"server_max_sessions": "3"},
        "off": {"server_max_sessions": "off"},
        "more_servers": {"server": farm_lines([a, b]), "server_max_sessions": "2"},
    }[change]})
    fresh = scene.connect(early=100) if change == "off" else None
    for client in [*waiting, fresh] if fresh else waiting:
        client.who(timeout=5)
        client.read_back()
    holder.exchange()


def test_queue_survives_a_reload(launch, servers):
    """Nobody's place is lost, and sessions of before and after keep the order."""
    farm = servers("a")
    scene = launch(servers=farm, backend={"server_max_sessions": "1", "queue_timeout": "60s"})
    holder = scene.connect().exchange()
    waiting = crowd(scene, 2, early=100)
    scene.reload({"listener front": {"idle_timeout": "30m"}})
    waiting += crowd(scene, 2, early=100)
    for number, client in enumerate(waiting):
        assert served(waiting[number:]) == []
        holder.leave()
        client.who()
        holder = client.read_back()
    wait_until("all of them were served in turn", lambda: farm[0].accepted == 5)
