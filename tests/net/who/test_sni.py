# SPDX-License-Identifier: BSD-2-Clause
"""route: the backend by the server name in a ClientHello, which is passed on untouched."""

import contextlib
import hashlib
import os
import re
import socket
import ssl
import subprocess
import time

import pytest

from apps import run
from peer import SCALE, TIMEOUT, Task, together, wait_until
from stage import shown
from who import SEEDS, headers
from who.real import HaProxy, NginxTls
from who.scene import front, is_reset, talk
from who.test_accept import ON, WHERE, WHO

pytestmark = pytest.mark.modes("relay", "sockmap")
KB = 1024
ROUTES = ["git.example.org git", "*.apps.example.org apps"]


@pytest.fixture(scope="module")
def nginx():
    with contextlib.closing(NginxTls()) as nginx:
        yield nginx


def started(launch, sections, **options):
    """openssl says close_notify to a server that has closed already, and meets a reset."""
    scene = launch(sections, **options)
    scene.allow(ends={"server_abort"})
    return scene


def tls(nginx, listener=(), **sections):
    """Names of git and apps by routes, everything else to web."""
    def backend(name):
        return {"server": nginx.to(name), "check": "off"}

    return {"global": {},
            "listener front": {"bind": "127.0.0.1:0", "backend": "web", "route": ROUTES, **dict(listener)},
            "backend web": backend("web"), "backend git": backend("git"), "backend apps": backend("apps"), **sections}


def s_client(address, *options):
    """(subject, the answer to GET /who) as openssl sees it."""
    done = subprocess.run(["openssl", "s_client", "-connect", shown(address), "-ign_eof", *options], text=True,
                          input="GET /who HTTP/1.0\r\n\r\n", capture_output=True, timeout=TIMEOUT)
    subject = re.search(r"^subject=CN = (\S+)", done.stdout, re.M)
    assert subject, f"no certificate: {done.stdout} {done.stderr}"
    answer = re.search(r"^((?:web|git|apps) .*)$", done.stdout, re.M)
    assert answer, f"no answer: {done.stdout} {done.stderr}"
    return subject.group(1), answer.group(1).split()


def curl(nginx, address, name, path="/who", *options):
    return run("curl", "--silent", "--show-error", "--fail", "--cacert", f"{nginx.dir}/ca.pem", *options,
               "--resolve", f"{name}:{address[1]}:{address[0]}", f"https://{name}:{address[1]}{path}")


NAMES = [
    ("git.example.org", "git"), ("GIT.Example.ORG", "git"), ("a.apps.example.org", "apps"),
    ("web.example.org", "web"), ("apps.example.org", "web"), ("x.git.example.org", "web"), ("other.test", "web"),
]


@pytest.mark.modes("relay", "sockmap", "parser")
def test_openssl_gets_the_certificate_of_the_backend_of_its_name(launch, nginx):
    scene = started(launch, tls(nginx))
    for version in ("-tls1_2", "-tls1_3"):
        for name, backend in NAMES:
            subject, answer = s_client(scene.address(), "-servername", name, version)
            assert (subject, answer) == (backend, [backend, name]), f"{name} {version}"
    assert s_client(scene.address(), "-noservername") == ("web", ["web"])
    assert {name: int(scene.metrics().total("shunt_server_sessions_total", backend=name))
            for name in ("git", "apps", "web")} == {"git": 4, "apps": 2, "web": 9}


def test_curl_verifies_the_backend_of_its_name(launch, nginx):
    """--cacert: the wrong backend's certificate would end it."""
    scene = launch(tls(nginx))
    cases = ("git.example.org", "git"), ("one.apps.example.org", "apps"), ("web.example.org", "web")
    for name, backend in cases:
        for options in ((), ("--tls-max", "1.2")):
            assert curl(nginx, scene.address(), name, "/who", *options) == f"{backend} {name}\n"


def test_route_of_an_asterisk_takes_what_no_other_route_takes(launch, nginx):
    routes = [*ROUTES, "* apps", "*.any.example.net git", "web.any.example.net web"]
    scene = started(launch, tls(nginx, {"route": routes}))
    for name, backend in (("git.example.org", "git"), ("other.test", "apps"), ("web.example.org", "apps"),
                          ("git.any.example.net", "git"), ("web.any.example.net", "web")):
        assert s_client(scene.address(), "-servername", name)[0] == backend, name
    assert s_client(scene.address(), "-noservername")[0] == "apps"


