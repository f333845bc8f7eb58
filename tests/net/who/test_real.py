# SPDX-License-Identifier: BSD-2-Clause
"""PROXY headers between shuntd, HAProxy and nginx: each believes what the other says, and the bytes are exact."""

import contextlib
import os

import pytest

from ops.farm import Hole
from peer import Task, together
from stage import shown
from who import headers
from who.real import HaProxy, NginxStream
from who.scene import front, talk
from who.test_accept import ON, WHERE, WHERE6, WHO, WHO6

pytestmark = pytest.mark.modes("relay", "sockmap")
KB, MB = 1024, 1024 * 1024
CRC = "send-proxy-v2 proxy-v2-options crc32c,unique-id"
SENDS = {"v1": "send-proxy", "v2": "send-proxy-v2", "v2-crc": CRC}


@pytest.fixture
def started():
    """started(thing) is closed at the end."""
    with contextlib.ExitStack() as stack:
        yield lambda thing: stack.enter_context(contextlib.closing(thing))


def through(scene, app, port, count=300 * KB):
    """A session from a client to the server of the test, by way of that port: (client's address, port)."""
    sock = scene.open(to=("127.0.0.1", port), source="127.0.7.5")
    own = sock.getsockname()
    client = scene.client(sock, early=100)
    server = scene.server(client, app.accept())
    tasks = [Task(client.send, count), Task(server.send, count), Task(server.read, count), Task(client.read, count)]
    together(*tasks)
    talk(client, server)
    return own


@pytest.mark.modes("relay", "sockmap", "parser")
@pytest.mark.parametrize("version", list(SENDS))
def test_header_of_haproxy_is_taken_and_the_server_sees_payload_alone(launch, cast_of, started, version):
    app, = cast_of("app")
    scene = launch(front(app, ON))
    if scene.mode.parser == "stream":
        scene.share = 0
        scene.allow(fallbacks={"half_read"})
    haproxy = started(HaProxy({"front": ("", f"{shown(scene.address())} {SENDS[version]}")}))
    for _ in range(3):
        through(scene, app, haproxy.ports["front"])
    assert scene.ended("complete") == 3


@pytest.mark.parametrize("version", list(SENDS))
@pytest.mark.parametrize("send", ["v1", "v2"])
def test_client_of_haproxy_is_named_to_haproxy_and_to_nginx_behind_shunt(launch, cast_of, started, version, send):
    """client - HAProxy - shunt - HAProxy or nginx - server; both directions exact all the way."""
    app, = cast_of("app")
    last = started(HaProxy({"believe": ("accept-proxy", app.to)}))
    nginx = started(NginxStream(app.to))
    target = {"server": shown(("127.0.0.1", last.ports["believe"])) + " name=app"}
    scene = launch(front(app, ON, {**target, "send_proxy": send}, **{
        "listener_other": {"bind": "127.0.0.1:0", "backend": "other", **ON},
        "backend_other": {"server": shown(("127.0.0.1", nginx.accept_port)), "check": "off", "send_proxy": send},
    }))
    first = started(HaProxy({
        "first": ("", f"{shown(scene.address())} {SENDS[version]}"),
        "other": ("", f"{shown(scene.address('other'))} {SENDS[version]}"),
    }))
    own = through(scene, app, first.ports["first"])
    unique = f"id-{own[1]}" if (version, send) == ("v2-crc", "v2") else "-"
    assert last.wait_seen("believe") == [(own, ("127.0.0.1", first.ports["first"]), unique)]
    own = through(scene, app, first.ports["other"])
    assert nginx.wait_seen() == [(own, ("127.0.0.1", first.ports["other"]))]


@pytest.mark.parametrize("send", ["v1", "v2"])
def test_header_of_nginx_is_taken_and_passed_on_to_nginx(launch, cast_of, started, send):
    app, = cast_of("app")
    last = started(NginxStream(app.to))
    scene = launch(front(app, ON, {"server": shown(("127.0.0.1", last.accept_port)), "send_proxy": send}))
    first = started(NginxStream(app.to, send_to=shown(scene.address())))
    own = through(scene, app, first.send_port)
    assert last.wait_seen() == [(own, ("127.0.0.1", first.send_port))]


