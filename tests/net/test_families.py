# SPDX-License-Identifier: BSD-2-Clause
"""IPv4, IPv6 and UNIX sockets on either side."""

import os
import shutil
import socket
import tempfile

import pytest

from daemon import Daemon
from peer import Task, together
from stage import LOOPBACK, PORTS, Stage, shown

KB, MB = 1024, 1024 * 1024
FRONTS = {"ipv4": "127.0.0.1:0", "ipv6": "[::1]:0", "dual": "*:0", "unix": "unix:{dir}/front.sock"}


def server_socket(kind, folder):
    if kind != "unix":
        sock = PORTS.listen({"ipv4": "127.0.0.1", "ipv6": "::1"}[kind])
        return sock, shown(sock.getsockname())
    path = os.path.join(folder, "server.sock")
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(path)
    os.chmod(path, 0o777)
    sock.listen(100)
    return sock, "unix:" + path


class FamilyStage(Stage):
    """A stage whose client may be of any family."""

    host = None

    def connect(self, timeout=30, rcvbuf=None):
        address = self.address
        if isinstance(address, str):
            sock = socket.socket(socket.AF_UNIX)
        else:
            address = (self.host or address[0], address[1])
            sock = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
        sock.settimeout(timeout)
        sock.connect(address)
        return sock


@pytest.fixture
def family_stage(request, cast, mode):
    folder = tempfile.mkdtemp(prefix="shunt-test-")
    os.chmod(folder, 0o755)
    request.node.stages = stages = []

    def launch(front, back):
        listener, to = server_socket(back, folder)
        daemon = Daemon([(FRONTS[front], to)], path=mode.path, parser=mode.parser).start()
        stages.append(FamilyStage(mode, cast.network("lo"), daemon, listener))
        return stages[-1]

    yield launch
    try:
        if not getattr(request.node, "case_failed", True):
            for stage in stages:
                stage.finish()
    finally:
        for stage in stages:
            stage.close()
            stage.listener.close()
            stage.daemon.remove()
        shutil.rmtree(folder)


def conversation(stage):
    """Small and large messages, half-close each way."""
    client, server = stage.settled_pair()
    for _ in range(20):
        client.send(500)
        server.read(500)
        server.send(700)
        client.read(700)
    together(Task(client.send, 4 * MB), Task(server.read, 4 * MB), Task(server.send, 5 * MB), Task(client.read, 5 * MB))
    client.fin()
    server.expect_eof(100 + 20 * 500 + 4 * MB)
    together(Task(lambda: server.send(3 * MB).fin()), Task(client.expect_eof, 100 + 20 * 700 + 8 * MB))
    client, server = stage.settled_pair()
    together(Task(lambda: server.send(3 * MB).fin()), Task(client.expect_eof, 100 + 3 * MB))
    together(Task(lambda: client.send(2 * MB).fin()), Task(server.expect_eof, 100 + 2 * MB))
    return {"c2s": 200 + 20 * 500 + 6 * MB, "s2c": 200 + 20 * 700 + 11 * MB}


@pytest.mark.parametrize("back", ["ipv4", "ipv6"])
@pytest.mark.parametrize("front", ["ipv4", "ipv6"])
@pytest.mark.modes(*LOOPBACK)
def test_ip_families_mix(family_stage, front, back):
    stage = family_stage(front, back)
    stage.prove(**conversation(stage))


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.modes(*LOOPBACK)
def test_star_listens_on_both_families(family_stage, host):
    stage = family_stage("dual", "ipv4")
    stage.host = host
    stage.prove(**conversation(stage))


@pytest.mark.parametrize("front, back", [("unix", "ipv4"), ("ipv4", "unix"), ("ipv6", "unix"), ("unix", "unix")])
@pytest.mark.modes(*LOOPBACK)
def test_unix_sockets_are_relayed(family_stage, front, back):
    stage = family_stage(front, back)
    stage.allow(fallbacks={"unix"})
    delta = stage.prove(**conversation(stage), share=0)
    moved = stage.bytes(delta)
    assert moved["c2s", "sockmap"] == moved["s2c", "sockmap"] == 0, f"a UNIX socket on the kernel path: {moved}"
    assert delta.total("shunt_fallbacks_total", reason="unix") == (2 if stage.mode.in_kernel else 0)


@pytest.mark.parametrize("front, back", [("ipv6", "ipv6"), ("unix", "ipv4"), ("ipv4", "unix")])
@pytest.mark.modes(*LOOPBACK)
def test_lazy_reader_and_fin_on_every_family(family_stage, front, back):
    """Bytes wait in the proxy when the FIN comes."""
    stage = family_stage(front, back)
    stage.allow(fallbacks={"unix"})
    for way in (0, 1):
        pair = stage.settled_pair()
        sender, reader = pair[way], pair[1 - way]
        together(Task(lambda: sender.send(6 * MB).fin()),
                 Task(reader.expect_eof, 100 + 6 * MB, chunk=128 * KB, pause=lambda: 0.003))
        reader.fin()
        sender.expect_eof(100)
    stage.prove(c2s=200 + 6 * MB, s2c=200 + 6 * MB, share=0)
