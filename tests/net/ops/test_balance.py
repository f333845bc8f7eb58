# SPDX-License-Identifier: BSD-2-Clause
"""How a server is chosen for a session."""

import collections
import time

import pytest

from ops.farm import until
from ops.scene import farm_lines
from peer import wait_until

pytestmark = pytest.mark.modes("sockmap")
ONE_THREAD = {"threads": "1"}


def held(scene, count, **options):
    """Sessions that stay open: {server: clients}."""
    found = collections.defaultdict(list)
    for _ in range(count):
        client = scene.connect(**options)
        client.exchange(100)
        found[client.who()].append(client)
    return found


# ---- round_robin


@pytest.mark.modes("relay", "sockmap")
def test_round_robin_is_exact_by_weight(launch, servers):
    farm = servers("a", "b", "c")
    scene = launch(servers=farm, options={"a": "weight=1", "b": "weight=2", "c": "weight=4"}, top=ONE_THREAD)
    assert scene.visits(70) == {"a": 10, "b": 20, "c": 40}
    assert scene.sessions() == {"a": 10, "b": 20, "c": 40}


def test_round_robin_spreads_the_turns_of_a_heavy_server(launch, servers):
    farm = servers("a", "b", "c")
    scene = launch(servers=farm, options={"a": "weight=5"}, top=ONE_THREAD)
    turns = "".join(scene.visit() for _ in range(70))
    assert collections.Counter(turns) == {"a": 50, "b": 10, "c": 10}
    assert "aaaa" not in turns, f"5 of 7 turns, but four in a row: {turns}"


def test_round_robin_of_two_threads_is_exact_within_one_session_each(launch, servers):
    farm = servers("a", "b")
    scene = launch(servers=farm, options={"a": "weight=3"})
    seen = scene.visits(80)
    assert abs(seen["a"] - 60) <= 2, seen


# ---- least_sessions, random_two


@pytest.mark.modes("relay", "sockmap")
def test_least_sessions_fills_up_the_server_with_fewest(launch, servers):
    farm = servers("a", "b", "c")
    scene = launch(servers=farm, backend={"balance": "least_sessions"})
    found = held(scene, 12)
    assert {name: len(clients) for name, clients in found.items()} == {"a": 4, "b": 4, "c": 4}
    for client in found["b"]:
        client.leave()
    scene.wait_active(8)
    assert scene.visit() == "b", "it has no session, the others have four"
    scene.wait_active(8)
    assert set(held(scene, 4)) == {"b"}


def test_least_sessions_goes_by_weight(launch, servers):
    farm = servers("a", "b")
    scene = launch(servers=farm, options={"a": "weight=3"}, backend={"balance": "least_sessions"})
    found = held(scene, 16)
    assert {name: len(clients) for name, clients in found.items()} == {"a": 12, "b": 4}


def test_random_two_never_takes_the_most_loaded_of_three_but_not_always_the_least(launch, servers):
    farm = servers("a", "b", "c")
    scene = launch(servers=farm, backend={"balance": "random_two"}, top=ONE_THREAD)
    found = held(scene, 90)
    assert max(map(len, found.values())) - min(map(len, found.values())) <= 6, found
    for client in found["a"] + found["b"][:15]:
        client.leave()
    left = len(found["b"]) - 15 + len(found["c"])
    scene.wait_active(left)
    picked = "".join(held(scene, 1).popitem()[0] for _ in range(12))
    assert "c" not in picked, f"c has the most sessions: {picked}"
    assert set(picked) == {"a", "b"}, f"a is drawn in two of three cases only: {picked}"


# ---- source_hash


def sources(count):
    return [f"127.0.3.{number}" for number in range(1, count + 1)]


def homes(scene, addresses):
    return {source: scene.visit(source=source) for source in addresses}


HASHED = {"balance": "source_hash"}


@pytest.mark.modes("relay", "sockmap")
def test_source_hash_keeps_a_client_with_its_server(launch, servers):
    scene = launch(servers=servers("a", "b", "c", "d"), backend=HASHED)
    first = homes(scene, sources(40))
    assert set(first.values()) == set("abcd"), "40 clients, but not every server has one"
    assert homes(scene, sources(40)) == first


def test_source_hash_of_two_daemons_agrees_whatever_the_order_of_the_servers(launch, servers):
    farm = servers("a", "b", "c", "d")
    one = launch(servers=farm, backend=HASHED)
    other = launch(servers=farm[::-1], backend=HASHED, top=ONE_THREAD)
    assert homes(one, sources(60)) == homes(other, sources(60))


@pytest.mark.parametrize("how", ["removed", "down"])
def test_source_hash_moves_the_clients_of_a_server_that_leaves_and_no_others(launch, servers, how):
    farm = servers("a", "b", "c", "d")
    checks = {"check": "tcp", "check_interval": "100ms", "check_fall": "2", "check_rise": "2"}
    scene = launch(servers=farm, backend={**HASHED, **(checks if how == "down" else {})})
    before = homes(scene, sources(60))
    if how == "down":
        farm[2].shut()
        scene.wait_state("c", "down")
    else:
        # Nothing else than the server is removed: others keep their share of the table as far as can be.
        scene.reload({"backend app": {"server": farm_lines(farm[:2] + farm[3:])}})
    after = homes(scene, sources(60))
    assert "c" not in after.values()
    moved = [source for source in before if before[source] != after[source]]
    strangers = [source for source in moved if before[source] != "c"]
    orphans = {after[source] for source in before if before[source] == "c"}
    assert len(orphans) > 1, f"all clients of c went to {orphans}"
    if how == "down":
        assert not strangers, f"they moved although their server stayed: {strangers}"
        farm[2].open()
        scene.wait_state("c", "up")
        assert homes(scene, sources(60)) == before, "it is back, and so should its clients be"
    else:
        assert len(strangers) <= 3, f"{len(strangers)} of 60 clients moved although their server stayed"


