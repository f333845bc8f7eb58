# SPDX-License-Identifier: BSD-2-Clause
"""SIGHUP changes what differs and nothing else."""

import contextlib
import os
import re
import signal
import socket
import threading
import time

import pytest

from ops.farm import CHECK, until, wait_answers
from ops.flood import failures
from ops.scene import app, farm_lines, is_refused, text_of
from peer import SCALE, TIMEOUT, Task, together, wait_until
from stage import PORTS, shown

pytestmark = pytest.mark.modes("sockmap")
KB = 1024


class Busy:
    """Sessions that exchange checked bytes until stop(); the first failure is raised there."""

    def __init__(self, clients):
        self.stopped = threading.Event()
        self.rounds = 0
        self.tasks = [Task(self._run, client) for client in clients]

    def _run(self, client):
        while not self.stopped.is_set():
            client.exchange(4000)
            self.rounds += 1
            self.stopped.wait(0.005)

    def round(self):
        """Until they have exchanged some more."""
        before = self.rounds
        wait_until("sessions go on", lambda: self.rounds >= before + 2 * len(self.tasks) or self.failed())
        return self

    def failed(self):
        return any(task.failed() for task in self.tasks)

    def stop(self):
        self.stopped.set()
        together(*self.tasks)


@contextlib.contextmanager
def busy(clients):
    sessions = Busy(clients)
    try:
        yield sessions
        sessions.round()
    finally:
        sessions.stopped.set()
    sessions.stop()


def descriptors_of(pids, inodes):
    """How many descriptors of these processes are the sockets with these inodes."""
    found = 0
    for pid in pids:
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(FileNotFoundError):
                match = re.fullmatch(r"socket:\[(\d+)\]", os.readlink(f"/proc/{pid}/fd/{name}"))
                found += bool(match and match.group(1) in inodes)
    return found


# ---- listeners


@pytest.mark.modes("relay", "sockmap")
def test_listener_that_stays_keeps_its_sockets_whatever_else_changes(launch, servers):
    a, b = servers("a", "b")
    scene = launch(servers=[a])
    before = scene.listen_inodes()
    assert len(before) == 2, "one socket per thread"
    pids = [scene.daemon.pid, *scene.daemon.workers()]
    descriptors = descriptors_of(pids, before)
    old = scene.connect().exchange()
    for changes in (
            {},
            {"listener front": {"idle_timeout": "2h", "keepalive": "5s", "max_sessions": "1000"}},
            {"backend app": {"server": farm_lines([a, b]), "balance": "least_sessions"}},
            {"listener more": {"bind": "127.0.0.1:0", "backend": "app"}},
            {"listener more": None},
            {"backend next": {"server": b.line()}, "listener front": {"backend": "next"}},
            {"global": {"log_level": "debug"}},
    ):
        with busy([old]):
            scene.reload(changes)
        assert scene.listen_inodes() == before, changes
        scene.visit()
    assert descriptors_of(pids, before) == descriptors, "and nobody has collected descriptors of it"
    assert scene.visit() == "b"
    old.leave()


def test_reload_leaves_no_descriptors_behind(launch, servers):
    a, = servers("a")
    scene = launch(servers=[a])
    pids = [scene.daemon.pid, *scene.daemon.workers()]

    def descriptors():
        return [len(os.listdir(f"/proc/{pid}/fd")) for pid in pids]

    def two():
        scene.reload({"listener more": {"bind": ["127.0.0.1:0", "[::1]:0"], "backend": "app"}})
        scene.reload({"listener more": None})

    two()
    scene.visit()
    before = descriptors()
    for _ in range(5):
        two()
    wait_until(f"as many descriptors as before: {before}, {descriptors()}", lambda: all(
        now <= then + 2 for now, then in zip(descriptors(), before)), timeout=5)


