# SPDX-License-Identifier: BSD-2-Clause
"""send_proxy: the first bytes that a server gets say who the client is, once, and nothing is mixed with them."""

import os
import socket

import pytest

import pattern
from ops.farm import Hole
from peer import SCALE, wait_until
from stage import shown
from who import headers
from who.scene import front, talk
from who.test_accept import ON, WHERE, WHERE6, WHO, WHO6

pytestmark = pytest.mark.modes("relay", "sockmap")
BOTH = pytest.mark.parametrize("send", ["v1", "v2"])
KB = 1024


def greeted(scene, server, client):
    """The other end of the client and what the header in front said."""
    sock = server.accept()
    told = headers.read(sock)
    return scene.server(client, sock), told


@BOTH
@pytest.mark.modes("relay", "sockmap", "parser")
def test_server_is_told_the_client_and_where_it_connected_to(launch, cast_of, send):
    app, = cast_of("app")
    scene = launch(front(app, backend={"send_proxy": send}))
    for early in (0, 1, 5 * KB):
        sock = scene.open(source="127.0.7.9")
        client = scene.client(sock, early=early)
        own = sock.getsockname()
        server, told = greeted(scene, app, client)
        assert (told.version, told.word, told.source, told.target) == (int(send[1]), "TCP4", own, scene.address())
        assert told.crc is (send == "v2") and told.tlvs == []
        talk(client, server, 50 * KB)


@BOTH
def test_header_goes_out_though_the_client_says_nothing(launch, cast_of, send):
    app, = cast_of("app")
    scene = launch(front(app, backend={"send_proxy": send}))
    client = scene.client(scene.open())
    server, told = greeted(scene, app, client)
    assert told.word == "TCP4"
    server.expect_silence(0.1)
    server.send(1000)
    client.read(1000)
    client.expect_silence(0.1)
    talk(client, server)


@BOTH
def test_families_of_clients_are_told(launch, cast_of, send):
    """IPv6, IPv4 on a dual-stack listener (which is no mapped address), and a server of the other family."""
    four, = cast_of("four")
    six, = cast_of("six", host="::1")
    scene = launch(front(four, backend={"send_proxy": send}, bind=["[::1]:0", "*:0"], **{
        "listener_cross": {"bind": "127.0.0.1:0", "backend": "six"},
        "backend_six": {"server": six.line(), "check": "off", "send_proxy": send},
    }))
    port6, dual = scene.address("front", 0)[1], scene.address("front", 1)[1]
    for to, server, word in ((("::1", port6), four, "TCP6"), (("127.0.0.1", dual), four, "TCP4"),
                             (("::1", dual), four, "TCP6"), (scene.address("cross"), six, "TCP4")):
        sock = scene.open(to=to)
        own = sock.getsockname()[:2]
        client = scene.client(sock)
        other, told = greeted(scene, server, client)
        assert (told.word, told.source, told.target) == (word, own, to)
        talk(client, other)


@BOTH
def test_client_on_a_unix_socket_is_one_without_an_address(launch, cast_of, send):
    app, = cast_of("app")
    scene = launch(front(app, backend={"send_proxy": send}, bind="unix:{dir}/front.sock"))
    scene.share = 0
    scene.allow(fallbacks={"unix"})
    client = scene.client(scene.open(to=os.path.join(scene.daemon.dir, "front.sock")))
    server, told = greeted(scene, app, client)
    assert told.word == {"v1": "UNKNOWN", "v2": "LOCAL"}[send], told
    talk(client, server)


