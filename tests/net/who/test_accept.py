# SPDX-License-Identifier: BSD-2-Clause
"""accept_proxy: the header is taken to the byte, in whatever pieces it comes; what is none reaches nobody."""

import os
import time

import pytest

from peer import SCALE, Peer, Task, together, wait_until
from who import SEEDS, headers
from who.scene import front, is_reset, talk

pytestmark = pytest.mark.modes("relay", "sockmap")
ALL = ("relay", "sockmap", "parser")
KB, MB = 1024, 1024 * 1024
ON = {"accept_proxy": "on"}
WHO, WHERE = ("192.0.2.7", 40001), ("198.51.100.9", 443)
WHO6, WHERE6 = ("2001:db8::7", 40001), ("2001:db8:1::9", 443)
TLVS = headers.tlv(headers.ALPN, b"h2") + headers.tlv(headers.UNIQUE_ID, b"r2d2") + headers.tlv(headers.NOOP, b"123")
SOUND = {
    "v1 TCP4": headers.v1(WHO, WHERE),
    "v1 TCP6": headers.v1(WHO6, WHERE6),
    "v1 UNKNOWN": b"PROXY UNKNOWN\r\n",
    "v1 UNKNOWN with addresses": b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n",
    "v2 TCP4": headers.v2(WHO, WHERE),
    "v2 TCP6 with TLVs and checksum": headers.v2(WHO6, WHERE6, TLVS, crc=True),
    "v2 UNIX": headers.v2(b"/run/a", b"/run/b"),
    "v2 LOCAL": headers.local(),
    "v2 LOCAL with TLVs": headers.local(tlvs=TLVS, crc=True),
    "v2 UNSPEC": headers.v2(),
}


def ready(launch, sections, **options):
    scene = launch(sections, **options)
    if scene.mode.parser == "stream":
        scene.share = 0  # what has read a header cannot start a parser behind it
        scene.allow(fallbacks={"half_read"})
    return scene


@pytest.mark.modes(*ALL)
@pytest.mark.parametrize("name", ["v1 TCP4", "v2 TCP6 with TLVs and checksum"])
def test_header_cut_at_any_byte_is_taken_and_the_payload_is_exact(launch, cast_of, name):
    app, = cast_of("app")
    scene = ready(launch, front(app, ON), gate=True)
    header = SOUND[name]
    socks = [scene.open() for _ in range(len(header))]
    for cut, sock in enumerate(socks):
        sock.send(header[:cut])
    scene.pass_gate()
    assert app.is_untouched(), "a server was connected to before the header was complete"
    for cut, sock in enumerate(socks):
        client = scene.client(sock, header[cut:], early=1000)
        talk(client, scene.server(client, app.accept()), 500)
    assert app.is_untouched()
    assert scene.ended("complete", listener="front") == len(header)


@pytest.mark.modes(*ALL)
def test_header_that_comes_byte_by_byte_is_taken(launch, cast_of):
    """All kinds side by side; the daemon looks after each byte."""
    app, = cast_of("app")
    scene = ready(launch, front(app, ON), gate=True)
    socks = {name: scene.open() for name in SOUND}
    for at in range(max(map(len, SOUND.values()))):
        for name, header in SOUND.items():
            if at < len(header) - 1:
                socks[name].send(header[at:at + 1])
        scene.pass_gate()
    assert app.is_untouched()
    for name, header in SOUND.items():
        client = scene.client(socks[name], header[-1:])
        talk(client, scene.server(client, app.accept()))


@pytest.mark.modes(*ALL)
def test_header_and_payload_in_one_segment_are_told_apart(launch, cast_of):
    app, = cast_of("app")
    scene = ready(launch, front(app, ON))
    for number, header in enumerate(SOUND.values()):
        client = scene.client(scene.open(), header, early=(1, 1000, 30 * KB)[number % 3])
        talk(client, scene.server(client, app.accept()), 20 * KB)


def test_server_is_connected_to_before_any_payload_comes(launch, cast_of):
    """The server may be the one that speaks first."""
    app, = cast_of("app")
    scene = launch(front(app, ON))
    for header in SOUND.values():
        client = scene.client(scene.open(), header)
        server = scene.server(client, app.accept())
        server.send(1000)
        client.read(1000)
        talk(client, server)


