# SPDX-License-Identifier: BSD-2-Clause
"""Promise 1: nothing is lost, repeated or reordered, whatever the timing."""

import selectors
import time

import pytest

import pattern
from peer import TIMEOUT, Reset, Task, together

KB, MB = 1024, 1024 * 1024


def rounds(client, server, count, size=64):
    """`count` requests and answers of `size` bytes; the longest one took so many seconds."""
    longest = 0.0
    for _ in range(count):
        start = time.monotonic()
        client.send(size)
        server.read(size)
        server.send(size)
        client.read(size)
        longest = max(longest, time.monotonic() - start)
    return longest


def test_both_directions_at_once_with_random_sizes_and_pauses(stage, rnd):
    sizes = {}
    tasks = []
    for number in range(3):
        client, server = stage.pair()
        for sender, reader in ((client, server), (server, client)):
            sizes[sender] = rnd.randrange(3 * MB, 6 * MB)

            def chunk():
                return rnd.choice((1, 7, 100, 1448, 4096, 20000, 65483, 200000)) + rnd.randrange(50)

            def pause():
                return rnd.choice((0, 0, 0, 0.0003, 0.003))

            tasks.append(Task(lambda sender=sender: sender.send(sizes[sender], chunk, pause=pause).fin()))
            tasks.append(Task(reader.expect_eof, chunk=chunk, pause=pause))
    together(*tasks)
    for peer, other in zip(stage.peers[::2], stage.peers[1::2]):
        assert (other.received, peer.received) == (sizes[peer], sizes[other])
    stage.prove(c2s=sum(sizes[peer] for peer in stage.peers[::2]),
                s2c=sum(sizes[peer] for peer in stage.peers[1::2]))


@pytest.mark.parametrize("size", [1, 100, 200 * KB])
def test_bytes_sent_before_the_server_accepts_arrive(stage, size):
    for _ in range(10):
        client = stage.client()
        client.send(size)
        server = stage.server()
        server.read(size)
        assert rounds(client, server, 3) < TIMEOUT
    stage.prove(c2s=10 * (size + 3 * 64), s2c=10 * 3 * 64)


@pytest.mark.parametrize("size", [1, 100, 300 * KB])
def test_server_may_speak_first(stage, size):
    for _ in range(10):
        client, server = stage.pair()
        together(Task(server.send, size), Task(client.read, size))
        rounds(client, server, 3)
    stage.prove(c2s=10 * 3 * 64, s2c=10 * (size + 3 * 64))


def test_both_ends_may_speak_first(stage):
    for _ in range(30):
        client = stage.client()
        client.send(3000)
        server = stage.server()
        server.send(5000)
        server.read(3000)
        client.read(5000)
        rounds(client, server, 2)
    stage.prove(c2s=30 * 3128, s2c=30 * 5128)


def test_ten_thousand_single_bytes_arrive_one_by_one(stage):
    client, server = stage.pair()
    together(Task(client.send, 5000, chunk=1), Task(server.send, 5000, chunk=1),
             Task(client.read, 5000), Task(server.read, 5000))
    rounds(client, server, 500, size=1)
    stage.prove(c2s=5500, s2c=5500)


@pytest.mark.parametrize("size", [1, 1448, 16384, 70000])
def test_requests_and_answers_of_one_size(stage, size):
    client, server = stage.pair()
    rounds(client, server, 200, size)
    stage.prove(c2s=200 * size, s2c=200 * size)


def test_bulk_each_way_in_turn(stage):
    client, server = stage.pair()
    for sender, reader in ((client, server), (server, client)):
        together(Task(sender.send, 32 * MB), Task(reader.read, 32 * MB))
    client.fin()
    server.expect_eof(32 * MB)
    server.fin()
    client.expect_eof(32 * MB)
    stage.prove(c2s=32 * MB, s2c=32 * MB)


def test_interactive_and_bulk_phases_alternate(stage):
    """After each bulk phase the first answer comes at once: promise 5."""
    client, server = stage.pair()
    first = []
    for _ in range(8):
        rounds(client, server, 50)
        for sender, reader in ((client, server), (server, client)):
            together(Task(sender.send, 2 * MB), Task(reader.read, 2 * MB))
            first.append(rounds(client, server, 1))
    stage.prove(c2s=8 * (52 * 64 + 2 * MB), s2c=8 * (52 * 64 + 2 * MB))
    assert sorted(first)[len(first) // 2] < 0.05, f"the first round trips after bulk took {first} s"


def test_upload_of_48_mb_before_reading_anything(stage):
    """A client that uploads everything and only then looks at what the server has been saying."""
    client, server = stage.pair()

    def serve():
        while server.received < 48 * MB:
            server.read(MB)
            server.send(1000)
        server.send(3 * MB).fin()
        server.expect_eof(48 * MB)

    serving = Task(serve)
    client.send(48 * MB).fin()
    client.expect_eof(48000 + 3 * MB)
    together(serving)
    stage.prove(c2s=48 * MB, s2c=48000 + 3 * MB)


def test_hundreds_of_connections_at_once(stage, rnd):
    """300 sessions, each with its own streams of random length, all open before the first one is used."""
    count = 300
    clients = [stage.client() for _ in range(count)]
    by_number = {}
    for client in clients:
        client.send(4, chunk=4)
    selector = selectors.DefaultSelector()
    # A server cannot know which client it got: it finds out by the first bytes, which are of the client's stream.
    starts = {bytes(pattern.piece(client.out, 0, 4)): client for client in clients}
    for _ in range(count):
        sock = stage.accept()
        sock.settimeout(TIMEOUT)
        hello = b""
        while len(hello) < 4:
            hello += sock.recv(4 - len(hello))
        client = starts.pop(hello)
        server = stage.server(sock, seed=client.out)
        server.received = 4
        by_number[client] = server
    lengths = {peer: rnd.randrange(1, 300 * KB) for peer in stage.peers}
    for peer in stage.peers:
        selector.register(peer, selectors.EVENT_READ | selectors.EVENT_WRITE, peer)
    end = time.monotonic() + 2 * TIMEOUT
    open_peers = set(stage.peers)
    start = {client: 4 for client in clients}
    while open_peers:
        assert time.monotonic() < end, f"{len(open_peers)} ends did not finish"
        for key, events in selector.select(1):
            peer = key.data
            if events & selectors.EVENT_WRITE:
                left = start.get(peer, 0) + lengths[peer] - peer.sent
                if left:
                    peer.send_some(min(left, rnd.randrange(1, 30000)))
                else:
                    peer.fin()
                    selector.modify(peer, selectors.EVENT_READ, peer)
            if events & selectors.EVENT_READ and peer.recv_some() == 0:
                if peer.error:
                    raise Reset(str(peer))
                if selector.get_key(peer).events & selectors.EVENT_WRITE:
                    peer.send(start.get(peer, 0) + lengths[peer] - peer.sent)
                    peer.fin()
                selector.unregister(peer)
                open_peers.discard(peer)
    for client, server in by_number.items():
        assert server.received == client.sent and client.received == server.sent, f"{client}; {server}"
    stage.prove(c2s=sum(client.sent for client in clients), s2c=sum(peer.sent for peer in by_number.values()))