@pytest.mark.parametrize("send", ["v1", "v2"])
def test_clients_of_every_kind_are_believed_by_haproxy_and_nginx(launch, cast_of, started, send):
    """IPv6, mixed families, LOCAL and UNKNOWN as shuntd writes them."""
    app, = cast_of("app")
    haproxy = started(HaProxy({"believe": ("accept-proxy", app.to)}))
    nginx = started(NginxStream(app.to))
    scene = launch(front(app, ON, {"server": shown(("127.0.0.1", haproxy.ports["believe"])), "send_proxy": send}, **{
        "listener_nginx": {"bind": "127.0.0.1:0", "backend": "nginx", **ON},
        "backend_nginx": {"server": shown(("127.0.0.1", nginx.accept_port)), "check": "off", "send_proxy": send},
    }))
    mapped = "::ffff:192.0.2.7", 40001
    cases = [
        (headers.v1(WHO, WHERE), (WHO, WHERE)),
        (headers.v2(WHO6, WHERE6, headers.tlv(headers.UNIQUE_ID, b"x7"), crc=True), (WHO6, WHERE6)),
        (headers.v2(mapped, WHERE6), (mapped, WHERE6)),
        (b"PROXY UNKNOWN\r\n", None),
        (headers.local(), None),
    ]
    for name, wait in (("front", lambda count: haproxy.wait_seen("believe", count)), ("nginx", nginx.wait_seen)):
        for number, (header, ends) in enumerate(cases):
            sock = scene.open(name)
            ends = ends or (sock.getsockname(), scene.address(name))
            client = scene.client(sock, header, early=100)
            server = scene.server(client, app.accept())
            talk(client, server)
            assert wait(number + 1)[number][:2] == ends


@pytest.mark.parametrize("send", ["v1", "v2"])
def test_haproxy_as_second_server_is_told_the_client_once(launch, cast_of, started, send):
    """A header twice, or none, ends the connection there."""
    app, gone = cast_of("app", "gone")
    hole = Hole()
    try:
        haproxy = started(HaProxy({"believe": ("accept-proxy", app.to)}))
        target = [gone.line(), hole.line(), shown(("127.0.0.1", haproxy.ports["believe"])) + " name=haproxy"]
        scene = launch(front(app, ON, {"server": target, "send_proxy": send, "connect_timeout": "100ms",
                                       "ejection": "off"}, {"threads": "1"}))
        gone.shut()
        for number in range(4):
            client = scene.client(scene.open(), headers.v1((WHO[0], 1000 + number), WHERE), early=20 * KB)
            talk(client, scene.server(client, app.accept()))
            assert haproxy.wait_seen("believe", number + 1)[number][:2] == ((WHO[0], 1000 + number), WHERE)
        assert scene.metrics().total("shunt_server_connect_failures_total") >= 4
    finally:
        hole.close()


@pytest.mark.modes("sockmap")
def test_health_checks_of_haproxy_are_no_wrong_headers(launch, cast_of, started):
    """They begin with LOCAL and end at once."""
    app, = cast_of("app")
    scene = launch(front(app, ON, {"send_proxy": "v2"}))
    scene.allow(ends={"complete", "client_abort", "server_abort"}, fallbacks={"half_closed"})
    scene.share = 0
    started(HaProxy({"front": ("", f"{shown(scene.address())} send-proxy-v2 check check-send-proxy inter 100ms")}))
    scene.daemon.wait_metric("five checks", lambda metrics: metrics.total("shunt_sessions_ended_total") >= 5)
    assert scene.ended("proxy_header") == 0


@pytest.mark.modes("sockmap")
@pytest.mark.parametrize("send", ["off", "v1", "v2"])
def test_health_checks_greet_servers_that_want_a_header(launch, cast_of, started, send):
    """nginx answers those alone that begin with a header."""
    nginx = started(NginxStream("127.0.0.1:9"))
    scene = launch(front(cast_of("app"), {}, {
        "server": f"{shown(('127.0.0.1', nginx.check_port))} name=nginx", "send_proxy": send,
        "check": 'send_expect "" "up"', "check_interval": "100ms"}))
    if send == "off":
        scene.wait_state("nginx", "down")
    else:
        nginx.wait_seen(5)
        assert scene.changes_of("nginx") in ([], ["up"])
        assert scene.metrics().total("shunt_server_up", server="nginx") == 1


@pytest.mark.modes("sockmap")
@pytest.mark.parametrize("send", ["v1", "v2"])
def test_client_on_a_unix_socket_is_served_by_haproxy_behind_shunt(launch, cast_of, started, send):
    """HAProxy 2.6 refuses a header of UNIX names."""
    app, = cast_of("app")
    haproxy = started(HaProxy({"believe": ("accept-proxy", app.to)}))
    scene = launch(front(app, {}, {"server": shown(("127.0.0.1", haproxy.ports["believe"])), "send_proxy": send},
                         bind="unix:{dir}/front.sock"))
    scene.share = 0
    scene.allow(fallbacks={"unix"})
    client = scene.client(scene.open(to=os.path.join(scene.daemon.dir, "front.sock")), early=1000)
    talk(client, scene.server(client, app.accept(timeout=5)))
