# SPDX-License-Identifier: BSD-2-Clause
"""A daemon between clients and servers that the test plays itself, byte by byte."""

import contextlib
import select
import socket

import pattern
from ops.scene import Scene as Daemonic
from peer import TIMEOUT, Peer, Stuck
from stage import PORTS, shown
from who import headers

NOBODY = {"check": "off"}


class Server:
    """A listening address; connections wait until the test takes them."""

    def __init__(self, name, host="127.0.0.1", rcvbuf=None):
        self.name = name
        self.sock = PORTS.listen(host)
        if rcvbuf:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        self.address = self.sock.getsockname()[:2]
        self.to = shown(self.address)

    def __str__(self):
        return f"server {self.name} at {self.to}"

    def line(self, options=""):
        return f"{self.to} name={self.name} {options}".strip()

    def accept(self, timeout=TIMEOUT):
        """A blocking socket with a time limit."""
        self.sock.settimeout(timeout)
        try:
            sock = self.sock.accept()[0]
        except TimeoutError:
            raise Stuck(f"no connection arrived at {self}") from None
        sock.settimeout(timeout)
        return sock

    def is_untouched(self):
        """Is there no connection that the test has not taken?"""
        poller = select.poll()
        poller.register(self.sock, select.POLLIN)
        return not poller.poll(0)

    def shut(self):
        self.sock.close()

    def close(self):
        self.sock.close()


class Cast:
    def __init__(self):
        self.servers = []

    def add(self, name, **options):
        self.servers.append(Server(name, **options))
        return self.servers[-1]

    def close(self):
        for server in self.servers:
            server.close()


class Scene(Daemonic):
    """Its peers are those of the test; clients() of its parent are not used."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.seed = 0
        self.gate = None

    def open(self, listener="front", source=None, to=None, rcvbuf=None):
        """A client socket, blocking with a time limit."""
        to = to or self.address(listener)
        family = socket.AF_UNIX if isinstance(to, str) else socket.AF_INET6 if ":" in to[0] else socket.AF_INET
        sock = socket.socket(family)
        if rcvbuf:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        if source:
            sock.bind((source, 0))
        sock.settimeout(TIMEOUT)
        try:
            sock.connect(to)
        except BaseException:
            sock.close()
            raise
        if family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.clients.append(sock)
        return sock

    def client(self, sock, start=b"", early=0):
        """Sends `start` and the first `early` bytes of its stream in one piece; the client."""
        self.seed += 2
        peer = Peer(sock, f"client {self.seed // 2}", self.seed, self.seed + 1)
        data = start + bytes(pattern.piece(self.seed, 0, early))
        if data:
            assert sock.send(data) == len(data)
        peer.sent = early
        self.clients.append(peer)
        return peer

    def server(self, client, sock):
        """The other end of the stream of that client."""
        peer = Peer(sock, client.name.replace("client", "server"), client.into, client.out)
        self.clients.append(peer)
        return peer

    def pass_gate(self):
        """When it returns, the (only) thread of the daemon has seen what was sent before.

        A session of a listener of its own, twice: the second one is accepted in a later turn of the loop."""
        for _ in range(2):
            with self.open("gate"), self.gate.accept():
                pass

    def finish(self):
        for client in self.clients:
            with contextlib.suppress(OSError):
                client.close()
        super().finish()


def talk(client, server, count=3000):
    """Bytes both ways, whatever was sent already included; then the orderly end, and both streams were exact."""
    client.send(count)
    server.send(count)
    server.read(client.sent - server.received)
    client.read(server.sent - client.received)
    client.fin()
    server.expect_eof(client.sent)
    server.fin()
    client.expect_eof(server.sent)
    client.close()
    server.close()


def is_reset(sock, timeout=TIMEOUT):
    """The daemon has ended the connection with a reset, and no byte came before. False: an orderly end."""
    sock.settimeout(timeout)
    try:
        data = sock.recv(4096)
    except ConnectionResetError:
        return True
    except TimeoutError:
        raise Stuck("the connection is still there") from None
    assert not data, f"the daemon said {data!r}"
    return False


def front(server, listener=(), backend=(), top=(), bind="127.0.0.1:0", **more):
    """Sections: listener front, backend app; `more` are other sections, _ for a space in their names."""
    servers = server if isinstance(server, (list, tuple)) else [server]
    sections = {
        "global": dict(top),
        "listener front": {"bind": bind, "backend": "app", **dict(listener)},
        "backend app": {"server": [each.line() for each in servers], **NOBODY, **dict(backend)},
    }
    sections.update({name.replace("_", " ", 1): keys for name, keys in more.items()})
    return sections


__all__ = ["Cast", "Scene", "Server", "front", "headers", "is_reset", "talk"]
