# SPDX-License-Identifier: BSD-2-Clause
"""Who may connect, how many, and how often."""

import os
import subprocess
import time

import pytest

from ops.scene import app
from peer import SCALE, wait_until

pytestmark = pytest.mark.modes("sockmap")


def admitted(scene, count, **options):
    """How many of so many clients, one after another, get a session that stays open."""
    return sum(not scene.is_rejected(**options) for _ in range(count))


# ---- numbers of sessions


@pytest.mark.modes("relay", "sockmap")
def test_global_max_sessions_counts_all_listeners(launch, servers):
    sections = app(servers("a"), top={"max_sessions": "6"})
    sections["listener other"] = dict(sections["listener front"])
    scene = launch(sections)
    scene.allow(rejects={"max_sessions"})
    assert admitted(scene, 4) == 4
    assert admitted(scene, 4, listener="other") == 2
    assert admitted(scene, 1) == 0
    assert [scene.rejected("max_sessions", listener=name) for name in ("front", "other")] == [1, 2]
    for client in scene.clients[:2]:
        client.exchange(100_000).leave()
    scene.wait_active(4)
    assert admitted(scene, 4) == 2


def test_listener_max_sessions_is_for_this_listener(launch, servers):
    sections = app(servers("a"), listener={"max_sessions": "3"})
    sections["listener other"] = {**sections["listener front"], "max_sessions": "off"}
    scene = launch(sections)
    scene.allow(rejects={"max_sessions"})
    assert admitted(scene, 5) == 3
    assert admitted(scene, 5, listener="other") == 5
    assert scene.rejected("max_sessions", listener="front") == 2
    scene.clients[0].exchange().leave()
    scene.wait_active(2, listener="front")
    assert admitted(scene, 2) == 1


def crowded(launch, servers, limit, rounds):
    scene = launch(servers=servers("a"), **{"top" if limit == "global" else "listener": {"max_sessions": "10"}})
    scene.allow(rejects={"max_sessions"}, ends={"client_abort"}, fallbacks={"half_closed"})
    most, rejected = 0, 0
    for _ in range(rounds):
        socks = [scene.socket() for _ in range(60)]
        for sock in socks:
            sock.setblocking(False)
            sock.connect_ex(scene.address())
        metrics = scene.daemon.wait_metric("all are in or rejected", lambda metrics: metrics.total(
            "shunt_listener_sessions_active") + metrics.total("shunt_listener_rejected_total") - rejected >= 60)
        most = max(most, int(metrics.total("shunt_listener_sessions_active")))
        rejected = metrics.total("shunt_listener_rejected_total")
        for sock in socks:
            sock.close()
        scene.wait_active(0)
    assert most == 10, f"{most} sessions at once, max_sessions is 10"


@pytest.mark.parametrize("limit", ["global", "listener"])
def test_max_sessions_is_exact_under_a_crowd(launch, servers, limit):
    """Threads that accept at the same time do not exceed it together."""
    crowded(launch, servers, limit, 15)


@pytest.mark.long
@pytest.mark.parametrize("limit", ["global", "listener"])
def test_max_sessions_is_exact_under_many_crowds(launch, servers, limit):
    crowded(launch, servers, limit, 800)


@pytest.mark.modes("relay", "sockmap")
def test_max_sessions_per_ip_is_per_client_and_listener(launch, servers):
    sections = app(servers("a"), listener={"max_sessions_per_ip": "2"})
    sections["listener other"] = dict(sections["listener front"])
    scene = launch(sections)
    scene.allow(rejects={"max_sessions_per_ip"})
    assert admitted(scene, 4, source="127.0.5.1") == 2
    assert admitted(scene, 4, source="127.0.5.2") == 2
    assert admitted(scene, 4, source="127.0.5.1", listener="other") == 2
    assert scene.rejected("max_sessions_per_ip", listener="front") == 4
    scene.clients[0].exchange().leave()
    scene.wait_active(3, listener="front")
    assert admitted(scene, 2, source="127.0.5.1") == 1
    assert admitted(scene, 1, source="127.0.5.2") == 0


def test_session_per_ip_is_given_back_however_it_ends(launch, servers):
    a, = farm = servers("a")
    scene = launch(servers=farm, listener={"max_sessions_per_ip": "1"})
    scene.allow(rejects={"max_sessions_per_ip"}, ends={"client_abort", "server_abort"})
    for end in ("leave", "abort", "server"):
        client = scene.connect().exchange()
        assert scene.is_rejected()
        if end == "server":
            a.drop_all()
        else:
            getattr(client, end)()
        scene.wait_active(0)
    assert scene.visits(3) == {"a": 3}


# ---- rate


