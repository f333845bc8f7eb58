# SPDX-License-Identifier: BSD-2-Clause
"""Promise 4: an abort on one end becomes an abort on the other, never a clean EOF after truncated data."""

import contextlib
import select
import socket
import time

import pytest

from peer import TIMEOUT, Peer, Reset, Task, together
from proctcp import LISTEN, TIME_WAIT, with_port

MB = 1024 * 1024
ENDS = ("client", "server")
ABORTS = {"client": "client_abort", "server": "server_abort"}


def ends(stage, first):
    client, server = stage.settled_pair()
    return (client, server) if first == "client" else (server, client)


def fill(sender, quiet=0.3):
    """Sends until nothing has been taken for a while: every buffer on the way is full."""
    last = time.monotonic()
    while time.monotonic() - last < quiet:
        if sender.send_some(262144):
            last = time.monotonic()
        else:
            time.sleep(0.005)
    return sender.sent


def wait_error(peer):
    """Waits for the abort by polling only, so that what has arrived stays in the socket."""
    with contextlib.suppress(Reset):
        end = time.monotonic() + 10
        while time.monotonic() < end:
            code = peer.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code:
                peer.error = code
                return
            time.sleep(0.005)
    raise AssertionError(f"no abort arrived; {peer}")


@pytest.mark.parametrize("who", ENDS)
def test_abort_of_a_silent_connection_reaches_the_other_end(stage, who):
    for _ in range(10):
        closer, other = ends(stage, who)
        closer.abort()
        other.expect_reset()
        assert other.received == 100
    stage.allow(ends={ABORTS[who]})
    delta = stage.prove(c2s=1000, s2c=1000)
    assert delta.total("shunt_sessions_ended_total", reason=ABORTS[who]) == 10


@pytest.mark.parametrize("who", ENDS)
def test_abort_right_after_connecting_reaches_the_other_end(stage, who):
    """Before a byte has moved, so the session may not be on its path, or may not even know its server, yet."""
    stage.allow(ends={ABORTS[who], "connect_failed"}, fallbacks={"half_closed"})
    for _ in range(30):
        client, server = stage.pair()
        closer, other = (client, server) if who == "client" else (server, client)
        closer.abort()
        other.expect_reset()
    stage.prove(c2s=0, s2c=0)


@pytest.mark.parametrize("who", ENDS)
def test_sender_aborts_with_megabytes_queued(stage, who):
    """The reader gets a correct beginning and then the abort."""
    sender, reader = ends(stage, who)
    sent = fill(sender)
    assert sent > MB
    sender.abort()
    reader.expect_reset()
    assert reader.received < sent
    stage.allow(ends={ABORTS[who]})
    stage.prove()


@pytest.mark.parametrize("who", ENDS)
def test_reader_aborts_with_megabytes_queued(stage, who):
    """The sender, blocked in the middle of its data, learns of it at once."""
    reader, sender = ends(stage, who)
    fill(sender)
    reader.abort()
    wait_error(sender)
    stage.allow(ends={ABORTS[who]})
    stage.prove()


@pytest.mark.parametrize("who", ENDS)
def test_abort_with_megabytes_queued_both_ways(stage, who):
    closer, other = ends(stage, who)
    together(Task(fill, closer), Task(fill, other))
    closer.abort()
    other.expect_reset()
    stage.allow(ends={ABORTS[who]})
    stage.prove()


@pytest.mark.parametrize("who", ENDS)
def test_close_with_unread_bytes_is_an_abort(stage, who):
    """close() on a socket that still holds data makes the kernel send RST: a crashing program looks like this."""
    closer, other = ends(stage, who)
    other.send(MB // 4)
    closer.wait(select.POLLIN, time.monotonic() + TIMEOUT, "waiting for input")
    closer.close()
    other.expect_reset()
    stage.allow(ends={ABORTS[who]})
    stage.prove()


@pytest.mark.parametrize("who", ENDS)
def test_abort_in_full_flight_at_a_random_moment(stage, rnd, who):
    """Data both ways, then the abort: the other end has a correct beginning and no clean EOF."""
    stage.allow(ends={ABORTS[who]})

    def flood(peer):
        with contextlib.suppress(Reset, ValueError, OSError):
            while True:
                peer.send(65536)

    def listen(peer):
        with contextlib.suppress(Reset, ValueError, OSError):
            peer.read()

    for _ in range(12):
        closer, other = ends(stage, who)
        tasks = [Task(flood, closer), Task(flood, other), Task(listen, closer)]
        reading = Task(other.expect_reset)
        time.sleep(rnd.random() * 0.03)
        closer.abort()
        together(reading, *tasks)
    stage.prove()


@pytest.mark.parametrize("who", ENDS)
def test_abort_reaches_an_end_that_had_sent_its_fin(stage, who):
    closer, other = ends(stage, who)
    other.send(1000).fin()
    closer.expect_eof(1100)
    closer.abort()
    other.expect_reset()
    stage.allow(ends={ABORTS[who]})
    stage.prove(c2s=stage.peers[0].sent, s2c=stage.peers[1].sent)


def test_client_abort_before_the_server_accepts(stage):
    """The server finds a connection that is already reset, or none."""
    stage.allow(ends={"client_abort"}, fallbacks={"half_closed"})
    for number in range(20):
        client = stage.client()
        if number % 2:
            client.send(3000)
        client.abort()
    stage.daemon.wait_metric("20 client aborts", lambda metrics: metrics.since(stage.base).total(
        "shunt_sessions_ended_total", reason="client_abort") == 20)
    stage.listener.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            Peer(stage.listener.accept()[0], "server", 1, 1).close()
    stage.listener.setblocking(True)


def test_client_aborts_leave_no_time_wait_towards_the_server(stage):
    stage.allow(ends={"client_abort"})
    port = stage.listener.getsockname()[1]
    space = stage.network.proxy
    before = [row.state for row in with_port(port, space)].count(TIME_WAIT)
    pairs = [stage.settled_pair() for _ in range(40)]
    for client, _ in pairs:
        client.abort()
    for _, server in pairs:
        server.expect_reset()
        server.close()
    stage.wait_idle()
    after = [row.state for row in with_port(port, space)]
    assert after.count(TIME_WAIT) <= before, f"{before} sockets in TIME_WAIT before, {after.count(TIME_WAIT)} after"
    assert [state for state in after if state not in (TIME_WAIT, LISTEN)] == [], f"left over: {after}"