def test_renamed_listener_keeps_the_sockets_of_its_address(launch, servers):
    scene = launch(servers=servers("a"), bind=shown(free_address()))
    before = scene.listen_inodes()
    front = scene.address()
    old = scene.connect().exchange()
    keys = scene.sections["listener front"]
    scene.reload({"listener front": None, "listener renamed": keys})
    old.exchange().leave()
    assert scene.visit(to=front) == "a"
    assert scene.listen_inodes("front") == before
    assert scene.metrics().total("shunt_listener_sessions_total", listener="renamed") == 1


def free_address():
    sock = PORTS.listen()
    address = sock.getsockname()
    sock.close()
    return address


@pytest.mark.modes("relay", "sockmap")
def test_new_listener_serves_after_the_reload(launch, servers):
    a, b = servers("a", "b")
    scene = launch(servers=[a])
    scene.reload({"listener more": {"bind": ["127.0.0.1:0", "[::1]:0"], "backend": "next"}, "backend next": {
        "server": b.line()}})
    scene.daemon.wait_log("listener more: listening on .*:[0-9]+")
    for index in (0, 1):
        client = scene.connect(to=scene.address("more", index))
        assert client.exchange(100 * KB).who() == "b"
        client.leave()
    assert scene.metrics().total("shunt_listener_sessions_total", listener="more") == 2
    assert scene.visit() == "a"


@pytest.mark.modes("relay", "sockmap")
def test_removed_listener_refuses_and_drains_its_sessions(launch, servers):
    sections = app(servers("a"))
    sections["listener gone"] = dict(sections["listener front"])
    scene = launch(sections)
    gone = scene.address("gone")
    clients = [scene.connect(to=gone).exchange() for _ in range(6)]
    with busy(clients):
        scene.reload({"listener gone": None})
        wait_until("its address refuses", lambda: is_refused(gone), timeout=5)
    for client in clients:
        client.exchange(100 * KB).leave()
    wait_until("the sessions are gone", lambda: not scene.farm.servers[0].conns)
    assert scene.visit() == "a"


def test_listener_that_is_removed_can_come_back(launch, servers):
    address = free_address()
    scene = launch(servers=servers("a"))
    keys = {"bind": shown(address), "backend": "app"}
    for _ in range(3):
        scene.reload({"listener more": keys})
        assert scene.visit(to=address) == "a"
        scene.reload({"listener more": None})
        wait_until("its address refuses", lambda: is_refused(address), timeout=5)


def test_path_of_a_listener_changes_for_new_sessions_only(launch, servers):
    scene = launch(servers=servers("a"))
    scene.share = 0
    old = scene.connect().exchange()
    scene.reload({"listener front": {"path": "relay"}})
    base = scene.bytes_moved()
    old.exchange(10_000)
    assert scene.bytes_moved()["sockmap"] - base["sockmap"] == 20_000
    base = scene.bytes_moved()
    scene.visit(size=5000)
    moved = scene.bytes_moved()
    assert moved["sockmap"] == base["sockmap"] and moved["relay"] - base.get("relay", 0) == 10_008


def test_limits_of_a_listener_change(launch, servers):
    scene = launch(servers=servers("a"), listener={"max_sessions": "2"})
    scene.allow(rejects={"max_sessions", "denied"})
    assert [scene.is_rejected() for _ in range(3)] == [False, False, True]
    scene.reload({"listener front": {"max_sessions": "3"}})
    assert [scene.is_rejected() for _ in range(2)] == [False, True]
    scene.reload({"listener front": {"max_sessions": None, "deny": "127.0.7.0/24"}})
    assert [scene.is_rejected(source=source) for source in ("127.0.7.1", "127.0.0.1")] == [True, False]
    scene.reload({"listener front": {"deny": None}})
    assert not scene.is_rejected(source="127.0.7.1")


# ---- backends


@pytest.mark.modes("relay", "sockmap")
def test_changed_backend_serves_new_sessions_and_old_ones_keep_their_server(launch, servers):
    a, b, c = servers("a", "b", "c")
    scene = launch(servers=[a, b])
    old = [scene.connect().exchange() for _ in range(6)]
    with busy(old):
        scene.reload({"backend app": {"server": farm_lines([b, c])}})
    assert set(scene.visits(10)) == {"b", "c"}
    assert {client.who() for client in old} == {"a", "b"}
    for client in old:
        client.exchange(100 * KB).leave()
    scene.reload({"backend app": {"server": farm_lines([c], {"c": "weight=5"})}})
    assert scene.visits(4) == {"c": 4}


