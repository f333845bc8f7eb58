# SPDX-License-Identifier: BSD-2-Clause
"""Promises 3 and 4: the directions end one by one, and a FIN comes after the last byte before it."""

import time

import pytest

from peer import TIMEOUT, CleanEof, Task, together

KB, MB = 1024, 1024 * 1024
ENDS = ("client", "server")


def ends(stage, first, settled=True, rcvbuf=None):
    """(the named end, the other one) of a new connection."""
    client, server = stage.settled_pair(rcvbuf) if settled else stage.pair(rcvbuf)
    return (client, server) if first == "client" else (server, client)


def totals(client, server):
    return {"c2s": client.sent, "s2c": server.sent}


@pytest.mark.parametrize("first", ENDS)
def test_other_direction_lives_for_seconds_after_a_fin(stage, first):
    closer, other = ends(stage, first)
    closer.send(5000).fin()
    other.expect_eof(5100)
    for _ in range(4):
        closer.expect_silence(0.5)
        other.send(300)
        closer.read(300)
    together(Task(lambda: other.send(5 * MB).fin()), Task(closer.expect_eof, 100 + 4 * 300 + 5 * MB))
    stage.prove(**totals(*stage.peers))


@pytest.mark.parametrize("first", ENDS)
def test_fin_right_behind_megabytes_waits_for_a_lazy_reader(stage, first):
    """The FIN is sent while most of the bytes are still on the way."""
    sender, reader = ends(stage, first)
    size = 12 * MB
    together(Task(lambda: sender.send(size).fin()),
             Task(reader.expect_eof, 100 + size, chunk=128 * KB, pause=lambda: 0.004))
    reader.send(1000).fin()
    sender.expect_eof(1100)
    stage.prove(**totals(*stage.peers))


@pytest.mark.parametrize("first", ENDS)
def test_fin_behind_megabytes_waits_for_a_reader_that_is_deaf_at_first(stage, first):
    sender, reader = ends(stage, first)
    size = 16 * MB
    sending = Task(lambda: sender.send(size).fin())
    time.sleep(0.7)
    reader.expect_eof(100 + size)
    together(sending)
    reader.fin()
    sender.expect_eof(100)
    stage.prove(**totals(*stage.peers))


@pytest.mark.parametrize("first", ENDS)
@pytest.mark.parametrize("size", [100 * KB, MB, 5 * MB])
def test_fin_is_held_back_while_bytes_are_on_the_way(stage, first, size):
    """A reader with a small window, so that it is the proxy that holds the bytes when the FIN comes."""
    sender, reader = ends(stage, first, rcvbuf=16 * KB)
    sending = Task(lambda: sender.send(size).fin())
    time.sleep(0.2)
    together(sending, Task(reader.expect_eof, 100 + size, chunk=64 * KB, pause=lambda: 0.001))
    reader.fin()
    sender.expect_eof(100)
    stage.prove(**totals(*stage.peers))


@pytest.mark.parametrize("first", ENDS)
def test_bare_fin_ends_its_direction_only(stage, first):
    for settled in (False, True):
        closer, other = ends(stage, first, settled)
        closer.fin()
        other.expect_eof(100 if settled else 0)
        other.send(70000)
        closer.read(70000)
        other.fin()
        closer.expect_eof()
    stage.allow(fallbacks={"half_closed"})
    stage.prove(c2s=sum(peer.sent for peer in stage.peers if "client" in peer.name),
                s2c=sum(peer.sent for peer in stage.peers if "server" in peer.name), share=0)


def test_both_ends_close_at_once_behind_megabytes(stage):
    client, server = stage.settled_pair()
    size = 6 * MB
    together(*(Task(lambda peer=peer: peer.send(size).fin()) for peer in (client, server)),
             *(Task(peer.expect_eof, 100 + size) for peer in (client, server)))
    stage.prove(c2s=100 + size, s2c=100 + size)


def test_request_with_fin_at_once(stage, rnd):
    """The client is half closed before the proxy has even accepted it; a fallback is in order here."""
    stage.allow(fallbacks={"half_closed"})
    requested = answered = 0
    for number in range(100):
        client = stage.client()
        request, answer = rnd.choice((1, 100, 20000)), rnd.choice((0, 1, 3000, 300 * KB))
        client.send(request).fin()
        server = stage.server()
        server.expect_eof(request)
        together(Task(lambda: server.send(answer).fin()), Task(client.expect_eof, answer))
        requested, answered = requested + request, answered + answer
        client.close()
        server.close()
    stage.prove(c2s=requested, s2c=answered, share=0)


def test_answer_with_fin_at_once(stage, rnd):
    """The server says what it has and leaves, as `date` behind inetd does."""
    stage.allow(fallbacks={"half_closed"})
    answered = 0
    for number in range(100):
        client = stage.client()
        answer = rnd.choice((0, 1, 100, 20000, 300 * KB))
        server = stage.server()
        together(Task(lambda: server.send(answer).fin()), Task(client.expect_eof, answer))
        answered += answer
        client.fin()
        server.expect_eof(0)
        client.close()
        server.close()
    stage.prove(c2s=0, s2c=answered, share=0)


@pytest.mark.parametrize("first", ENDS)
def test_fin_passes_while_the_other_direction_is_stalled(stage, first):
    """The closer does not read; what it has to say and its FIN arrive all the same."""
    closer, other = ends(stage, first)
    size = 40 * MB
    flood = Task(other.send, size)
    time.sleep(0.3)
    closer.send(MB)
    together(Task(other.read, MB))
    closer.fin()
    other.expect_eof(100 + MB)
    assert not flood.done(), f"{size} bytes fitted into buffers; {other}"
    closer.read(size)
    together(flood)
    other.fin()
    closer.expect_eof(100 + size)
    stage.prove(**totals(*stage.peers))


@pytest.mark.parametrize("first", ENDS)
def test_abort_after_a_half_close_is_an_abort(stage, first):
    """The end that still talks is aborted: the one that had closed must not take it for the end of the stream."""
    closer, other = ends(stage, first)
    closer.send(1000).fin()
    other.expect_eof(1100)
    other.send(5000)
    closer.read(5000)
    other.abort()
    closer.expect_reset()
    stage.allow(ends={"client_abort", "server_abort"})
    stage.prove()


@pytest.mark.parametrize("first", ENDS)
def test_half_closed_end_that_leaves_aborts_the_sender(stage, first):
    """close() instead of shutdown(): the other end may go on sending only until it learns that nobody listens."""
    closer, other = ends(stage, first)
    closer.fin()
    other.expect_eof(100)
    closer.close()
    end = time.monotonic() + TIMEOUT
    try:
        while time.monotonic() < end:
            other.send(1000)
            time.sleep(0.005)
    except AssertionError as error:
        assert not isinstance(error, CleanEof) and other.error, error
    assert other.error, f"nobody listens, but send() goes on: {other}"
    stage.allow(ends={"client_abort", "server_abort"})
    stage.prove()