def test_header_and_end_in_one_segment_are_passed_on_as_an_end(launch, cast_of):
    app, = cast_of("app")
    scene = launch(front(app, ON))
    scene.allow(fallbacks={"half_closed"})
    scene.share = 0
    for early in (0, 1, 5000):
        client = scene.client(scene.open(), SOUND["v2 TCP4"], early=early).fin()
        server = scene.server(client, app.accept())
        server.expect_eof(early)
        server.send(1000)
        server.fin()
        client.expect_eof(1000)


@pytest.mark.modes(*ALL)
@pytest.mark.parametrize("send", ["v1", "v2"])
def test_megabytes_both_ways_behind_headers_with_readers_that_stall_are_exact(launch, cast_of, send):
    app, = cast_of("app", rcvbuf=64 * KB)
    scene = ready(launch, front(app, ON, {"send_proxy": send}))
    client = scene.client(scene.open(rcvbuf=64 * KB), SOUND["v1 TCP4"], early=20 * KB)
    sock = app.accept()
    assert headers.read(sock).ends == (WHO, WHERE)
    server = scene.server(client, sock)
    count = 32 * MB  # more than all buffers take: BOUND in test_backpressure.py
    senders = [Task(client.send, count), Task(server.send, count)]
    last = [-1, 0]

    def stalled():
        now = client.sent + server.sent
        last[1] = last[1] + 1 if now == last[0] else 0
        last[0] = now
        return last[1] >= 5

    wait_until("both senders stall", stalled, interval=0.05)
    assert client.sent < count and server.sent < count
    together(*senders, Task(server.read, count + 20 * KB), Task(client.read, count))
    talk(client, server)
    metrics = scene.wait_active(0)
    if scene.mode.path == "sockmap" and scene.mode.parser == "none":
        assert metrics.total("shunt_overflows_total") >= 2, "the stalls left both directions in the kernel"
    assert sum(scene.bytes_moved(metrics).values()) == client.sent + server.sent, "headers are no payload"


def test_bulk_behind_a_header_takes_the_path_of_the_mode(launch, cast_of):
    """Scene.finish() checks the share."""
    app, = cast_of("app")
    scene = launch(front(app, ON, {"send_proxy": "v2"}))
    client = scene.client(scene.open(), SOUND["v2 TCP4"], early=1000)
    sock = app.accept()
    headers.read(sock)
    server = scene.server(client, sock)
    for _ in range(20):
        client.send(50 * KB)
        server.read(50 * KB)
        server.send(50 * KB)
        client.read(50 * KB)
    talk(client, server)
    moved = scene.bytes_moved(scene.wait_active(0))
    assert moved == {scene.mode.path: client.sent + server.sent}


# ---- who the client is


@pytest.mark.parametrize("send", ["v1", "v2"])
def test_header_without_an_address_leaves_that_of_the_connection(launch, cast_of, send):
    app, = cast_of("app")
    scene = launch(front(app, ON, {"send_proxy": send}))
    for name in ("v1 UNKNOWN", "v1 UNKNOWN with addresses", "v2 LOCAL", "v2 LOCAL with TLVs", "v2 UNSPEC"):
        sock = scene.open(source="127.0.7.1")
        own = sock.getsockname(), scene.address()
        client = scene.client(sock, SOUND[name], early=100)
        accepted = app.accept()
        told = headers.read(accepted)
        assert (told.word, told.ends) == ("TCP4", own), name
        talk(client, scene.server(client, accepted))


def test_source_hash_goes_by_the_address_in_the_header(launch, cast_of):
    farm = cast_of("a", "b", "c")
    scene = launch(front(farm, ON, {"balance": "source_hash", "send_proxy": "v1"}))

    def home_of(host, source):
        client = scene.client(scene.open(source=source), headers.v1((host, 1000), WHERE))
        found = wait_until("a server", lambda: [server for server in farm if not server.is_untouched()])[0]
        sock = found.accept()
        assert headers.read(sock).source[0] == host
        talk(client, scene.server(client, sock), 10)
        return found.name

    scene.share = 0
    hosts = [f"192.0.2.{n}" for n in range(1, 25)]
    homes = {host: home_of(host, "127.0.7.1") for host in hosts}
    assert len(set(homes.values())) == 3, f"24 addresses share {homes}"
    assert {host: home_of(host, "127.0.7.2") for host in hosts} == homes