def test_listener_that_is_given_another_backend(launch, servers):
    a, b = servers("a", "b")
    scene = launch(servers=[a])
    old = scene.connect().exchange()
    scene.reload({"listener front": {"backend": "next"}, "backend next": {"server": b.line()}, "backend app": None})
    assert scene.visits(4) == {"b": 4}
    old.exchange(100 * KB).leave()


def test_server_that_changes_its_address_under_its_name(launch, servers):
    a, moved = servers("a", "moved")
    scene = launch(servers=[a])
    old = scene.connect().exchange()
    scene.reload({"backend app": {"server": f"{moved.to} name=a"}})
    assert scene.visits(3) == {"moved": 3}
    old.exchange().leave()
    assert scene.sessions() == {"a": 4}


def test_session_that_waits_for_a_retry_outlives_a_reload(launch, servers, hole):
    scene = launch(servers=[hole, *servers("b")], backend={"connect_timeout": "700ms"}, top={"threads": "1"})
    client = scene.connect(early=20 * KB)
    scene.wait_active(1)
    scene.reload({"listener front": {"idle_timeout": "1m"}, "backend app": {"server": farm_lines([hole])}})
    assert client.who() == "b", "its backend is the one it began with"
    client.read_back().exchange().leave()


# ---- what is kept


def test_counters_are_kept(launch, servers):
    a, b = servers("a", "b")
    scene = launch(servers=[a, b], listener={"max_sessions_per_ip": "5", "deny": "127.0.7.0/24"})
    scene.allow(rejects={"denied"})
    scene.visits(10)
    assert scene.is_rejected(source="127.0.7.1")
    before = scene.metrics()
    scene.reload({"listener front": {"idle_timeout": "5m"}, "backend app": {"server": farm_lines([b, a])}})
    delta = scene.metrics().since(before)
    for name in ("shunt_listener_sessions_total", "shunt_server_sessions_total", "shunt_sessions_ended_total",
                 "shunt_listener_rejected_total", "shunt_bytes_total", "shunt_server_bytes_total"):
        assert before.total(name) > 0 and delta.total(name) == 0, name
    assert scene.metrics().total("shunt_start_time_seconds") == before.total("shunt_start_time_seconds")
    assert scene.sessions() == {"a": 5, "b": 5}


def test_sessions_per_client_are_counted_across_a_reload(launch, servers):
    scene = launch(servers=servers("a"), listener={"max_sessions_per_ip": "2"})
    scene.allow(rejects={"max_sessions_per_ip"})
    assert [scene.is_rejected() for _ in range(3)] == [False, False, True]
    scene.reload({"listener front": {"idle_timeout": "5m"}})
    assert scene.is_rejected()
    scene.clients[0].exchange().leave()
    scene.wait_active(1)
    assert [scene.is_rejected() for _ in range(2)] == [False, True]


def test_server_max_sessions_counts_sessions_of_before_the_reload(launch, servers):
    a, = farm = servers("a")
    scene = launch(servers=farm, backend={"server_max_sessions": "2", "queue_timeout": "300ms"})
    scene.allow(ends={"queue_timeout"})
    old = [scene.connect().exchange() for _ in range(2)]
    scene.reload({"listener front": {"idle_timeout": "5m"}})
    assert scene.is_rejected()
    old[0].leave()
    assert scene.visits(3) == {"a": 3}
    assert a.most == 2