def test_source_hash_gives_shares_by_weight(launch, servers):
    scene = launch(servers=servers("a", "b"), options={"a": "weight=3"}, backend=HASHED)
    found = collections.Counter(homes(scene, sources(200)).values())
    assert 125 <= found["a"] <= 175, f"three of four clients are for a: {found}"


# ---- weight 0, backup


@pytest.mark.parametrize("balance", ["round_robin", "least_sessions", "random_two", "source_hash"])
def test_weight_0_gets_no_session(launch, servers, balance):
    scene = launch(servers=servers("a", "b", "c"), options={"b": "weight=0"}, backend={"balance": balance})
    seen = {scene.visit(source=source) for source in sources(30)}
    assert seen == {"a", "c"}
    assert scene.sessions()["b"] == 0


def test_backend_with_weight_0_alone_has_no_server(launch, servers):
    scene = launch(servers=servers("a"), options={"a": "weight=0"})
    scene.allow(ends={"no_server"})
    assert scene.is_rejected()
    assert scene.ended("no_server") == 1


@pytest.mark.parametrize("balance", ["round_robin", "least_sessions", "random_two", "source_hash"])
def test_backup_serves_only_while_no_normal_server_is_usable(launch, servers, balance):
    a, b, spare, other = farm = servers("a", "b", "spare", "other")
    scene = launch(servers=farm, options={"spare": "backup", "other": "backup"},
                   backend={"balance": balance, "check": "tcp", "check_interval": "100ms", "check_fall": "1",
                            "check_rise": "1", "ejection": "off"})
    scene.allow(ends={"client_abort"})

    def seen():
        return {scene.visit(source=source) for source in sources(20)}

    assert seen() == {"a", "b"}
    a.shut()
    scene.wait_state("a", "down")
    assert seen() == {"b"}, "one normal server is enough"
    b.shut()
    scene.wait_state("b", "down")
    assert seen() == {"spare", "other"}, "both backups are used"
    a.open()
    scene.wait_state("a", "up")
    assert seen() == {"a"}


def test_session_waits_for_a_full_server_rather_than_taking_a_backup(launch, servers):
    scene = launch(servers=servers("a", "spare"), options={"a": "max_sessions=1", "spare": "backup"})
    first = scene.connect().exchange()
    second = scene.connect()
    scene.wait_active(2)
    second.expect_silence(0.3)
    first.leave()
    assert second.exchange().who() == "a"
    assert scene.sessions()["spare"] == 0


# ---- slow_start


def test_share_of_a_server_grows_with_slow_start_after_it_has_come_up(launch, servers):
    a, b = farm = servers("a", "b")
    seconds = 3
    scene = launch(servers=farm, top=ONE_THREAD,
                   backend={"slow_start": f"{seconds}s", "check": "tcp", "check_interval": "50ms", "check_fall": "1",
                            "check_rise": "1"})
    seen = scene.visits(40)
    assert seen == {"a": 20, "b": 20}, f"it does not apply at start: {seen}"
    b.shut()
    scene.wait_state("b", "down")
    b.open()
    scene.wait_state("b", "up")
    start = time.monotonic()
    bins = collections.defaultdict(collections.Counter)
    go_on = until(seconds * 1.5)
    while go_on():
        part = int(4 * (time.monotonic() - start) / seconds)
        bins[part][scene.visit()] += 1
    shares = {part: seen["b"] / seen.total() for part, seen in bins.items()}
    print({part: (round(share, 3), bins[part].total()) for part, share in shares.items()})
    assert all(seen.total() >= 50 for part, seen in bins.items() if part < 5), bins
    # The weight grows evenly from next to 0: of two servers it has w / (1 + w) of the sessions.
    for part, low, high in ((0, 0.05, 0.17), (1, 0.21, 0.33), (2, 0.33, 0.43), (3, 0.41, 0.49), (4, 0.48, 0.52)):
        assert low <= shares[part] <= high, f"quarter {part}: b has {shares[part]:.2f} of the sessions, {shares}"


def test_slow_start_reaches_the_full_share_even_without_traffic(launch, servers):
    a, b = farm = servers("a", "b")
    scene = launch(servers=farm, top=ONE_THREAD,
                   backend={"slow_start": "500ms", "check": "tcp", "check_interval": "50ms", "check_fall": "1",
                            "check_rise": "1"})
    b.shut()
    scene.wait_state("b", "down")
    b.open()
    scene.wait_state("b", "up")
    start = time.monotonic()
    wait_until("slow_start over", lambda: time.monotonic() - start > 0.6)
    assert scene.visits(20) == {"a": 10, "b": 10}
