# SPDX-License-Identifier: BSD-2-Clause
"""Failed connections go to another server before the client notices."""

import time

import pytest

from ops.farm import Hole
from peer import SCALE

pytestmark = pytest.mark.modes("relay", "sockmap")
KB = 1024
OFF = {"ejection": "off"}


def failed(scene, server, reason):
    return int(scene.metrics().total("shunt_server_connect_failures_total", server=server, reason=reason))


@pytest.mark.modes("relay", "sockmap")
def test_client_of_a_server_that_refuses_notices_nothing(launch, servers):
    a, b = farm = servers("a", "b")
    scene = launch(servers=farm, backend=OFF)
    a.shut()
    clients = [scene.connect(early=(0, 1, 20 * KB)[number % 3]) for number in range(12)]
    for client in clients:
        assert client.who() == "b"
        client.read_back().exchange(300 * KB).leave()
    assert failed(scene, "a", "connect_refused") >= 4, "few of them met a"
    assert scene.ended("complete") == 12


@pytest.mark.modes("relay", "sockmap")
def test_client_of_a_server_that_does_not_answer_waits_for_connect_timeout_and_loses_nothing(launch, servers, hole):
    scene = launch(servers=[hole, *servers("b")], backend={**OFF, "connect_timeout": "300ms"}, top={"threads": "1"})
    start = time.monotonic()
    clients = [scene.connect(early=50 * KB) for _ in range(10)]
    for client in clients:
        assert client.who() == "b"
    took = time.monotonic() - start
    for client in clients:
        client.read_back().exchange(300 * KB).leave()
    assert failed(scene, "hole", "connect_timeout") == 5
    assert 0.29 <= took <= 0.3 + 0.5 * SCALE, f"connect_timeout is 300 ms, it took {took:.2f} s"


def test_fin_that_came_while_the_first_server_failed_is_passed_on(launch, servers, hole):
    scene = launch(servers=[hole, *servers("b")], backend={**OFF, "connect_timeout": "300ms"}, top={"threads": "1"})
    scene.allow(fallbacks={"half_closed"})
    scene.share = 0  # a socket that has its FIN cannot take the kernel path
    clients = [scene.connect(early=10 * KB).fin() for _ in range(4)]
    for client in clients:
        assert client.who() == "b"
        client.expect_eof(10 * KB)
    assert failed(scene, "hole", "connect_timeout") == 2


def test_refused_then_silent_then_served(launch, servers, hole):
    a, b, spare = servers("a", "b", "spare")
    scene = launch(servers=[a, hole, b, spare], options={"spare": "backup"},
                   backend={**OFF, "connect_timeout": "200ms", "retries": "3"})
    a.shut()
    b.shut()
    client = scene.connect(early=30 * KB)
    assert client.who() == "spare"
    client.read_back().exchange(100 * KB).leave()
    assert (failed(scene, "a", "connect_refused"), failed(scene, "b", "connect_refused"),
            failed(scene, "hole", "connect_timeout")) == (1, 1, 1), "each server was tried once"


@pytest.mark.parametrize("retries", [0, 1, 2])
def test_retries_is_the_number_of_further_servers(launch, servers, retries):
    farm = servers("a", "b", "spare")
    scene = launch(servers=farm, options={"spare": "backup"}, backend={**OFF, "retries": retries})
    for server in farm[:2]:
        server.shut()
    if retries < 2:
        scene.allow(ends={"connect_refused"})
        assert scene.is_rejected(early=1000)
    else:
        client = scene.connect(early=1000)
        assert client.who() == "spare"
        client.read_back().leave()
    tried = failed(scene, "a", "connect_refused") + failed(scene, "b", "connect_refused")
    assert tried == min(retries + 1, 2)


def test_all_servers_refuse_is_a_reset_with_its_reason(launch, servers):
    farm = servers("a", "b")
    scene = launch(servers=farm)
    scene.allow(ends={"connect_refused"})
    for server in farm:
        server.shut()
    assert scene.is_rejected(early=1000)
    assert scene.ended("connect_refused") == 1


def test_no_answer_from_any_server_is_a_reset_with_its_reason(launch, hole):
    other = Hole()
    other.name = "other"
    try:
        scene = launch(servers=[hole, other], backend={**OFF, "connect_timeout": "200ms"})
        scene.allow(ends={"connect_timeout"})
        start = time.monotonic()
        assert scene.is_rejected(early=1000)
        took = time.monotonic() - start
        assert scene.ended("connect_timeout") == 1
        assert 0.39 <= took <= 0.4 + 0.5 * SCALE, f"200 ms for each server, it took {took:.2f} s"
    finally:
        other.close()


def test_client_that_leaves_during_a_retry_ends_the_session(launch, hole):
    scene = launch(servers=[hole], backend={"connect_timeout": "60s"})
    scene.allow(ends={"client_abort"})
    clients = [scene.connect(early=100) for _ in range(5)]
    scene.wait_active(5)
    for client in clients:
        client.abort()
    scene.wait_active(0, timeout=2)
    assert scene.ended("client_abort") == 5


@pytest.mark.modes("sockmap")
def test_session_retried_is_one_session_of_the_server_that_served_it(launch, servers):
    """A failed attempt is counted as a failure, not as a session of that server."""
    a, b = farm = servers("a", "b")
    scene = launch(servers=farm, backend=OFF, top={"threads": "1"})
    a.shut()
    assert scene.visits(10) == {"b": 10}
    assert failed(scene, "a", "connect_refused") >= 5
    assert scene.sessions() == {"a": 0, "b": 10}


@pytest.mark.modes("sockmap")
def test_retry_with_source_hash_goes_to_the_same_other_server(launch, servers):
    farm = servers("a", "b", "c")
    scene = launch(servers=farm, backend={**OFF, "balance": "source_hash"})
    homes = {source: scene.visit(source=source) for source in (f"127.0.4.{n}" for n in range(1, 21))}
    gone = next(server for server in farm if server.name in homes.values())
    gone.shut()
    after = {source: scene.visit(source=source) for source in homes}
    again = {source: scene.visit(source=source) for source in homes}
    assert after == again
    assert all(after[source] == homes[source] for source in homes if homes[source] != gone.name)