@pytest.mark.parametrize("change", ["listener", "servers", "interval"])
def test_server_that_is_down_stays_down(launch, servers, change):
    a, b, c = servers("a", "b", "c")
    scene = launch(servers=[a, b], backend={"check": CHECK, "check_interval": "100ms", "check_fall": "1",
                                            "check_rise": "1000"})
    wait_answers(a, 1)
    a.healthy = False
    scene.wait_state("a", "down")
    a.healthy = True
    scene.reload({"listener": {"listener front": {"idle_timeout": "5m"}},
                  "servers": {"backend app": {"server": farm_lines([c, b, a])}},
                  "interval": {"backend app": {"check_interval": "150ms"}}}[change])
    assert "a" not in scene.visits(20), "a thousand successes are wanted before it is up"
    wait_answers(a, len(a.answers) + 3)
    assert scene.changes_of("a") == ["down"], "and checks go on"
    assert "a" not in scene.visits(20)


def test_server_that_is_ejected_stays_ejected(launch, servers):
    a, b = farm = servers("a", "b")
    scene = launch(servers=farm, backend={"ejection": "60s"}, top={"threads": "1"})
    a.shut()
    scene.visits(10)
    scene.daemon.wait_log("server app/a: ejected")
    a.open()
    scene.reload({"listener front": {"idle_timeout": "5m"}})
    assert scene.visits(10) == {"b": 10}


def test_check_that_is_switched_off_lets_a_server_that_is_down_in_again(launch, servers):
    a, b = farm = servers("a", "b")
    scene = launch(servers=farm, backend={"check": CHECK, "check_interval": "100ms", "check_fall": "1"})
    wait_answers(a, 1)
    a.healthy = False
    scene.wait_state("a", "down")
    scene.reload({"backend app": {"check": "off"}})
    wait_until("a serves", lambda: scene.visit() == "a", timeout=5)


def test_check_that_is_switched_on_begins(launch, servers):
    a, b = farm = servers("a", "b")
    scene = launch(servers=farm, backend={"ejection": "off"})
    a.shut()
    scene.reload({"backend app": {"check": "tcp", "check_interval": "100ms", "check_fall": "2"}})
    scene.wait_state("a", "down")


# ---- a reload that fails


@pytest.mark.parametrize("broken, message", [
    (lambda text: text.replace("idle_timeout = 1h", "idle_timeout = 1x"), r"shunt\.conf:\d+: .*idle_timeout"),
    (lambda text: text + "colour = blue\n", r"shunt\.conf:\d+: .*colour"),
    (lambda text: text.replace("backend = app", "backend = nobody"), r"shunt\.conf:\d+: .*nobody"),
    (lambda text: text + "[backend app]\n", r"shunt\.conf:\d+: .*app"),
    (lambda text: "", r"shunt\.conf"),
], ids=["value", "key", "backend", "section", "empty"])
def test_bad_file_changes_nothing_and_says_where(launch, servers, broken, message):
    a, b = servers("a", "b")
    scene = launch(servers=[a], listener={"idle_timeout": "1h"})
    scene.allow(log=["reload failed"])
    before = scene.listen_inodes()
    old = scene.connect().exchange()
    good = text_of({**scene.sections, "backend app": {"server": b.line(), "check": "off"}})
    bad = broken(good)
    assert bad != good
    scene.write(bad)
    with busy([old]):
        log = scene.hangup("error")
    assert re.search("reload failed, nothing changed: .*" + message, log), log
    lines = good.splitlines()
    found = re.search(r"shunt\.conf:(\d+):", log)
    if found and "1x" in bad:
        assert "idle_timeout" in lines[int(found.group(1)) - 1], "the number is the line's"
    assert scene.visits(3) == {"a": 3}, "nothing of the new file is used"
    assert scene.listen_inodes() == before
    scene.write(good)
    scene.hangup("ok")
    assert scene.visits(3) == {"b": 3}
    old.exchange().leave()


def test_file_that_is_gone_changes_nothing(launch, servers):
    scene = launch(servers=servers("a"))
    scene.allow(log=["reload failed"])
    os.unlink(scene.file)
    assert "No such file" in scene.hangup("error")
    assert scene.visits(3) == {"a": 3}