def test_download_of_10_mb_by_https_is_exact(launch, nginx):
    scene = launch(tls(nginx))
    name, digest = nginx.file(10)
    for host in ("git.example.org", "web.example.org"):
        out = f"{nginx.dir}/got"
        curl(nginx, scene.address(), host, f"/{name}", "-o", out)
        with open(out, "rb") as file:
            assert hashlib.sha256(file.read()).hexdigest() == digest
        os.unlink(out)
    moved = scene.bytes_moved(scene.wait_active(0))
    assert sum(moved.values()) > 20 << 20 and moved[scene.mode.path], moved
    assert scene.mode.in_kernel or set(moved) == {"relay"}


def test_reload_changes_routes_for_new_sessions_alone(launch, nginx):
    scene = started(launch, tls(nginx))
    old = handshake(scene.open(), nginx, "git.example.org")
    scene.reload({"listener front": {"route": ["git.example.org apps"]}})
    wait_until("the new route", lambda: s_client(scene.address(), "-servername", "git.example.org")[0] == "apps",
               timeout=5 * SCALE)
    assert old.get("/who").endswith("git git.example.org\n")
    old.close()


# ---- the hello in pieces


class Tls:
    """A TLS client whose bytes the test sends itself."""

    def __init__(self, nginx, name):
        context = ssl.create_default_context(cafile=f"{nginx.dir}/ca.pem")
        context.check_hostname = False
        self.inbox, self.outbox = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.inbox, self.outbox, server_hostname=name)
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.do_handshake()
        self.hello = self.outbox.read()
        self.sock = None

    def drive(self, action):
        """The value of the action, with the bytes that it needs and makes."""
        while True:
            try:
                value = action()
                self.sock.sendall(self.outbox.read())
                return value
            except ssl.SSLWantReadError:
                self.sock.sendall(self.outbox.read())
                data = self.sock.recv(65536)
                assert data, "the stream ended in the handshake"
                self.inbox.write(data)

    def greet(self, sock):
        """The rest of the handshake; the name in the server's certificate."""
        self.sock = sock
        self.drive(self.tls.do_handshake)
        return dict(pair for part in self.tls.getpeercert()["subject"] for pair in part)["commonName"]

    def get(self, path):
        self.drive(lambda: self.tls.write(f"GET {path} HTTP/1.0\r\n\r\n".encode()))
        answer = b""
        while part := self.drive(self._read):
            answer += part
        return answer.decode()

    def _read(self):
        try:
            return self.tls.read(65536)
        except ssl.SSLZeroReturnError:
            return b""

    def close(self):
        self.sock.close()


def handshake(sock, nginx, name):
    client = Tls(nginx, name)
    sock.sendall(client.hello)
    client.greet(sock)
    return client


