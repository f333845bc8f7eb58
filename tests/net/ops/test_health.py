# SPDX-License-Identifier: BSD-2-Clause
"""Active checks, what becomes of the sessions of a server that goes down, and ejection by failures."""

import re
import time

import pytest

from ops.farm import CHECK, until, wait_answers
from peer import SCALE, Reset, Task, together, wait_until

pytestmark = pytest.mark.modes("sockmap")
TCP = {"check": "tcp", "check_interval": "100ms", "check_fall": "2", "check_rise": "2", "ejection": "off"}
ASK = {**TCP, "check": CHECK}


def stays(what, condition, seconds):
    """Fails as soon as the condition is false."""
    go_on = until(seconds)
    while go_on():
        assert condition(), what
        time.sleep(0.01)


def failures(scene, server):
    """Failed connection attempts of sessions."""
    return int(scene.metrics().total("shunt_server_connect_failures_total", server=server))


# ---- active checks


@pytest.mark.modes("relay", "sockmap")
def test_server_that_closes_its_listener_goes_down_and_comes_up_again(launch, servers):
    a, b = farm = servers("a", "b")
    scene = launch(servers=farm, backend=TCP)
    assert set(scene.visits(8)) == {"a", "b"}
    a.shut()
    scene.wait_state("a", "down")
    assert set(scene.visits(8)) == {"b"}
    assert failures(scene, "a") == 0, "nothing was tried with a server that is down"
    a.open()
    scene.wait_state("a", "up")
    assert set(scene.visits(8)) == {"a", "b"}
    assert scene.changes_of("a") == ["down", "up"] and scene.changes_of("b") == []


def test_server_that_does_not_answer_a_connection_attempt_goes_down(launch, servers, hole):
    farm = servers("a")
    scene = launch(servers=[hole, *farm], backend={**TCP, "connect_timeout": "200ms"})
    scene.wait_state("hole", "down")
    assert set(scene.visits(8)) == {"a"}
    assert scene.changes_of("a") == []


def test_tcp_check_leaves_nothing_for_the_server_to_accept(launch, servers):
    a, = farm = servers("a")
    scene = launch(servers=farm, backend={**TCP, "check_interval": "20ms"})
    stays("a connection arrived", lambda: a.accepted == 0, 0.5)
    a.shut()
    scene.wait_state("a", "down")  # it was checked indeed


@pytest.mark.modes("relay", "sockmap")
def test_server_with_the_wrong_answer_goes_down_while_it_accepts(launch, servers):
    a, b = farm = servers("a", "b")
    scene = launch(servers=farm, backend=ASK)
    wait_answers(a, 2)
    assert set(scene.visits(8)) == {"a", "b"}
    a.healthy = False
    scene.wait_state("a", "down")
    assert set(scene.visits(8)) == {"b"}
    a.healthy = True
    scene.wait_state("a", "up")
    assert set(scene.visits(8)) == {"a", "b"}


def test_answer_in_pieces_is_the_expected_one(launch, servers):
    """The greeting comes first, so what is expected is in the second segment."""
    a, = farm = servers("a")
    scene = launch(servers=farm, backend={**ASK, "check": r'send_expect "PING\n" "a       +PO\x4eG"'})
    wait_answers(a, 3)
    assert scene.changes_of("a") == []
    a.greets = False
    scene.wait_state("a", "down")


def test_fall_counts_failures_in_a_row(launch, servers):
    a, = farm = servers("a")
    scene = launch(servers=farm, backend={**ASK, "check_fall": "3", "check_rise": "1"})
    wait_answers(a, 1)
    good, bad = True, False
    a.script.extend([bad, bad, good, bad, bad, good, bad, bad])
    wait_answers(a, len(a.answers) + 10)
    assert scene.changes_of("a") == [], f"three failures in a row: {a.answers}"
    a.script.extend([bad, bad, bad])
    scene.wait_state("a", "up")
    assert scene.changes_of("a") == ["down", "up"]


def test_rise_counts_successes_in_a_row(launch, servers):
    a, = farm = servers("a")
    scene = launch(servers=farm, backend={**ASK, "check_fall": "1", "check_rise": "3"})
    wait_answers(a, 1)
    a.healthy = False
    scene.wait_state("a", "down")
    good, bad = True, False
    start = len(a.answers)
    a.script.extend([good, good, bad, good, bad, good, good, bad])
    wait_answers(a, start + 10)
    assert scene.changes_of("a") == ["down"], f"three successes in a row: {a.answers}"
    start = len(a.answers)
    a.healthy = True
    scene.wait_state("a", "up")
    answers = a.answers[start:]
    assert answers.count(True) >= 3, answers