def test_max_rate_per_ip_lets_a_burst_in_and_then_what_is_earned(launch, servers):
    scene = launch(servers=servers("a"), listener={"max_rate_per_ip": "5/1s"})
    scene.allow(rejects={"max_rate_per_ip"})
    start = time.monotonic()
    assert admitted(scene, 8, source="127.0.6.1") == 5
    assert admitted(scene, 8, source="127.0.6.2") == 5, "another client has its own"
    assert time.monotonic() - start < 0.19, "this machine is too slow for the test"
    assert scene.rejected("max_rate_per_ip") == 6
    count = 0
    while time.monotonic() - start < 2:
        count += admitted(scene, 1, source="127.0.6.1")
        time.sleep(0.02)
    took = time.monotonic() - start
    assert 5 * took - 2 <= count <= 5 * took + 1, f"5 a second, and {count} more in {took:.2f} s"


def test_rejected_connections_do_not_spend_the_rate(launch, servers):
    scene = launch(servers=servers("a"), listener={"max_rate_per_ip": "2/500ms"})
    scene.allow(rejects={"max_rate_per_ip"})
    assert admitted(scene, 2) == 2
    start = time.monotonic()
    wait_until("one more is let in although it knocks all the time", lambda: not scene.is_rejected(), timeout=2)
    assert time.monotonic() - start < 0.6 * SCALE


# ---- allow and deny


def access(scene, addresses):
    """{source: may it connect?}"""
    return {source: not scene.is_rejected(source=source) for source in addresses}


@pytest.mark.modes("relay", "sockmap")
def test_longest_prefix_decides(launch, servers):
    scene = launch(servers=servers("a"), listener={
        "allow": ["127.0.7.0/24", "127.0.8.8", "127.0.8.64/26"],
        "deny": ["127.0.7.128/25", "127.0.8.0/24", "127.0.8.65"]})
    scene.allow(rejects={"denied"})
    want = {"127.0.7.1": True, "127.0.7.127": True, "127.0.7.128": False, "127.0.7.255": False, "127.0.8.1": False,
            "127.0.8.8": True, "127.0.8.63": False, "127.0.8.64": True, "127.0.8.65": False, "127.0.9.1": False}
    assert access(scene, want) == want
    assert scene.rejected("denied") == 6
    assert scene.ended("complete") == 0
    for client in scene.clients:
        if client.greeting:
            client.exchange(50_000).leave()
    assert scene.wait_ended("complete", 4)


def test_deny_alone_lets_everybody_else_in(launch, servers):
    scene = launch(servers=servers("a"), listener={"deny": "127.0.7.0/24"})
    scene.allow(rejects={"denied"})
    want = {"127.0.7.1": False, "127.0.6.1": True, "127.0.0.1": True}
    assert access(scene, want) == want


def test_deny_wins_where_both_are_given_the_same_network(launch, servers):
    scene = launch(servers=servers("a"), listener={"allow": ["127.0.7.0/24", "0.0.0.0/0"], "deny": "127.0.7.0/24"})
    scene.allow(rejects={"denied"})
    want = {"127.0.7.1": False, "127.0.8.1": True}
    assert access(scene, want) == want


def test_thousands_of_networks_do_not_slow_the_daemon_down(launch, servers):
    nets = [f"10.{high}.{low}.0/24" for high in range(20) for low in range(250)]
    scene = launch(servers=servers("a"), listener={"deny": nets, "allow": ["127.0.0.0/8", "127.0.7.4/30"]})
    scene.allow(rejects={"denied"})
    assert scene.visits(20) == {"a": 20}


@pytest.fixture
def client_addresses(network):
    """More addresses for the client's side: (v4, v4, v6, v6)."""
    more = ("10.91.1.3/24", "fd91:1::3/64")
    for address in more:
        network.topology.client.ip("addr", "add", address, "dev", "net1", *(["nodad"] if ":" in address else []))
    yield "10.91.1.1", "10.91.1.3", "fd91:1::1", "fd91:1::3"
    for address in more:
        network.topology.client.ip("addr", "del", address, "dev", "net1")


@pytest.mark.parametrize("bind", ["*:0", "[fd91:1::2]:0", "10.91.1.2:0"])
@pytest.mark.modes("sockmap-netns")
def test_networks_of_either_family_hold_for_dual_stack_and_single_listeners(client_addresses, launch, servers, bind):
    four, other_four, six, other_six = client_addresses
    scene = launch(servers=servers("a"), bind=bind,
                   listener={"allow": ["10.91.1.0/24", "fd91:1::/64"], "deny": ["10.91.1.3", "fd91:1::3/128"]})
    scene.allow(rejects={"denied"})
    port = scene.address()[1]
    want, seen = {}, {}
    for source, may in ((four, True), (other_four, False), (six, True), (other_six, False)):
        to = ("fd91:1::2" if ":" in source else "10.91.1.2", port)
        if bind.startswith("*") or (":" in source) == bind.startswith("["):
            want[source] = may
            seen[source] = not scene.is_rejected(source=source, to=to)
    assert seen == want
    for client in scene.clients:
        if client.greeting:
            client.exchange(50_000).leave()
    assert scene.rejected("denied") == len(want) // 2


