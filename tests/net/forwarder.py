#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""A plain, slow and correct TCP forwarder with shuntd's command line, log lines and metrics.

It stands in for shuntd with SHUNT_DIRECT=1, so that a mistake in a test is told from a mistake in the daemon.
FORWARDER_FAULT=<name> makes it wrong on purpose, which has to make tests fail:
  repeat, lose, reorder        bytes of c2s, once, after 1 MB
  clean-abort                  an abort is passed on as a FIN
  early-fin                    a FIN is passed on before the bytes before it
  no-half-close                a FIN ends both directions
  unbounded                    no limit on what is queued
  coupled                      a stalled direction stops the other one
  slow-wake                    a direction that stalled sleeps 100 ms before it goes on
  silent-abort                 an abort is not passed on at all
"""

import argparse
import errno
import mmap
import os
import select
import signal
import socket
import struct
import sys
import time

FAULT = os.environ.get("FORWARDER_FAULT", "")
LIMIT = 512 * 1024
ENDS = ("complete client_abort server_abort connect_refused connect_timeout connect_failed no_descriptor drain"
        " worker_died").split()
LINGER0 = struct.pack("ii", 1, 0)


def log(text):
    os.write(2, f"shuntd[{os.getpid()}]: {text}\n".encode())


def seconds(text):
    for unit, factor in (("ms", 0.001), ("s", 1), ("m", 60), ("h", 3600)):
        if text.endswith(unit):
            return float(text[: -len(unit)]) * factor
    return float(text)


class Settings:
    def __init__(self, argv):
        parser = argparse.ArgumentParser()
        parser.add_argument("-c", "--config")
        parser.add_argument("--listen", action="append", default=[])
        parser.add_argument("--to", action="append", default=[])
        parser.add_argument("--path", default="relay")
        parser.add_argument("--parser", default="none")
        parser.add_argument("--threads")
        parser.add_argument("--user")
        parser.add_argument("--stats", action="append", default=[])
        args = parser.parse_args(argv)
        self.path, self.stats = args.path, args.stats
        self.drain = 30.0
        self.listeners = []  # (name, [bind], server, connect timeout, retries)
        for index, (listen, to) in enumerate(zip(args.listen, args.to)):
            self.listeners.append((f"listener{index + 1}", [listen], to, 5.0, 2))
        if args.config:
            self.read(args.config)
        self.path = {"auto": "sockmap"}.get(self.path, self.path)

    def read(self, path):
        sections, keys = {}, None
        for line in open(path):
            line = line.split(" ;")[0].strip()
            if line.startswith("["):
                keys = sections.setdefault(line[1:-1], {})
            elif line and not line.startswith((";", "#")):
                key, value = (word.strip() for word in line.split("=", 1))
                keys.setdefault(key, []).append(value)
        top = sections.get("global", {})
        self.path = top.get("path", ["relay"])[0]
        self.stats += top.get("stats", [])
        self.drain = seconds(top.get("drain_timeout", ["30s"])[0])
        for name, keys in sections.items():
            if name.startswith("listener "):
                back = sections["backend " + keys["backend"][0]]
                self.listeners.append((name.split()[1], keys["bind"], back["server"][0].split()[0],
                                       seconds(back.get("connect_timeout", ["5s"])[0]),
                                       int(back.get("retries", ["2"])[0])))


class Counters:
    """In memory that the supervisor and every worker share."""

    def __init__(self, settings):
        self.names = ["shunt_worker_restarts_total", 'shunt_fallbacks_total{reason="unix"}']
        for name, *_ in settings.listeners:
            self.names += [f'shunt_listener_sessions_total{{listener="{name}"}}',
                           f'shunt_listener_sessions_active{{listener="{name}"}}',
                           f'shunt_overflows_total{{listener="{name}"}}']
            self.names += [f'shunt_bytes_total{{listener="{name}",direction="{way}",path="{path}"}}'
                           for way in ("c2s", "s2c") for path in ("relay", "sockmap")]
            self.names += [f'shunt_sessions_ended_total{{listener="{name}",reason="{end}"}}' for end in ENDS]
        self.index = {name: 8 * i for i, name in enumerate(self.names)}
        self.memory = mmap.mmap(-1, 8 * len(self.names))

    def add(self, name, count):
        at = self.index[name]
        struct.pack_into("q", self.memory, at, struct.unpack_from("q", self.memory, at)[0] + count)

    def text(self):
        return "".join(f"{name} {struct.unpack_from('q', self.memory, at)[0]}\n" for name, at in self.index.items())

    def worker_died(self):
        for name, at in self.index.items():
            if name.startswith("shunt_listener_sessions_active"):
                struct.pack_into("q", self.memory, at, 0)


def family_and_address(text):
    if text.startswith("unix:"):
        return socket.AF_UNIX, text[5:]
    host, port = text.rsplit(":", 1)
    if host == "*":
        return socket.AF_INET6, ("::", int(port))
    if host.startswith("["):
        return socket.AF_INET6, (host[1:-1], int(port))
    return socket.AF_INET, (host, int(port))


def bind(text, backlog=4096):
    family, address = family_and_address(text)
    sock = socket.socket(family)
    if family == socket.AF_UNIX:
        if os.path.exists(address):
            os.unlink(address)
    else:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not text.startswith("*"))
    sock.bind(address)
    if family == socket.AF_UNIX:
        os.chmod(address, 0o777)
    sock.listen(backlog)
    sock.setblocking(False)
    if family == socket.AF_UNIX:
        return sock, text
    host, port = sock.getsockname()[:2]
    return sock, f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Flow:
    def __init__(self, source, target, way):
        self.source, self.target, self.way = source, target, way
        self.data = bytearray()
        self.eof = self.shut = self.waiting = False
        self.total = 0
        self.hold = b""
        self.wake_at = 0


class Session:
    def __init__(self, worker, listener, client):
        self.worker, self.listener, self.client = worker, listener, client
        self.name, _, self.to, self.timeout, self.retries = listener
        self.connecting, self.ended = True, False
        self.count("shunt_listener_sessions_total")
        self.count("shunt_listener_sessions_active")
        self.connect()

    def count(self, name, number=1, labels=""):
        self.worker.counters.add(f'{name}{{listener="{self.name}"{labels}}}', number)

    def connect(self):
        family, address = family_and_address(self.to)
        try:
            self.server = socket.socket(family)
        except OSError:
            self.server = None
            return self.end("no_descriptor", True)
        self.server.setblocking(False)
        self.deadline = time.monotonic() + self.timeout
        for sock in (self.client, self.server):
            if sock.family == socket.AF_UNIX:
                continue
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER0)  # a killed worker resets
        self.flows = [Flow(self.client, self.server, "c2s"), Flow(self.server, self.client, "s2c")]
        code = self.server.connect_ex(address)
        if code not in (0, errno.EINPROGRESS):
            return self.failed(code)
        self.worker.watch(self.client, self, 0)
        self.worker.watch(self.server, self, select.EPOLLOUT)

    def failed(self, code):
        self.worker.unwatch(self.server)
        self.server.close()
        self.server = None
        if self.retries and code == errno.ECONNREFUSED:
            self.retries -= 1
            return self.connect()
        reason = {errno.ECONNREFUSED: "connect_refused", errno.ETIMEDOUT: "connect_timeout"}
        self.end(reason.get(code, "connect_failed"), True)

    def event(self, sock, events):
        if self.connecting:
            if sock is self.client:
                return self.end("client_abort", True)
            code = self.server.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code:
                return self.failed(code)
            self.connecting = False
        self.run()

    def run(self):
        try:
            for flow in self.flows:
                self.move(flow)
            for sock in (self.client, self.server):
                code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if code:
                    self.culprit = sock
                    raise OSError(code, "")
        except OSError as error:
            if error.errno not in (errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN):
                raise
            if FAULT == "silent-abort":
                return self.worker.unwatch(self.culprit)
            return self.end("client_abort" if self.culprit is self.client else "server_abort", True)
        if all(flow.shut for flow in self.flows):
            return self.end("complete", False)
        self.rewatch()

    def move(self, flow):
        if flow.shut or flow.wake_at > time.monotonic():
            return
        while True:
            moved = False
            room = FAULT == "unbounded" or len(flow.data) < LIMIT
            if FAULT == "coupled" and any(len(other.data) >= LIMIT for other in self.flows):
                room = False
            if not flow.eof and room:
                moved = self.fill(flow)
            while flow.data:
                self.culprit = flow.target
                try:
                    done = flow.target.send(memoryview(flow.data)[:LIMIT])
                except BlockingIOError:
                    break
                if FAULT == "slow-wake" and flow.waiting:
                    flow.wake_at = time.monotonic() + 0.1
                flow.waiting = False
                moved = True
                del flow.data[:done]
            if flow.data and not flow.waiting:
                flow.waiting = True
                self.count("shunt_overflows_total")
            if not moved:
                break
        if flow.eof and (not flow.data or FAULT == "early-fin"):
            self.culprit = flow.target
            flow.target.shutdown(socket.SHUT_WR)
            flow.shut = True
            if FAULT == "no-half-close":
                for other in self.flows:
                    other.shut = True

    def fill(self, flow):
        self.culprit = flow.source
        try:
            data = flow.source.recv(262144)
        except BlockingIOError:
            return False
        if not data:
            flow.eof = True
            return False
        flow.total += len(data)
        self.count("shunt_bytes_total", len(data), f',direction="{flow.way}",path="{self.worker.path(self)}"')
        if flow.way == "c2s" and flow.total > 1000000 and FAULT in ("repeat", "lose", "reorder") and not flow.hold:
            if FAULT == "repeat":
                data += data[-100:]
            elif FAULT == "lose":
                data = data[:-100]
            else:
                data = data[-100:] + data[:-100]
            flow.hold = b"done"
        flow.data += data
        return True

    def rewatch(self):
        stalled = any(len(flow.data) >= LIMIT for flow in self.flows)
        for sock in (self.client, self.server):
            events = 0
            for flow in self.flows:
                full = len(flow.data) >= LIMIT and FAULT != "unbounded" or FAULT == "coupled" and stalled
                if flow.source is sock and not flow.eof and not full:
                    events |= select.EPOLLIN
                if flow.target is sock and flow.data and not flow.shut:
                    if flow.wake_at > time.monotonic():
                        self.worker.sleepers.add(self)
                    else:
                        events |= select.EPOLLOUT
            self.worker.watch(sock, self, events)

    def end(self, reason, abort):
        if self.ended:
            return
        self.ended = True
        for sock in filter(None, (self.client, self.server)):
            self.worker.unwatch(sock)
            hard = abort and FAULT != "clean-abort"
            if sock.family != socket.AF_UNIX:
                linger = LINGER0 if hard else struct.pack("ii", 0, 0)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            sock.close()
        self.worker.sessions.discard(self)
        self.count("shunt_listener_sessions_active", -1)
        self.count("shunt_sessions_ended_total", 1, f',reason="{reason}"')


class Worker:
    def __init__(self, settings, counters, listeners, stats):
        self.settings, self.counters = settings, counters
        self.listeners, self.stats = listeners, stats
        self.epoll = select.epoll()
        self.watched, self.sessions, self.sleepers = {}, set(), set()
        self.draining = None
        for sock, _ in listeners:
            self.watch(sock, "accept", select.EPOLLIN)
        for sock in stats:
            self.watch(sock, "stats", select.EPOLLIN)
        signal.signal(signal.SIGTERM, self.term)
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def term(self, *_):
        self.draining = time.monotonic() + (0 if self.draining else self.settings.drain)
        for sock, _ in self.listeners:
            self.unwatch(sock)
            sock.close()
        self.listeners = []

    def path(self, session):
        unix = socket.AF_UNIX in (session.client.family, session.server.family)
        return "relay" if unix else self.settings.path

    def watch(self, sock, owner, events):
        known = self.watched.get(sock.fileno())
        if known is None:
            self.epoll.register(sock, events)
        elif known[2] != events:
            self.epoll.modify(sock, events)
        self.watched[sock.fileno()] = (sock, owner, events)

    def unwatch(self, sock):
        if sock.fileno() >= 0 and self.watched.pop(sock.fileno(), None):
            self.epoll.unregister(sock)

    def serve(self):
        parent = os.getppid()
        while self.draining is None or self.sessions and time.monotonic() < self.draining:
            for number, events in self.epoll.poll(0.005 if self.sleepers else 0.05, 64):
                if number in self.watched:
                    sock, owner, _ = self.watched[number]
                    if owner == "accept":
                        self.accept(sock)
                    elif owner == "stats":
                        self.answer(sock)
                    else:
                        owner.event(sock, events)
            for session in [session for session in self.sleepers if not session.ended]:
                self.sleepers.discard(session)
                session.run()
            now = time.monotonic()
            for session in [s for s in self.sessions if s.connecting and s.deadline < now]:
                session.failed(errno.ETIMEDOUT)
            if os.getppid() != parent:
                os._exit(1)
        for session in list(self.sessions):
            session.end("drain", True)

    def accept(self, sock):
        listener = next(listener for known, listener in self.listeners if known is sock)
        while True:
            try:
                client, _ = sock.accept()
            except BlockingIOError:
                return
            except OSError:
                return time.sleep(0.01)
            client.setblocking(False)
            session = Session(self, listener, client)
            if not session.ended:
                self.sessions.add(session)
                if self.path(session) != self.settings.path and self.settings.path == "sockmap":
                    self.counters.add('shunt_fallbacks_total{reason="unix"}', 1)

    def answer(self, sock):
        peer, _ = sock.accept()
        peer.settimeout(1)
        peer.recv(4096)
        body = self.counters.text().encode()
        peer.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        peer.close()


def main():
    settings = Settings(sys.argv[1:])
    counters = Counters(settings)
    listeners = []
    for listener in settings.listeners:
        for text in listener[1]:
            sock, shown = bind(text)
            listeners.append((sock, listener))
            log(f"notice: listener {listener[0]}: listening on {shown}")
    stats = [bind(text)[0] for text in settings.stats]
    worker = 0
    stopping = False

    def term(*_):
        nonlocal stopping
        stopping = True
        os.kill(worker, signal.SIGTERM)

    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    first = True
    while True:
        worker = os.fork()
        if not worker:
            server = Worker(settings, counters, listeners, stats)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
            if first:
                log("notice: ready")
            try:
                server.serve()
            except BaseException:
                import traceback
                traceback.print_exc()
                os._exit(3)
            os._exit(0)
        first = False
        signal.signal(signal.SIGTERM, term)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        _, status = os.waitpid(worker, 0)
        if stopping or os.WIFEXITED(status):
            sys.exit(os.waitstatus_to_exitcode(status) & 255)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        counters.worker_died()
        counters.add("shunt_worker_restarts_total", 1)


if __name__ == "__main__":
    main()