@BOTH
def test_server_on_a_unix_socket_is_told(launch, tmp_path, send):
    os.chmod(tmp_path, 0o755)
    for parent in (tmp_path.parent, tmp_path.parent.parent):
        os.chmod(parent, 0o755)
    path = str(tmp_path / "server.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        os.chmod(path, 0o777)
        listener.listen(10)
        listener.settimeout(10)
        scene = launch({
            "global": {}, "listener front": {"bind": "127.0.0.1:0", "backend": "app"},
            "backend app": {"server": shown(path), "check": "off", "send_proxy": send}})
        scene.share = 0
        scene.allow(fallbacks={"unix"})
        sock = scene.open()
        own = sock.getsockname()
        client = scene.client(sock, early=10)
        accepted = listener.accept()[0]
        accepted.settimeout(10)
        told = headers.read(accepted)
        assert told.ends == (own, scene.address())
        talk(client, scene.server(client, accepted))


# ---- what was heard is passed on

PASSED = [
    (headers.ALPN, b"h2"), (headers.AUTHORITY, b"git.example.org"), (headers.UNIQUE_ID, bytes(range(128))),
    (headers.SSL, b"\x01\0\0\0\0" + headers.tlv(0x21, b"TLSv1.3") + headers.tlv(0x22, b"someone")),
    (headers.NETNS, b"blue"), (0xE0, b""), (0xEA, b"a cloud's own"), (0xE0, b"a second one of the same type"),
]
CHAIN = [
    # heard, source and target told, TLVs told by version 2
    ("v1 TCP4", headers.v1(WHO, WHERE), WHO, WHERE, []),
    ("v1 TCP6", headers.v1(WHO6, WHERE6), WHO6, WHERE6, []),
    ("v1 mapped", headers.v1(("::ffff:192.0.2.7", 40001), ("::ffff:198.51.100.9", 443)), WHO, WHERE, []),
    ("v2 TCP4", headers.v2(WHO, WHERE), WHO, WHERE, []),
    ("v2 TCP6", headers.v2(WHO6, WHERE6, crc=True), WHO6, WHERE6, []),
    ("v2 mixed", headers.v2(("::ffff:192.0.2.7", 40001), WHERE6), ("::ffff:192.0.2.7", 40001), WHERE6, []),
    ("v2 with TLVs", headers.v2(WHO, WHERE, headers.tlv(headers.NOOP, b"  ") + b"".join(
        headers.tlv(*each) for each in PASSED) + headers.tlv(headers.NOOP, b""), crc=True), WHO, WHERE, PASSED),
    ("v2 with TLVs and no checksum", headers.v2(WHO6, WHERE6, b"".join(headers.tlv(*each) for each in PASSED)),
     WHO6, WHERE6, PASSED),
    ("v2 of 8 KiB", headers.v2(WHO, WHERE, headers.tlv(0xE5, bytes(8192 - 16 - 12 - 3))), WHO, WHERE,
     [(0xE5, bytes(8192 - 16 - 12 - 3))]),
]


@BOTH
def test_header_that_was_heard_is_passed_on_with_its_tlvs_and_a_checksum(launch, cast_of, send):
    app, = cast_of("app")
    scene = launch(front(app, ON, {"send_proxy": send}))
    for name, header, source, target, tlvs in CHAIN:
        client = scene.client(scene.open(), header, early=700)
        server, told = greeted(scene, app, client)
        assert told.ends == (source, target), name
        assert told.word == ("TCP6" if ":" in source[0] else "TCP4"), name
        if send == "v2":
            assert told.crc and told.tlvs == tlvs, name
        talk(client, server)


@BOTH
def test_header_of_unix_names_is_passed_on_where_the_version_can(launch, cast_of, send):
    app, = cast_of("app")
    scene = launch(front(app, ON, {"send_proxy": send}))
    client = scene.client(scene.open(), headers.v2(b"/run/a", b"\0abstract"), early=10)
    server, told = greeted(scene, app, client)
    if send == "v1":
        assert told.word == "UNKNOWN"
    else:
        assert told.word == "UNIX" and told.ends == (b"/run/a", b"\0abstract") and told.crc
    talk(client, server)


# ---- with servers that fail


@BOTH
def test_header_is_sent_once_when_the_first_server_refuses(launch, cast_of, send):
    a, b = cast_of("a", "b")
    scene = launch(front([a, b], backend={"send_proxy": send, "ejection": "off"}, top={"threads": "1"}))
    a.shut()
    for number in range(8):
        sock = scene.open()
        own = sock.getsockname()
        client = scene.client(sock, early=(0, 1, 20 * KB)[number % 3])
        server, told = greeted(scene, b, client)
        assert told.ends == (own, scene.address())
        talk(client, server)
    refused = scene.metrics().total("shunt_server_connect_failures_total", server="a", reason="connect_refused")
    assert refused >= 3, "few of them met the server that refuses"


@BOTH
def test_header_is_sent_once_when_the_first_server_does_not_answer(launch, cast_of, send):
    """And behind accept_proxy: the header that was heard is not lost on the way to the next one."""
    b, = cast_of("b")
    hole = Hole()
    try:
        scene = launch(front([hole, b], ON, {"send_proxy": send, "ejection": "off", "connect_timeout": "200ms"},
                             {"threads": "1"}))
        clients = [scene.client(scene.open(), headers.v2(WHO, WHERE, headers.tlv(*PASSED[0]), crc=True), early=10 * KB)
                   for _ in range(4)]
        pending = {client.out: client for client in clients}
        for _ in clients:
            sock = b.accept()
            told = headers.read(sock)
            assert told.ends == (WHO, WHERE)
            assert send == "v1" or (told.crc and told.tlvs == PASSED[:1])
            # Which client it is shows in the payload.
            start = sock.recv(24, socket.MSG_PEEK | socket.MSG_WAITALL)
            found = next(client for client in pending.values() if is_start_of(client, start))
            del pending[found.out]
            talk(found, scene.server(found, sock), 100 * KB)
        failed = scene.metrics().total("shunt_server_connect_failures_total", server="hole", reason="connect_timeout")
        assert failed == 2
    finally:
        hole.close()


def is_start_of(client, data):
    return bytes(pattern.piece(client.out, 0, len(data))) == data


@BOTH
def test_session_from_the_queue_sends_its_header_once(launch, cast_of, send):
    app, = cast_of("app")
    scene = launch(front(app, backend={"send_proxy": send, "server_max_sessions": "1", "queue_timeout": "30s"}))
    first = scene.client(scene.open(), early=100)
    server, _ = greeted(scene, app, first)
    scene.wait_active(1)
    sock = scene.open()
    own = sock.getsockname()
    second = scene.client(sock, early=100)
    scene.wait_active(2)
    assert app.is_untouched()
    talk(first, server)
    server, told = greeted(scene, app, second)
    assert told.source == own
    talk(second, server)


# ---- with a reload


@pytest.mark.modes("sockmap")
def test_reload_changes_the_header_for_new_sessions_alone(launch, cast_of):
    app, = cast_of("app")
    scene = launch(front(app, backend={"send_proxy": "v1"}))
    old = scene.client(scene.open())
    old_server, told = greeted(scene, app, old)
    assert told.version == 1
    scene.reload({"backend app": {"send_proxy": "v2"}})
    old.send(500)
    old_server.read(500)

    def told_now():
        client = scene.client(scene.open())
        server, found = greeted(scene, app, client)
        talk(client, server)
        return found.version

    wait_until("the new version", lambda: told_now() == 2, timeout=5 * SCALE)
    talk(old, old_server)