# ---- what is wrong


def seeds(start):
    folder = os.path.join(SEEDS, "fuzz_proxy.in")
    found = {}
    for name in sorted(os.listdir(folder)):
        if name.startswith(start):
            with open(os.path.join(folder, name), "rb") as file:
                found[name] = file.read()
    return found


def broken():
    right = headers.v2(WHO, WHERE, TLVS, crc=True)
    flipped = bytearray(right)
    flipped[20] ^= 1
    return {
        "HTTP": b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n",
        "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
        "a byte that starts no header": b"x",
        "payload before the header": b"x" + SOUND["v1 TCP4"],
        "v1 in lower case": b"proxy TCP4 192.0.2.7 198.51.100.9 1 2\r\n",
        "v1 with an LF alone": b"PROXY TCP4 192.0.2.7 198.51.100.9 1 2\n",
        "v1 with two spaces": b"PROXY TCP4  192.0.2.7 198.51.100.9 1 2\r\n",
        "v1 with a port too high": b"PROXY TCP4 192.0.2.7 198.51.100.9 1 65536\r\n",
        "v1 with too few words": b"PROXY TCP4 192.0.2.7 198.51.100.9 1\r\n",
        "v1 with the wrong family": b"PROXY TCP6 192.0.2.7 198.51.100.9 1 2\r\n",
        "v1 of UDP": b"PROXY UDP4 192.0.2.7 198.51.100.9 1 2\r\n",
        "v1 without end": b"PROXY UNKNOWN " + b"x" * 200,
        "v2 with a wrong checksum": bytes(flipped),
        "v2 of version 3": right[:12] + b"\x31" + right[13:],
        "v2 with an unknown command": right[:12] + b"\x22" + right[13:],
        "v2 with an unknown family": right[:13] + b"\x41" + right[14:],
        "v2 too short for its addresses": headers.SIGNATURE + b"\x21\x11\x00\x04" + bytes(4),
        "v2 longer than 8 KiB": headers.v2(WHO, WHERE, headers.tlv(0xE0, bytes(9000))),
        "v2 with a TLV beyond its end": headers.v2(WHO, WHERE, b"\xe0\x00\x09short"),
        **seeds("refused-"),
    }


def test_wrong_header_ends_the_session_with_its_reason_and_reaches_nobody(launch, cast_of):
    app, = cast_of("app")
    scene = launch(front(app, {**ON, "handshake_timeout": "30s"}))
    scene.allow(ends={"proxy_header"})
    for number, (name, start) in enumerate(broken().items()):
        sock = scene.open()
        sock.send(start + b"and payload" if name != "a byte that starts no header" else start)
        assert is_reset(sock, timeout=5 * SCALE), f"{name}: an orderly end"
        scene.wait_ended("proxy_header", number + 1)
        assert app.is_untouched(), f"{name}: the server got a connection"
    assert scene.sessions() == {"app": 0}
    assert scene.ended("proxy_header", listener="front") == len(broken())


def test_wrong_header_ends_the_session_at_its_first_wrong_byte(launch, cast_of):
    """Nothing is waited for that cannot mend it."""
    app, = cast_of("app")
    scene = launch(front(app, {**ON, "handshake_timeout": "30s"}), gate=True)
    scene.allow(ends={"proxy_header"})
    for start, wrong in ((b"", b"G"), (b"PRO", b"x"), (b"PROXY TCP", b"5"), (headers.SIGNATURE[:5], b"x"),
                         (headers.SIGNATURE, b"\x30")):
        sock = scene.open()
        sock.send(start)
        scene.pass_gate()
        assert Peer(sock, "client", 1, 1).is_alive(), f"ended after {start!r}, which may become a header"
        sock.send(wrong)
        assert is_reset(sock, timeout=5 * SCALE)
    assert scene.sessions() == {"app": 0}
    assert scene.wait_ended("proxy_header", 5).total("shunt_sessions_ended_total", reason="proxy_header") == 5


