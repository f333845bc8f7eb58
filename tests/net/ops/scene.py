# SPDX-License-Identifier: BSD-2-Clause
"""A daemon with a configuration that a test changes, clients of it, and what must hold at the end."""

import contextlib
import os
import re
import select
import signal
import socket
import time

from daemon import Daemon
from ops.farm import GREETING
from peer import SCALE, TIMEOUT, CleanEof, Peer, Reset, Stuck, wait_until


def text_of(sections):
    """{section: {key: value or list of values}} as the text of a file."""
    lines = []
    for section, keys in sections.items():
        lines.append(f"[{section}]")
        for key, values in keys.items():
            lines += [f"{key} = {value}" for value in (values if isinstance(values, (list, tuple)) else [values])]
    return "\n".join(lines) + "\n"


def merged(sections, changes):
    """Sections with changes; a key or section that is None in the changes goes."""
    result = {section: dict(keys) for section, keys in sections.items()}
    for section, keys in changes.items():
        if keys is None:
            result.pop(section, None)
            continue
        result.setdefault(section, {}).update(keys)
        result[section] = {key: value for key, value in result[section].items() if value is not None}
    return result


class Client(Peer):
    """A client whose server greets and echoes: what it sends is what it reads."""

    def __init__(self, sock, number):
        super().__init__(sock, f"client {number}", number, number)
        self.greeting = b""

    def _greeting_part(self):
        try:
            data = self.sock.recv(GREETING - len(self.greeting))
        except BlockingIOError:
            return False
        except OSError as error:
            self._aborted(error, "greeting")
        if not data:
            raise CleanEof(f"FIN before the greeting; {self}")
        self.greeting += data
        return len(self.greeting) == GREETING

    def served(self):
        """Has the greeting come? Raises when the connection has ended."""
        return len(self.greeting) == GREETING or self._greeting_part()

    def who(self, timeout=TIMEOUT):
        """The name of the server that this client got."""
        end = time.monotonic() + timeout
        while not self.served():
            self.wait(select.POLLIN, end, "the greeting")
        return self.greeting.decode().strip()

    def exchange(self, size=1000, timeout=TIMEOUT):
        """Sends bytes and reads them back."""
        self.who(timeout)
        for start in range(0, size, 65536):
            count = min(65536, size - start)
            self.send(count, timeout=timeout)
            self.read(count, timeout=timeout)
        return self

    def read_back(self, timeout=TIMEOUT):
        """What was sent and has not come back yet."""
        self.who(timeout)
        self.read(self.sent - self.received, timeout=timeout)
        return self

    def leave(self):
        """An orderly end: FIN, and then the server's FIN."""
        self.fin()
        self.expect_eof(self.sent)
        self.close()