def test_changing_state_is_checked_four_times_as_often(launch, servers):
    a, = farm = servers("a")
    scene = launch(servers=farm, backend={**ASK, "check_interval": "800ms", "check_fall": "4", "check_rise": "4"})
    wait_answers(a, 1)
    a.healthy = False
    wait_answers(a, len(a.answers) + 1)
    start = time.monotonic()
    scene.wait_state("a", "down")
    took = time.monotonic() - start
    assert 0.45 <= took <= 1.2 * SCALE, f"three more checks at 200 ms each, but it took {took:.2f} s"


def test_checks_of_many_servers_are_spread(launch, servers):
    """Jitter: after a while the checks do not come together."""
    farm = servers(*(f"s{number}" for number in range(12)))
    launch(servers=farm, backend={**ASK, "check_interval": "300ms"})
    times = []
    seen = {server.name: 0 for server in farm}
    go_on = until(1.8)
    while go_on():
        for server in farm:
            if len(server.answers) > seen[server.name]:
                seen[server.name] = len(server.answers)
                times.append((server.name, time.monotonic()))
        time.sleep(0.002)
    assert all(4 <= count <= 9 for count in seen.values()), f"1.8 s at 300 ms: {seen}"
    gaps = {name: [y - x for x, y in zip(list(t), list(t)[1:])]
            for name in seen for t in [[at for who, at in times if who == name]]}
    every = [gap for found in gaps.values() for gap in found]
    assert min(every) >= 0.25 and max(every) <= 0.38 * SCALE, f"a tenth of jitter: {min(every):.3f} to {max(every):.3f}"
    assert max(every) - min(every) >= 0.02, "no jitter at all"


# ---- on_server_down


@pytest.mark.modes("relay", "sockmap")
def test_sessions_of_a_server_that_goes_down_are_kept(launch, servers):
    a, b = farm = servers("a", "b")
    scene = launch(servers=farm, backend=TCP)
    clients = [scene.connect().exchange() for _ in range(8)]
    of_a = [client for client in clients if client.who() == "a"]
    assert len(of_a) == 4
    a.shut()
    scene.wait_state("a", "down")
    for client in clients:
        client.exchange(100_000)
    for client in clients:
        client.leave()
    assert scene.ended("complete") == 8


@pytest.mark.modes("relay", "sockmap")
def test_sessions_of_a_server_that_goes_down_are_reset_on_request(launch, servers):
    a, b = farm = servers("a", "b")
    scene = launch(servers=farm, backend={**TCP, "on_server_down": "reset"})
    scene.allow(ends={"server_down"})
    clients = [scene.connect().exchange() for _ in range(8)]
    gone = [client for client in clients if client.who() == "a"]
    left = [client for client in clients if client.who() == "b"]
    assert len(gone) == 4
    ends = [Task(client.expect_reset) for client in gone]
    a.shut()
    together(*ends)
    wait_until("the server has lost them too", lambda: not a.conns)
    for client in left:
        client.exchange(100_000).leave()
    assert scene.ended("server_down") == 4


def test_session_that_is_being_connected_to_a_server_that_goes_down_takes_another(launch, servers, hole):
    """on_server_down = reset is for its sessions; these have no server yet, and their clients have noticed nothing."""
    farm = servers("a")
    scene = launch(servers=[hole, *farm], top={"threads": "1"},
                   backend={**TCP, "check_interval": "500ms", "on_server_down": "reset", "connect_timeout": "1s",
                            "check_fall": "1"})
    clients = [scene.connect(early=5000) for _ in range(6)]
    scene.wait_state("hole", "down")
    for client in clients:
        assert client.who() == "a"
        client.read_back().exchange().leave()


# ---- ejection


def ejections(scene, server):
    return len(re.findall(rf"server app/{server}: ejected", scene.daemon.log()))


@pytest.mark.modes("relay", "sockmap")
def test_server_that_refuses_is_left_out_after_three_failures_and_tried_again_later(launch, servers):
    a, b = farm = servers("a", "b")
    scene = launch(servers=farm, backend={"ejection": "1s"}, top={"threads": "1"})
    a.shut()
    assert scene.visits(8) == {"b": 8}, "retries hide it"
    assert failures(scene, "a") == 3 and ejections(scene, "a") == 1
    start = time.monotonic()
    assert scene.visits(20) == {"b": 20}
    assert time.monotonic() - start < 0.8, "this machine is too slow for the test"
    assert failures(scene, "a") == 3, "left out for a second"
    a.open()
    wait_until("a serves again", lambda: scene.visit() == "a", timeout=5)
    assert time.monotonic() - start >= 0.9
    assert set(scene.visits(4)) == {"a", "b"}