def test_client_that_ends_before_its_header_is_complete_reaches_nobody(launch, cast_of):
    app, = cast_of("app")
    scene = launch(front(app, {**ON, "handshake_timeout": "30s"}))
    scene.allow(ends={"proxy_header"})
    starts = [b"", b"P", SOUND["v1 TCP4"][:-1], headers.SIGNATURE, SOUND["v2 TCP4"][:-1],
              SOUND["v2 TCP6 with TLVs and checksum"][:-1]]
    for number, start in enumerate(starts):
        sock = scene.open()
        sock.send(start)
        sock.shutdown(1)
        assert is_reset(sock, timeout=5 * SCALE)
        scene.wait_ended("proxy_header", number + 1)
    assert app.is_untouched() and scene.sessions() == {"app": 0}


def test_client_that_resets_in_its_header_ends_the_session(launch, cast_of):
    app, = cast_of("app")
    scene = launch(front(app, {**ON, "handshake_timeout": "30s"}), gate=True)
    client = scene.client(scene.open(), SOUND["v1 TCP4"][:9])
    scene.pass_gate()
    client.abort()
    scene.wait_active(0, timeout=5 * SCALE, listener="front")
    assert scene.ended("client_abort", listener="front") == 1
    assert app.is_untouched()


def test_header_that_is_too_slow_meets_handshake_timeout(launch, cast_of):
    """A byte now and then does not prolong it, and it is over once the header is complete."""
    app, = cast_of("app")
    scene = launch(front(app, {**ON, "handshake_timeout": "500ms"}))
    scene.allow(ends={"handshake_timeout"})
    start = time.monotonic()
    good = scene.client(scene.open(), SOUND["v1 TCP4"])
    server = scene.server(good, app.accept())
    silent, partial, trickle = scene.open(), scene.open(), scene.open()
    opened = time.monotonic()
    partial.send(SOUND["v2 TCP4"][:-1])
    took = {}

    def ends(name, sock):
        assert is_reset(sock), f"{name}: an orderly end"
        took[name] = time.monotonic() - opened

    waits = [Task(ends, "silent", silent), Task(ends, "partial", partial), Task(ends, "trickle", trickle)]
    for byte in SOUND["v1 TCP4"][:-1]:
        try:
            trickle.send(bytes([byte]))
        except OSError:
            break
        if waits[2].done():
            break
        time.sleep(0.02)
    together(*waits)
    for name, seconds in took.items():
        assert 0.48 <= seconds <= 0.5 + 0.5 * SCALE, f"{name}: handshake_timeout is 500 ms, it took {seconds:.2f} s"
    assert scene.ended("handshake_timeout") == 3
    assert app.is_untouched()
    wait_until("the good one is older than the timeout", lambda: time.monotonic() > start + 0.6)
    talk(good, server)


# ---- from whom


def test_header_from_others_than_accept_proxy_from_is_not_believed(launch, cast_of):
    app, = cast_of("app")
    scene = launch(front(app, {**ON, "accept_proxy_from": ["127.0.7.0/24", "127.0.8.1"]}, {"send_proxy": "v1"}))
    scene.allow(rejects={"not_a_proxy"})
    for number, source in enumerate(("127.0.8.2", "127.0.0.1", "127.0.6.255")):
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            sock = scene.open(source=source)
            sock.send(SOUND["v1 TCP4"])
            raise ConnectionResetError if is_reset(sock) else AssertionError("an orderly end")
        scene.daemon.wait_metric("one more rejected", lambda metrics: metrics.total(
            "shunt_listener_rejected_total", reason="not_a_proxy") == number + 1)
    assert app.is_untouched()
    for source in ("127.0.7.0", "127.0.7.255", "127.0.8.1"):
        client = scene.client(scene.open(source=source), SOUND["v1 TCP4"])
        sock = app.accept()
        assert headers.read(sock).source == WHO
        talk(client, scene.server(client, sock))
