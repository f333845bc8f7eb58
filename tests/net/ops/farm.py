# SPDX-License-Identifier: BSD-2-Clause
"""Servers that say who they are, echo, and misbehave on request; one thread serves them all.

A server greets each connection with its name (GREETING bytes) and sends back what it receives. A connection that
begins with PING is a health check: it is answered by the server's script.
"""

import collections
import contextlib
import select
import socket
import struct
import threading
import time

from peer import TIMEOUT, Stuck, wait_until
from stage import PORTS, shown

GREETING = 8
PING, PONG, SORRY = b"PING\n", b"+PONG\n", b"-SORRY\n"
CHECK = 'send_expect "PING\\n" "+PONG"'


class Conn:
    def __init__(self, server, sock):
        self.server, self.sock = server, sock
        self.received = 0
        self.pending = b""
        self.finished = False  # its FIN has come


class Server:
    """One listening address. What it does can be changed at any time."""

    def __init__(self, farm, name, listening):
        self.farm, self.name, self.sock = farm, name, listening
        self.address = listening.getsockname()[:2]
        self.conns = set()
        self.accepted = 0  # connections, health checks left out once they have shown what they are
        self.most = 0  # at the same time
        self.script = collections.deque()  # answers to the next checks; after that `healthy`
        self.healthy = True
        self.answers = []  # given to checks
        self.resets = False  # accept, then reset
        self.greets = True

    def __str__(self):
        return f"{self.name}: accepted {self.accepted}, open {len(self.conns)}"

    @property
    def to(self):
        return shown(self.address)

    def line(self, options=""):
        """For the configuration."""
        return f"{self.to} name={self.name} {options}".strip()

    def shut(self):
        """Nobody listens there any more: connections are refused. Open ones go on."""
        self.farm.call(lambda: self.farm.unlisten(self))

    def open(self):
        self.farm.call(lambda: self.farm.listen(self))

    def drop_all(self, abort=True):
        """Ends every connection from this side."""
        self.farm.call(lambda: [self.farm.drop(conn, abort) for conn in list(self.conns)])


class Farm:
    def __init__(self, network):
        self.network = network
        self.servers = []
        self.socks = {}  # fd -> Server or Conn
        self.epoll = select.epoll()
        self.wake_out, self.wake_in = socket.socketpair()
        self.wake_in.setblocking(False)
        self.epoll.register(self.wake_in, select.EPOLLIN)
        self.calls = collections.deque()
        self.running = True
        self.thread = threading.Thread(target=self._run, daemon=True, name="farm")
        self.thread.start()

    # ---- for tests

    def add(self, name, listening=None):
        server = Server(self, name, listening or self.network.listen())
        self.servers.append(server)
        self.call(lambda: self._watch(server, server.sock))
        return server

    def call(self, function):
        """Runs it in the farm's thread; its value."""
        done, result = threading.Event(), []

        def run():
            try:
                result.append((function(), None))
            except BaseException as error:
                result.append((None, error))
            done.set()

        self.calls.append(run)
        self.wake_out.send(b"x")
        if not done.wait(TIMEOUT):
            raise Stuck("the farm does not answer")
        if result[0][1]:
            raise result[0][1]
        return result[0][0]

    def close(self):
        self.running = False
        self.wake_out.send(b"x")
        self.thread.join(TIMEOUT)
        for owner in list(self.socks.values()):
            with contextlib.suppress(OSError):
                owner.sock.close()
        self.epoll.close()
        self.wake_in.close()
        self.wake_out.close()

    # ---- in the thread

    def _watch(self, owner, sock):
        sock.setblocking(False)
        self.socks[sock.fileno()] = owner
        self.epoll.register(sock, select.EPOLLIN)

    def unlisten(self, server):
        if server.sock:
            self.socks.pop(server.sock.fileno())
            self.epoll.unregister(server.sock)
            server.sock.close()
            server.sock = None

    def listen(self, server):
        assert not server.sock, f"{server.name} listens already"
        host, port = server.address
        topology = self.network.topology
        with topology.server.entered() if topology else contextlib.nullcontext():
            server.sock = PORTS.listen(host, port)
        self._watch(server, server.sock)

    def drop(self, conn, abort=False):
        if conn not in conn.server.conns:
            return
        conn.server.conns.discard(conn)
        self.socks.pop(conn.sock.fileno(), None)
        with contextlib.suppress(OSError):
            self.epoll.unregister(conn.sock)
        if abort:
            conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        conn.sock.close()

    def _run(self):
        while self.running:
            for fd, events in self.epoll.poll(1):
                if fd == self.wake_in.fileno():
                    with contextlib.suppress(BlockingIOError):
                        self.wake_in.recv(4096)
                    continue
                owner = self.socks.get(fd)
                if isinstance(owner, Server):
                    self._accept(owner)
                elif owner:
                    try:
                        self._serve(owner)
                    except OSError:
                        self.drop(owner)
            while self.calls:
                self.calls.popleft()()

    def _accept(self, server):
        with contextlib.suppress(BlockingIOError, ConnectionAbortedError):
            while server.sock:
                sock = server.sock.accept()[0]
                if server.resets:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    sock.close()
                    server.accepted += 1
                    continue
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                conn = Conn(server, sock)
                server.conns.add(conn)
                server.accepted += 1
                server.most = max(server.most, len(server.conns))
                self._watch(conn, sock)
                if server.greets:
                    conn.pending += server.name.encode().ljust(GREETING)
                    with contextlib.suppress(OSError):
                        self._flush(conn)

    def _flush(self, conn):
        while conn.pending:
            try:
                count = conn.sock.send(conn.pending)
            except BlockingIOError:
                break
            conn.pending = conn.pending[count:]
        wants = 0 if conn.finished else select.EPOLLIN
        self.epoll.modify(conn.sock, wants | (select.EPOLLOUT if conn.pending else 0))
        if conn.finished and not conn.pending:
            self.drop(conn)

    def _serve(self, conn):
        data = None
        if not conn.finished and len(conn.pending) < 1 << 20:
            with contextlib.suppress(BlockingIOError):
                data = conn.sock.recv(1 << 18)
        if data == b"":
            conn.finished = True
        elif data and not conn.received and data == PING:
            self._answer_check(conn)
            return
        elif data:
            conn.received += len(data)
            conn.pending += data
        self._flush(conn)

    def _answer_check(self, conn):
        server = conn.server
        good = server.script.popleft() if server.script else server.healthy
        server.answers.append(good)
        server.accepted -= 1
        conn.sock.send(PONG if good else SORRY)
        server.conns.discard(conn)
        self.socks.pop(conn.sock.fileno(), None)
        self.epoll.unregister(conn.sock)
        conn.sock.close()


class Hole:
    """An address whose backlog is full: it neither accepts nor refuses."""

    def __init__(self):
        self.sock = PORTS.listen(backlog=0)
        self.address = self.sock.getsockname()
        self.fillers = []
        for _ in range(3):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(self.address)
            self.fillers.append(filler)
        poller = select.poll()
        poller.register(self.fillers[0], select.POLLOUT)
        assert poller.poll(1000), "the first filler is connected"
        self.name = "hole"

    def line(self, options=""):
        return f"{shown(self.address)} name={self.name} {options}".strip()

    def close(self):
        for filler in self.fillers:
            filler.close()
        self.sock.close()


def wait_answers(server, count, timeout=TIMEOUT):
    wait_until(f"{server.name} has answered {count} checks", lambda: len(server.answers) >= count, timeout)


def until(seconds):
    """True until so much time has passed; for loops that do something all the while."""
    end = time.monotonic() + seconds
    return lambda: time.monotonic() < end