@pytest.mark.modes("sockmap-netns")
def test_mapped_ipv4_network_is_the_ipv4_one(client_addresses, launch, servers):
    four, other_four, six, _ = client_addresses
    scene = launch(servers=servers("a"), bind="*:0", listener={"allow": ["::ffff:10.91.1.3/128"]})
    scene.allow(rejects={"denied"})
    port = scene.address()[1]
    assert scene.is_rejected(source=four, to=("10.91.1.2", port))
    assert not scene.is_rejected(source=other_four, to=("10.91.1.2", port))
    assert scene.is_rejected(source=six, to=("fd91:1::2", port))


@pytest.mark.modes("sockmap-netns")
def test_max_sessions_per_ip_of_a_dual_stack_listener_counts_ipv4_clients_one_by_one(client_addresses, launch, servers):
    """IPv4 clients arrive as mapped IPv6 addresses; they are not one client for that."""
    four, other_four, six, other_six = client_addresses
    scene = launch(servers=servers("a"), bind="*:0", listener={"max_sessions_per_ip": "2"})
    scene.allow(rejects={"max_sessions_per_ip"})
    port = scene.address()[1]
    for source in (four, other_four):
        assert admitted(scene, 3, source=source, to=("10.91.1.2", port)) == 2
    assert admitted(scene, 3, source=six, to=("fd91:1::2", port)) == 2


def test_order_of_the_reasons_a_denied_client_counts_as_denied_even_when_all_is_full(launch, servers):
    scene = launch(servers=servers("a"), listener={"max_sessions": "1", "deny": "127.0.7.0/24",
                                                   "max_sessions_per_ip": "1", "max_rate_per_ip": "1/1h"})
    scene.allow(rejects={"denied", "max_sessions"})
    assert not scene.is_rejected()
    assert scene.is_rejected(source="127.0.7.1")
    assert scene.is_rejected()
    assert (scene.rejected("denied"), scene.rejected("max_sessions")) == (1, 1)


# ---- descriptors


def limit_files(pid, files):
    """RLIMIT_NOFILE of another process, set as its user: root may lack the capability for it."""
    owner = os.stat(f"/proc/{pid}/task/{pid}/stat")
    subprocess.run(["setpriv", f"--reuid={owner.st_uid}", f"--regid={owner.st_gid}", "--clear-groups", "prlimit",
                    f"--pid={pid}", f"--nofile={files}:"], check=True)


@pytest.mark.modes("relay", "sockmap")
def test_accepting_pauses_without_descriptors_says_so_and_goes_on(launch, servers):
    scene = launch(servers=servers("a"), top={"threads": "1"})
    scene.allow(ends={"no_descriptor", "client_abort"}, fallbacks={"half_closed"})
    holders = [scene.connect().exchange() for _ in range(5)]
    worker, = scene.daemon.workers()
    limit_files(worker, max(int(name) for name in os.listdir(f"/proc/{worker}/fd")) + 1)
    socks = [scene.socket() for _ in range(20)]
    for sock in socks:
        sock.setblocking(False)
        sock.connect_ex(scene.address())
    scene.daemon.wait_log("accept: Too many open files: pausing")
    for client in holders:
        client.exchange(20_000)  # what runs goes on
    for sock in socks:
        sock.close()
    holders.pop().leave()
    holders.pop().leave()
    limit_files(worker, 5000)
    wait_until("new sessions are served again", lambda: not scene.is_rejected(), timeout=10)
    # What it had no descriptors to say it over HTTP with is counted.
    assert scene.metrics().total("shunt_accept_pauses_total") >= 1
    scene.clients[-1].exchange(50_000).leave()


def test_max_sessions_beyond_the_descriptors_is_cut_with_a_warning(launch, servers):
    """Two descriptors a session: what cannot be served is rejected by its reason, not by running out."""
    scene = launch(servers=servers("a"), top={"max_sessions": "5000"}, nofile=420)
    scene.allow(rejects={"max_sessions"})
    found = scene.daemon.wait_log(r"max_sessions = 5000 needs more than the 420 descriptors .*serving (\d+)")
    most = int(found.group(1))
    assert 20 <= most <= (420 - 100) // 2
    assert admitted(scene, most + 3) == most
    assert scene.rejected("max_sessions") == 3
    assert scene.metrics().total("shunt_accept_pauses_total") == 0
    for client in scene.clients[:5]:
        client.exchange(20_000)