@pytest.mark.modes("relay", "sockmap")
def test_address_that_is_taken_fails_the_reload_and_changes_nothing(launch, servers):
    a, b = servers("a", "b")
    scene = launch(servers=[a])
    scene.allow(log=["listener more: .*: Address already in use"])
    taken = PORTS.listen()
    before = scene.listen_inodes()
    free = free_address()
    log = scene.reload({
        "listener early": {"bind": shown(free), "backend": "app"}, "backend app": {"server": b.line()},
        "listener more": {"bind": shown(taken.getsockname()), "backend": "app"}}, result="error")
    assert "listener more" in log and "Address already in use" in log
    assert scene.visits(4) == {"a": 4}
    assert scene.listen_inodes() == before
    assert is_refused(free), "what was bound for it is closed again"
    taken.close()
    scene.reload({"listener more": {"bind": shown(free), "backend": "app"}})
    assert scene.visit(listener="more") == "a"


def test_failed_reload_leaves_the_options_of_kept_listeners_alone(launch, servers):
    """keepalive is set on the listening socket, which is kept: a reload that fails later must not have set it."""
    scene = launch(servers=servers("a"), listener={"keepalive": "30s"})
    scene.allow(log=["listener more: .*: Address already in use"])
    taken = PORTS.listen()
    scene.reload({"listener front": {"keepalive": "off"},
                  "listener more": {"bind": shown(taken.getsockname()), "backend": "app"}}, result="error")
    taken.close()
    client = scene.connect().exchange()
    front = client.sock.getsockname()[1]

    def timer():
        with os.popen("ss -Htno") as out:
            return re.search(rf"127\.0\.0\.1:{front}\s+timer:\(keepalive", out.read())

    wait_until("the session has the keepalive of before", timer, timeout=3)


# ---- under load


def reload_storm(scene, times, seconds, changes):
    """So many reloads, evenly over so long; each is waited for. They alternate between the changes."""
    start = time.monotonic()
    took = []
    for number in range(times):
        wait_until("its turn", lambda: time.monotonic() >= start + number * seconds / times, interval=0.005)
        begin = time.monotonic()
        scene.reload(changes[number % len(changes)])
        took.append(time.monotonic() - begin)
    print(f"{times} reloads took {min(took) * 1000:.0f} to {max(took) * 1000:.0f} ms each")
    assert time.monotonic() - start < seconds + 2 * SCALE


def storm_under_load(launch, echo_servers, servers, flood, rate, seconds, times):
    """`a` and `b` echo for the flood, `c` greets sessions of a listener of their own that live through it all."""
    a, b = echo_servers("a", "b")
    c, = servers("c")
    sections = app([a, b])
    sections["listener held"] = {"bind": "127.0.0.1:0", "backend": "held"}
    sections["backend held"] = {"server": c.line(), "check": "off"}
    scene = launch(sections)
    before = scene.listen_inodes()
    held = [scene.connect(listener="held").exchange() for _ in range(6)]
    load = flood(scene, rate, seconds)
    scene.daemon.wait_metric("load", lambda metrics: metrics.total(
        "shunt_listener_sessions_total", listener="front") >= 50)
    extra = {"bind": "127.0.0.1:0", "backend": "app"}
    with busy(held):
        reload_storm(scene, times, seconds - 0.5, [
            {"listener more": extra, "backend app": {"server": farm_lines([b, a], {"a": "weight=3"})}},
            {"listener more": None, "listener front": {"idle_timeout": "10m", "keepalive": "33s"}},
            {"backend app": {"server": farm_lines([a, b]), "balance": "least_sessions", "check": "tcp"}},
            {"listener front": {"idle_timeout": "20m", "max_sessions": "5000"},
             "backend app": {"balance": "source_hash"}},
            {"backend app": {"server": farm_lines([a, b], {"b": "max_sessions=500"}), "balance": "round_robin"}},
        ])
        result = load.result()
    assert result["late_ms"] < 2000 * SCALE, f"the generator fell behind: {result}"
    assert result["started"] == rate * seconds
    assert result["ok"] == result["started"] and not failures(result), f"failed connections: {failures(result)}"
    assert scene.reloads("ok") == times and scene.reloads("error") == 0
    assert scene.listen_inodes() == before
    for client in held:
        client.exchange(100 * KB).leave()