@pytest.mark.long
def test_ejection_time_doubles_and_is_forgotten_once_the_server_does_well(launch, servers):
    a, b = farm = servers("a", "b")
    scene = launch(servers=farm, backend={"ejection": "300ms"}, top={"threads": "1"})
    a.shut()
    times = []
    for number in range(1, 4):
        def seen():
            scene.visit()
            return ejections(scene, "a") >= number
        wait_until(f"ejection {number}", seen)
        times.append(time.monotonic())
    first, second = times[1] - times[0], times[2] - times[1]
    assert 0.28 <= first <= 0.5 * SCALE, f"{first:.2f} s, ejected for 300 ms"
    assert 0.58 <= second <= 0.9 * SCALE, f"{second:.2f} s, ejected for 600 ms"
    a.open()
    wait_until("a serves again", lambda: scene.visit() == "a")
    a.shut()
    before = failures(scene, "a")
    wait_until("ejection 4", lambda: [scene.visit(), ejections(scene, "a") >= 4][1])
    assert failures(scene, "a") - before == 3, "it starts anew with three failures"


def test_ejection_never_takes_more_than_half_of_the_servers(launch, servers):
    farm = servers("a", "b", "c", "d", "e")
    scene = launch(servers=farm, backend={"ejection": "60s", "retries": "5"}, top={"threads": "1"})
    for server in farm[:4]:
        server.shut()
    assert scene.visits(40) == {"e": 40}
    out = [server.name for server in farm if ejections(scene, server.name)]
    assert len(out) == 2, f"half of five, rounded down: {out}"


def test_ejection_is_no_trap_when_every_server_fails_for_a_while(launch, servers):
    farm = servers("a", "b")
    scene = launch(servers=farm, backend={"ejection": "60s"})
    scene.allow(ends={"connect_refused"})
    for server in farm:
        server.shut()
    for _ in range(20):
        assert scene.is_rejected()
    assert sum(ejections(scene, server.name) for server in farm) == 1, "one of two, at most"
    ejected = next(server for server in farm if ejections(scene, server.name))
    other = next(server for server in farm if server is not ejected)
    ejected.open()
    assert scene.visits(10) == {ejected.name: 10}, "it is ejected, but the only one that serves"
    other.open()
    assert other.name in scene.visits(10)


def test_last_server_is_never_ejected(launch, servers):
    a, = farm = servers("a")
    scene = launch(servers=farm, backend={"ejection": "60s"})
    scene.allow(ends={"connect_refused"})
    a.shut()
    for _ in range(10):
        assert scene.is_rejected()
    a.open()
    assert scene.visits(5) == {"a": 5}
    assert ejections(scene, "a") == 0


@pytest.mark.modes("relay", "sockmap")
def test_server_that_accepts_and_resets_is_ejected(launch, servers):
    a, b = farm = servers("a", "b")
    scene = launch(servers=farm, backend={"ejection": "60s"}, top={"threads": "1"})
    scene.allow(ends={"server_abort"}, fallbacks={"half_closed"})
    a.resets = True
    found = [scene.is_rejected() for _ in range(20)]
    # A reset that comes before the daemon has seen the connection established is a failure that it retries.
    assert found.count(True) + failures(scene, "a") == 3, f"three sessions meet the broken server: {found}"
    assert ejections(scene, "a") == 1


def test_ejection_off_leaves_a_server_that_refuses_in(launch, servers):
    a, b = farm = servers("a", "b")
    scene = launch(servers=farm, backend={"ejection": "off"}, top={"threads": "1"})
    a.shut()
    assert scene.visits(20) == {"b": 20}
    assert failures(scene, "a") >= 9 and ejections(scene, "a") == 0


def test_failures_between_successes_do_not_eject(launch, servers):
    """Three in a row count, not three in all."""
    a, b = farm = servers("a", "b")
    scene = launch(servers=farm, backend={"ejection": "60s"}, top={"threads": "1"})
    for _ in range(4):
        a.shut()
        assert scene.visits(2) == {"b": 2}
        a.open()
        wait_until("a serves again", lambda: scene.visit() == "a")
    assert failures(scene, "a") >= 4 and ejections(scene, "a") == 0
    with pytest.raises(Reset):  # and the client sees what happens to its own server
        client = scene.connect().exchange()
        scene.allow(ends={"server_abort"})
        (a if client.who() == "a" else b).drop_all()
        client.read(1)