class Scene:
    def __init__(self, mode, network, farm, sections, start=True, **options):
        self.mode, self.network, self.farm = mode, network, farm
        self.sections = merged({"global": {
            "path": mode.path, "parser": mode.parser, "threads": "2",
            "stats": "unix:{dir}/stats.sock", "control": "off",
        }}, sections)
        self.daemon = Daemon(conf=text_of(self.sections), netns=network.proxy, **options)
        self.file = os.path.join(self.daemon.dir, "shunt.conf")
        self.clients = []
        self.allowed_ends = {"complete"}
        self.allowed_rejects = set()
        self.allowed_fallbacks = set()
        self.allowed_log = []
        self.share = 0.99  # of the bytes that have to take the path of the mode
        if start:
            self.daemon.start()

    # ---- clients

    def address(self, listener="front", index=0):
        return self.daemon.address(listener, index)

    def socket(self, source=None, family=socket.AF_INET):
        sock = self.network.client_socket(family)
        if source:
            sock.bind((source, 0))
        return sock

    def connect(self, source=None, listener="front", early=0, to=None, timeout=TIMEOUT):
        """A client that is connected to the daemon and has sent `early` bytes."""
        to = to or self.address(listener)
        sock = self.socket(source, socket.AF_INET6 if ":" in to[0] else socket.AF_INET)
        sock.settimeout(timeout)
        try:
            sock.connect(to)
        except BaseException:
            sock.close()
            raise
        client = Client(sock, len(self.clients) + 1)
        self.clients.append(client)
        if early:
            client.send(early, timeout=timeout)
        return client

    def visit(self, source=None, size=200, **options):
        """One complete session; the name of the server."""
        client = self.connect(source, **options)
        name = client.exchange(size).who()
        client.leave()
        return name

    def visits(self, count, **options):
        """{server name: how many of so many sessions in a row}"""
        found = {}
        for _ in range(count):
            name = self.visit(**options)
            found[name] = found.get(name, 0) + 1
        return found

    def is_rejected(self, timeout=TIMEOUT, **options):
        """Connects; True for a reset, False for a session, which stays open."""
        try:
            client = self.connect(**options)
        except ConnectionResetError:
            return True
        try:
            client.who(timeout)
        except Reset:
            client.close()
            return True
        return False

    # ---- the daemon

    def metrics(self):
        return self.daemon.metrics()

    def sessions(self, backend="app"):
        """{server: sessions so far}"""
        found = {}
        for (name, labels), value in self.metrics().items():
            pairs = dict(labels)
            if name == "shunt_server_sessions_total" and pairs["backend"] == backend:
                found[pairs["server"]] = int(value)
        return found

    def ended(self, reason, **labels):
        return int(self.metrics().total("shunt_sessions_ended_total", reason=reason, **labels))

    def rejected(self, reason, **labels):
        return int(self.metrics().total("shunt_listener_rejected_total", reason=reason, **labels))

    def active(self, **labels):
        return int(self.metrics().total("shunt_listener_sessions_active", **labels))

    def wait_active(self, count, timeout=TIMEOUT, **labels):
        return self.daemon.wait_metric(f"{count} active sessions", lambda metrics: metrics.total(
            "shunt_listener_sessions_active", **labels) == count, timeout)

    def wait_ended(self, reason, count, timeout=TIMEOUT):
        return self.daemon.wait_metric(f"{count} sessions ended by {reason}", lambda metrics: metrics.total(
            "shunt_sessions_ended_total", reason=reason) >= count, timeout)

    def write(self, text):
        """Replaces the file as an editor does: never half written."""
        with open(self.file + ".new", "w") as out:
            out.write(text.replace("{dir}", self.daemon.dir))
        os.rename(self.file + ".new", self.file)

    def reloads(self, result):
        return int(self.metrics().total("shunt_config_reloads_total", result=result))

    def hangup(self, result, timeout=20 * SCALE):
        """SIGHUP, and the end of the reload; the log lines that came with it."""
        before = self.reloads(result)
        start = len(self.daemon.log())
        self.daemon.signal(signal.SIGHUP)
        self.daemon.wait_metric(f"one more reload: {result}", lambda metrics: metrics.total(
            "shunt_config_reloads_total", result=result) > before, timeout)
        return self.daemon.log()[start:]

    def reload(self, changes, result="ok"):
        """Changes sections of the file and reloads. A reload that fails leaves what was before for the next one."""
        sections = merged(self.sections, changes)
        self.write(text_of(sections))
        if result == "ok":
            self.sections = sections
        else:
            self.allowed_log.append("reload failed")
        return self.hangup(result)

    def wait_state(self, server, state, backend="app", timeout=TIMEOUT, since=0):
        """Until the log says that the server is up or down, after so many characters of the log."""
        expression = re.compile(rf"backend {re.escape(backend)}: server {re.escape(server)} is (up|down)")

        def look():
            found = expression.findall(self.daemon.log()[since:])
            return found and found[-1] == state

        wait_until(f"server {server} {state}; its changes: {expression.findall(self.daemon.log())}", look, timeout)

    def changes_of(self, server, backend="app"):
        return re.findall(rf"backend {re.escape(backend)}: server {re.escape(server)} is (up|down)", self.daemon.log())

    def listen_inodes(self, listener="front", index=0):
        """The listening sockets on the address of a listener."""
        port = self.address(listener, index)[1]
        found = set()
        with self.network.proxy.entered() if self.network.proxy else contextlib.nullcontext():
            for table in ("tcp", "tcp6"):
                with open(f"/proc/thread-self/net/{table}") as file:
                    rows = [line.split() for line in file.readlines()[1:]]
                found |= {row[9] for row in rows if row[3] == "0A" and int(row[1].rsplit(":", 1)[1], 16) == port}
        return found

    # ---- the end

    def allow(self, ends=(), rejects=(), fallbacks=(), log=()):
        """End, reject and fallback reasons and log patterns that belong to the case."""
        self.allowed_ends.update(ends)
        self.allowed_rejects.update(rejects)
        self.allowed_fallbacks.update(fallbacks)
        self.allowed_log.extend(log)

    def bytes_moved(self, metrics=None):
        """{path: bytes}, both directions together."""
        found = (metrics or self.metrics()).by("shunt_bytes_total", "path")
        return {path: int(count) for path, count in found.items()}

    def prove_path(self, metrics=None):
        metrics = metrics or self.metrics()
        moved = self.bytes_moved(metrics)
        total = sum(moved.values())
        if total and not metrics.total("shunt_overflows_total"):
            assert moved.get(self.mode.path, 0) >= self.share * total, (
                f"{self.share:.0%} of the bytes had to take {self.mode.path}: {moved}, "
                f"fallbacks {metrics.by('shunt_fallbacks_total', 'reason')}")

    def finish(self):
        for client in self.clients:
            client.close()
        assert self.daemon.is_running(), f"shuntd ended with status {self.daemon.process.returncode}"
        metrics = self.daemon.wait_metric("no active session", lambda metrics: not metrics.total(
            "shunt_listener_sessions_active") and not metrics.total("shunt_server_sessions_active"))
        for metric, allowed in (("shunt_sessions_ended_total", self.allowed_ends),
                                ("shunt_listener_rejected_total", self.allowed_rejects),
                                ("shunt_fallbacks_total", self.allowed_fallbacks)):
            found = metrics.by(metric, "reason")
            assert set(found) <= allowed, f"{metric}: {found}, the case allows {sorted(allowed)}"
        assert not metrics.total("shunt_worker_restarts_total"), "a worker died"
        self.prove_path(metrics)
        self.stop()

    def stop(self):
        if self.daemon.is_running():
            status = self.daemon.stop()
            assert status == 0, f"shuntd stopped with {status}"
        trouble = self.daemon.trouble(self.allowed_log)
        assert not trouble, "the log has " + "\n".join(trouble)

    def close(self):
        for client in self.clients:
            with contextlib.suppress(OSError):
                client.close()
        self.daemon.remove()

    def describe(self):
        lines = [f"mode: {self.mode.name}", f"command: {' '.join(self.daemon.argv)}", text_of(self.sections)]
        lines += [str(server) for server in self.farm.servers] + [str(client) for client in self.clients[:20]]
        with contextlib.suppress(Exception):
            lines += [f"{name}{sorted(labels)} {value:g}" for (name, labels), value in self.metrics().items()
                      if value and not name.endswith("_bucket")]
        lines.append("log:\n" + "\n".join(self.daemon.log().splitlines()[-80:]))
        return "\n".join(lines)


def farm_lines(servers, options=()):
    """Values of the key server; `options` is {name: text}."""
    options = dict(options)
    return [server.line(options.get(server.name, "")) for server in servers]


def app(servers, options=(), listener=(), backend=(), top=(), bind="127.0.0.1:0"):
    """Sections of the usual kind: listener front, backend app."""
    return {
        "global": dict(top),
        "listener front": {"bind": bind, "backend": "app", **dict(listener)},
        "backend app": {"server": farm_lines(servers, options), "check": "off", **dict(backend)},
    }


def is_refused(address):
    """Does nobody listen there?"""
    with socket.socket() as sock:
        sock.settimeout(TIMEOUT)
        try:
            sock.connect(address)
        except ConnectionRefusedError:
            return True
        except OSError as error:
            raise Stuck(f"neither connected nor refused: {error}") from None
        return False