def test_ten_reloads_in_five_seconds_under_two_thousand_connections_a_second_lose_none(
        launch, echo_servers, servers, flood):
    storm_under_load(launch, echo_servers, servers, flood, 2000, 6, 10)


@pytest.mark.long
@pytest.mark.modes("relay")
def test_ten_reloads_in_five_seconds_under_load_lose_none_on_relay(launch, echo_servers, servers, flood):
    storm_under_load(launch, echo_servers, servers, flood, 1000, 6, 10)


@pytest.mark.long
@pytest.mark.modes("relay", "sockmap")
def test_a_hundred_reloads_under_two_thousand_connections_a_second_lose_none(launch, echo_servers, servers, flood):
    storm_under_load(launch, echo_servers, servers, flood, 2000, 50, 100)


def test_burst_of_signals_ends_with_the_last_file(launch, servers):
    """Signals that come while a reload is under way are not lost, the file of the last one counts."""
    a, b = servers("a", "b")
    scene = launch(servers=[a])
    for number in range(20):
        last = b if number == 19 else a
        scene.write(text_of({**scene.sections, "backend app": {"server": last.line(), "check": "off"}}))
        scene.daemon.signal(signal.SIGHUP)
    wait_until("the last file is served", lambda: scene.visit() == "b", timeout=10)
    done = scene.reloads("ok")
    go_on = until(0.3)
    while go_on():
        assert scene.visit() == "b"
    assert scene.reloads("error") == 0 and done >= 1


def listener_closes_under_load(launch, echo_servers, flood, rate, seconds):
    """As in a server's own restart: its sessions live on, new ones go to the others."""
    a, b, c = echo_servers("a", "b", "c")
    scene = launch(servers=[a, b, c], backend={"retries": "2", "connect_timeout": "5s", "ejection": "500ms"})
    held = []
    for number in range(9):
        sock = socket.create_connection(scene.address(), TIMEOUT)
        held.append((sock, number))
        say(sock, number)
    load = flood(scene, rate, seconds)
    scene.daemon.wait_metric("load", lambda metrics: metrics.total("shunt_listener_sessions_total") >= 200)
    times = 0
    while times < 3 or time.monotonic() < load.start + seconds - 3:
        server = (a, b, c)[times % 3]
        times += 1
        server.shut()
        before = scene.metrics().total("shunt_server_connect_failures_total", server=server.name)
        scene.daemon.wait_metric("it was met closed", lambda metrics: metrics.total(
            "shunt_server_connect_failures_total", server=server.name) > before)
        for sock, number in held:
            say(sock, number)
        server.open()
        before = scene.metrics().total("shunt_server_connect_duration_seconds_count", server=server.name)
        scene.daemon.wait_metric("it serves again, its ejection is over", lambda metrics: metrics.total(
            "shunt_server_connect_duration_seconds_count", server=server.name) > before + 20)
    assert load.is_running(), "the load ended before the servers were through"
    result = load.result()
    assert result["ok"] == result["started"] and not failures(result), f"failed connections: {failures(result)}"
    for sock, number in held:
        say(sock, number)
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(10) == b""
        sock.close()


def test_server_that_closes_its_emptied_listener_under_load_costs_no_connection(launch, echo_servers, flood):
    listener_closes_under_load(launch, echo_servers, flood, 1000, 5)


@pytest.mark.long
@pytest.mark.modes("relay", "sockmap")
def test_servers_that_close_their_emptied_listeners_for_half_a_minute_cost_no_connection(launch, echo_servers, flood):
    listener_closes_under_load(launch, echo_servers, flood, 1500, 30)


def say(sock, number):
    """A checked exchange with a server that only echoes."""
    data = bytes((number * 7 + i) % 251 for i in range(5000))
    sock.settimeout(TIMEOUT)
    sock.sendall(data)
    got = b""
    while len(got) < len(data):
        part = sock.recv(len(data) - len(got))
        assert part, "end of the session"
        got += part
    assert got == data