@pytest.mark.modes("relay", "sockmap", "parser")
@pytest.mark.parametrize("size", [1, 100])
def test_hello_in_small_segments_is_routed_and_the_handshake_is_intact(launch, nginx, size):
    """The daemon looks at every prefix; nothing reaches a server before the name is known."""
    scene = launch(tls(nginx), gate=True)
    cases = {name: (Tls(nginx, name), scene.open(), backend) for name, backend in NAMES}
    longest = max(len(client.hello) for client, _, _ in cases.values())
    for at in range(0, longest, size):
        for client, sock, _ in cases.values():
            if at + size < len(client.hello):
                sock.send(client.hello[at:at + size])
        scene.pass_gate()
    assert scene.metrics().total("shunt_server_sessions_total") == scene.metrics().total(
        "shunt_server_sessions_total", backend="gate")
    for name, (client, sock, backend) in cases.items():
        sock.send(client.hello[(len(client.hello) - 1) // size * size:])
        assert client.greet(sock) == backend, name
        assert client.get("/who").endswith(f"{backend} {name}\n")
        client.close()


def seed(name):
    with open(os.path.join(SEEDS, "fuzz_hello.in", name), "rb") as file:
        return file.read()


HELLOS = {  # seed of the fuzzer: the route that takes it
    "openssl4-mlkem768": "exact", "openssl4-mlkem1024": "wild", "openssl4-default": "exact", "grease": "grease",
    "max-size": "max", "openssl-records": "records", "records-tiny": "split", "trailing-dot": "dot", "curl": "default",
    "openssl-tls10": "default", "openssl-noname": "default", "no-extensions": "default", "refused-bad-name": "default",
    "refused-http": "default", "refused-sslv2": "default", "refused-too-long": "default",
    "refused-two-names": "default",
}
PATTERNS = {"exact": "pq.example.org", "wild": "*.pq.example.org", "grease": "grease.example.org",
            "max": "max.example.org", "records": "records.example.org", "split": "split.example.org",
            "dot": "dot.example.org"}


def recorded(cast_of, **listener):
    """Sections with a server of the test for each pattern."""
    servers = {name: cast_of(name)[0] for name in [*PATTERNS, "default"]}
    sections = front(servers["default"], {**listener, "route": [f"{PATTERNS[name]} {name}" for name in PATTERNS]})
    for name in PATTERNS:
        sections[f"backend {name}"] = {"server": servers[name].line(), "check": "off"}
    return servers, sections


def taken(servers, client, scene, hello):
    """(which server got the connection, its end); the hello came there exactly."""
    name = wait_until("a server", lambda: [name for name in servers if not servers[name].is_untouched()])[0]
    sock = servers[name].accept()
    got = b""
    while len(got) < len(hello):
        part = sock.recv(len(hello) - len(got))
        assert part, f"the stream ended in the hello after {len(got)} bytes"
        got += part
    assert got == hello, "the hello was changed"
    return name, scene.server(client, sock)


@pytest.mark.modes("relay", "sockmap", "parser")
@pytest.mark.parametrize("size", [100, 1400, None])
def test_hello_of_any_kind_is_routed_and_comes_out_exact(launch, cast_of, size):
    """Post-quantum sizes, 16 KiB, several records, what is no TLS: in segments, with payload behind it."""
    servers, sections = recorded(cast_of)
    scene = launch(sections, gate=True)
    if scene.mode.parser == "stream":
        scene.share = 0.5
    for name, backend in HELLOS.items():
        hello = seed(name)
        sock = scene.open()
        step = size or len(hello)
        last = (len(hello) - 1) // step * step
        for at in range(0, last, step):
            sock.send(hello[at:at + step])
            if at % (step * 16) == 0:
                scene.pass_gate()
        client = scene.client(sock, hello[last:], early=500)
        found, server = taken(servers, client, scene, hello)
        assert found == backend, name
        talk(client, server, 20 * KB)


def test_hello_behind_a_proxy_header_is_routed(launch, cast_of):
    """Header and hello in any pieces; the server is told the client, and then the hello."""
    servers, sections = recorded(cast_of, **ON)
    for name in servers:
        sections["backend app" if name == "default" else f"backend {name}"]["send_proxy"] = "v2"
    scene = launch(sections, gate=True)
    hello = seed("openssl4-mlkem1024")
    header = headers.v2(WHO, WHERE, headers.tlv(headers.UNIQUE_ID, b"7"), crc=True)
    whole = header + hello
    for cut in (0, 1, len(header) - 1, len(header), len(header) + 1, len(header) + 5, len(whole) - 1):
        sock = scene.open()
        sock.send(whole[:cut])
        scene.pass_gate()
        assert servers["wild"].is_untouched(), f"connected after {cut} bytes"
        client = scene.client(sock, whole[cut:], early=100)
        accepted = servers["wild"].accept()
        told = headers.read(accepted)
        assert told.ends == (WHO, WHERE) and told.tlvs == [(headers.UNIQUE_ID, b"7")]
        got = accepted.recv(len(hello), socket.MSG_WAITALL)
        assert got == hello
        talk(client, scene.server(client, accepted))


def test_curl_through_haproxy_and_routes_is_named_in_the_log_of_nginx(launch, nginx):
    """client - HAProxy - shunt by server name - nginx with TLS behind the PROXY header."""
    sections = tls(nginx, ON)
    for name, version in (("git", "v1"), ("apps", "v2"), ("web", "v2")):
        sections[f"backend {name}"].update(server=shown(("127.0.0.1", nginx.proxied[name])), send_proxy=version)
    scene = launch(sections)
    with contextlib.closing(HaProxy({"front": ("", f"{shown(scene.address())} send-proxy-v2")})) as haproxy:
        for number, (name, backend) in enumerate((("git.example.org", "git"), ("b.apps.example.org", "apps"),
                                                  ("web.example.org", "web"))):
            path, source = f"/who?{scene.mode.name}", f"127.0.7.{number + 1}"
            answer = curl(nginx, ("127.0.0.1", haproxy.ports["front"]), name, path, "--interface", source)
            assert answer == f"{backend} {name}\n"
            lines = wait_until("the line in nginx's log", lambda: [
                line for line in nginx.access(backend) if line[3] == path])
            assert [lines[-1][0], lines[-1][2]] == [source, name]


# ---- what has no name, and what never comes


def test_client_that_is_not_tls_gets_the_listeners_backend_at_its_first_byte(launch, cast_of):
    servers, sections = recorded(cast_of, handshake_timeout="30s")
    scene = launch(sections)
    for start in (b"G", b"GET / HTTP/1.1\r\n\r\n", b"SSH-2.0-x\r\n", b"\x16\x02", bytes(40), b"\x80\x2e\x01\x03\x01"):
        client = scene.client(scene.open(), start)
        name, server = taken(servers, client, scene, start)
        assert name == "default", start
        talk(client, server)


def test_hello_that_ends_too_early_goes_to_the_listeners_backend_with_its_end(launch, cast_of):
    servers, sections = recorded(cast_of, handshake_timeout="30s")
    scene = launch(sections)
    scene.allow(fallbacks={"half_closed"})
    scene.share = 0
    hello = seed("openssl4-mlkem768")
    for length in (0, 1, 5, 700, len(hello) - 1):
        client = scene.client(scene.open(), hello[:length]).fin()
        name, server = taken(servers, client, scene, hello[:length])
        assert name == "default"
        server.expect_eof(0)
        server.send(1000)
        server.fin()
        client.expect_eof(1000)


def test_hello_that_is_too_slow_meets_handshake_timeout(launch, cast_of):
    """Silence, a hello that lacks a byte, and one that trickles behind a PROXY header: both have one time."""
    servers, sections = recorded(cast_of, handshake_timeout="500ms")
    sections["listener proxied"] = {**sections["listener front"], **ON}
    scene = launch(sections)
    scene.allow(ends={"handshake_timeout"})
    hello = seed("curl")
    silent, partial, late = scene.open(), scene.open(), scene.open("proxied")
    opened = time.monotonic()
    partial.send(hello[:-1])
    took = {}

    def ends(name, sock):
        assert is_reset(sock), f"{name}: an orderly end"
        took[name] = time.monotonic() - opened

    waits = [Task(ends, "silent", silent), Task(ends, "partial", partial), Task(ends, "late", late)]
    time.sleep(0.3)
    late.send(headers.v1(WHO, WHERE) + hello[:-1])
    together(*waits)
    for name, seconds in took.items():
        assert 0.48 <= seconds <= 0.5 + 0.25 * SCALE, f"{name}: handshake_timeout is 500 ms, it took {seconds:.2f} s"
    assert scene.ended("handshake_timeout") == 3
    assert all(server.is_untouched() for server in servers.values())


def test_client_that_waits_for_the_server_to_speak_meets_handshake_timeout(launch, cast_of):
    servers, sections = recorded(cast_of, handshake_timeout="300ms")
    scene = launch(sections)
    scene.allow(ends={"handshake_timeout"})
    assert is_reset(scene.open(), timeout=5 * SCALE)
    assert scene.wait_ended("handshake_timeout", 1)
    assert all(server.is_untouched() for server in servers.values())


def test_session_with_a_name_outlives_handshake_timeout(launch, cast_of):
    """The timer is off once the server is chosen."""
    servers, sections = recorded(cast_of, handshake_timeout="300ms")
    scene = launch(sections)
    hello = seed("openssl4-default")
    client = scene.client(scene.open(), hello)
    name, server = taken(servers, client, scene, hello)
    assert name == "exact"
    client.expect_silence(0.6)
    server.expect_silence(0.01)
    talk(client, server)
