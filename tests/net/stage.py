# SPDX-License-Identifier: BSD-2-Clause
"""Where a traffic case plays: a running daemon in one mode, a client side and a server side."""

import dataclasses
import os
import random
import select
import socket

import gaps
import netns
from daemon import Daemon
from peer import TIMEOUT, Peer, Stuck


@dataclasses.dataclass(frozen=True)
class Mode:
    """A path on a network."""

    name: str
    path: str
    parser: str
    network: str  # lo or ns

    @property
    def in_kernel(self):
        return self.path == "sockmap"

    @property
    def trims(self):
        """Can this path take old bytes off a segment? (design.md 5.2)"""
        return self.parser == "none"


MODES = {
    mode.name: mode
    for mode in (
        Mode("relay", "relay", "none", "lo"),
        Mode("sockmap", "sockmap", "none", "lo"),
        Mode("parser", "sockmap", "stream", "lo"),
        Mode("relay-netns", "relay", "none", "ns"),
        Mode("sockmap-netns", "sockmap", "none", "ns"),
    )
}
LOOPBACK = ("relay", "sockmap", "parser")


class Ports:
    """TCP ports on loopback for servers of tests; below the ephemeral range, so no client takes one by chance."""

    def __init__(self):
        self.random = random.Random(os.getpid())

    def listen(self, host="127.0.0.1", port=None, backlog=4096):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        for _ in range(100):
            sock = socket.socket(family)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind((host, port or self.random.randrange(12000, 30000)))
            except OSError:
                sock.close()
                continue
            sock.listen(backlog)
            return sock
        raise RuntimeError("no free port")


PORTS = Ports()


def shown(address):
    """(host, port) or a path as shuntd wants it."""
    if isinstance(address, str):
        return "unix:" + address
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Network:
    """The addresses and namespaces of one kind of network."""

    def __init__(self, kind):
        self.kind = kind
        self.topology = netns.Topology() if kind == "ns" else None

    def listen(self):
        """A listening socket on the server side."""
        if not self.topology:
            return PORTS.listen()
        with self.topology.server.entered():
            return PORTS.listen("10.91.2.2")

    @property
    def front(self):
        """The address where the daemon listens."""
        return "10.91.1.2" if self.topology else "127.0.0.1"

    @property
    def proxy(self):
        return self.topology.proxy if self.topology else None

    def client_socket(self, family=socket.AF_INET):
        if not self.topology:
            return socket.socket(family)
        with self.topology.client.entered():
            return socket.socket(family)

    def close(self):
        if self.topology:
            self.topology.close()


def accept(listener, timeout=TIMEOUT):
    poller = select.poll()
    poller.register(listener, select.POLLIN)
    if not poller.poll(timeout * 1000):
        raise Stuck("no connection arrived at the server")
    return listener.accept()[0]


def configuration(mode, bind, server, top=(), listener=(), backend=()):
    """The text of a configuration file. `top`, `listener` and `backend` are more keys, as pairs."""
    sections = {
        "global": [("path", mode.path), ("parser", mode.parser), ("threads", "2"), ("stats", "unix:{dir}/stats.sock"),
                   ("control", "off"), *top],
        "listener listener1": [("bind", bind), ("backend", "backend1"), *listener],
        "backend backend1": [("server", server), ("check", "off"), *backend],
    }
    return "\n".join(f"[{name}]\n" + "".join(f"{key} = {value}\n" for key, value in keys)
                     for name, keys in sections.items())


class Stage:
    """One traffic case on one daemon. The daemon may serve many cases in turn; what is counted is the difference."""

    def __init__(self, mode, network, daemon, listener):
        self.mode, self.network, self.daemon, self.listener = mode, network, daemon, listener
        self.begin()

    @classmethod
    def launch(cls, mode, network, keys=None, to=None, **options):
        """A daemon of its own; with `keys` from a configuration file that has these besides the usual ones."""
        listener = network.listen()
        pair = f"{network.front}:0", to or shown(listener.getsockname())
        if keys is not None:
            options["conf"] = configuration(mode, *pair, **keys)
        daemon = Daemon([pair], path=mode.path, parser=mode.parser, netns=network.proxy, **options)
        daemon.start()
        return cls(mode, network, daemon, listener)

    def begin(self):
        self.peers = []
        self.allowed_log = []
        self.allowed_ends = {"complete"}
        self.allowed_fallbacks = {"parser_overflow"} if self.mode.parser == "stream" else set()
        self.restarts = 0
        self.seed = 1
        self.absorb()
        self.daemon.mark_log()
        self.base = self.daemon.metrics()
        return self

    # ---- connections

    def absorb(self):
        """Closes the connections that wait at the server and that nobody wants."""
        self.listener.setblocking(False)
        try:
            while True:
                self.listener.accept()[0].close()
        except BlockingIOError:
            self.listener.setblocking(True)

    @property
    def address(self):
        return self.daemon.address()

    def connect(self, timeout=TIMEOUT, rcvbuf=None):
        """A client socket that is connected to the daemon."""
        sock = self.network.client_socket()
        sock.settimeout(timeout)
        if rcvbuf:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        sock.connect(self.address)
        return sock

    def accept(self, timeout=TIMEOUT):
        return accept(self.listener, timeout)

    def client(self, sock=None):
        """Connects; the stream numbers belong to the server() that is called next."""
        self.seed += 2
        peer = Peer(sock or self.connect(), f"client {self.seed // 2}", self.seed, self.seed + 1)
        self.peers.append(peer)
        return peer

    def server(self, sock=None, seed=None):
        seed = self.seed if seed is None else seed
        peer = Peer(sock or self.accept(), f"server {seed // 2}", seed + 1, seed)
        self.peers.append(peer)
        return peer

    def pair(self, rcvbuf=None):
        """(client, server), both with that receive buffer."""
        client = self.client(self.connect(rcvbuf=rcvbuf))
        server = self.server()
        if rcvbuf:
            server.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        return client, server

    def settled_pair(self, rcvbuf=None):
        """A pair that has talked both ways and so is on its path."""
        client, server = self.pair(rcvbuf)
        client.send(100)
        server.read(100)
        server.send(100)
        client.read(100)
        return client, server

    def watch(self, sender, reader):
        """From now on max_gap of the reader counts only what is the proxy's doing."""
        reader.clock = gaps.Clock(self, sender, reader)
        reader.max_gap = 0.0
        return reader

    def close(self):
        for peer in self.peers:
            peer.close()

    # ---- what must hold

    def allow(self, ends=(), fallbacks=(), log=(), restarts=0):
        """End reasons, fallback reasons, log patterns and worker restarts that belong to the case."""
        self.allowed_ends.update(ends)
        self.allowed_fallbacks.update(fallbacks)
        self.allowed_log.extend(log)
        self.restarts += restarts

    def delta(self):
        return self.daemon.metrics().since(self.base)

    def bytes(self, delta=None):
        """{(direction, path): bytes} of this case."""
        delta = delta or self.delta()
        return {
            (way, path): int(delta.total("shunt_bytes_total", direction=way, path=path))
            for way in ("c2s", "s2c")
            for path in ("relay", "sockmap", "shortcut")
        }

    def wait_idle(self):
        """No session of the daemon is left."""
        return self.daemon.wait_metric(
            "no active session", lambda metrics: metrics.total("shunt_listener_sessions_active") == 0)

    def prove(self, c2s=None, s2c=None, share=0.99):
        """Ends the case: exactly so many bytes moved (None: not known), and they took the path of the mode.

        In the kernel modes at least `share` of them took sockmap; when a receiver was too slow for it (an overflow
        is counted), then at least some. share=0 proves the sums only."""
        self.close()
        delta = self.wait_idle().since(self.base)
        moved = self.bytes(delta)
        counted = f"counted {({key: value for key, value in moved.items() if value})}"
        for way, want in (("c2s", c2s), ("s2c", s2c)):
            total = sum(moved[way, path] for path in ("relay", "sockmap", "shortcut"))
            if want is not None:
                assert total == want, f"{way}: {want} bytes moved, but {counted}"
            if not self.mode.in_kernel:
                assert total == moved[way, "relay"], f"{way}: a relay session, but {counted}"
            elif total and share:
                least = share * total if not self.overflows(delta) else 1
                assert moved[way, "sockmap"] >= least, (
                    f"{way}: {least / total:.1%} had to take sockmap, {counted}, "
                    f"overflows {self.overflows(delta)}, fallbacks {delta.by('shunt_fallbacks_total', 'reason')}")
        return delta

    def overflows(self, delta=None):
        delta = delta or self.delta()
        return int(delta.total("shunt_overflows_total") +
                   delta.total("shunt_fallbacks_total", reason="parser_overflow"))

    def finish(self):
        """The checks at the end of every case that has not failed."""
        self.close()
        assert self.daemon.is_running(), f"shuntd ended with status {self.daemon.process.returncode}"
        delta = self.wait_idle().since(self.base)
        trouble = self.daemon.trouble(self.allowed_log)
        assert not trouble, "the log has " + "\n".join(trouble)
        for metric, allowed in (("shunt_sessions_ended_total", self.allowed_ends),
                                ("shunt_fallbacks_total", self.allowed_fallbacks)):
            found = delta.by(metric, "reason")
            assert set(found) <= allowed, f"{metric}: {found}, the case allows {sorted(allowed)}"
        assert delta.total("shunt_worker_restarts_total") == self.restarts

    def describe(self):
        """For the report of a failure."""
        lines = [f"mode: {self.mode.name}", f"command: {' '.join(self.daemon.argv)}"]
        lines += [str(peer) for peer in self.peers[:20]]
        try:
            delta = self.delta()
            lines += [f"{name}{{{','.join('='.join(pair) for pair in sorted(labels))}}} +{value:g}"
                      for (name, labels), value in delta.items() if value and not name.endswith("_bucket")]
        except Exception as error:
            lines.append(f"no metrics: {error!r}")
        lines.append("log:\n" + "\n".join(self.daemon.log(everything=False).splitlines()[-60:]))
        return "\n".join(lines)


class Cast:
    """Keeps one daemon per mode for the cases that need nothing special; a case that fails ends its daemon."""

    def __init__(self):
        self.networks = {}
        self.stages = {}

    def network(self, kind):
        if kind not in self.networks:
            self.networks[kind] = Network(kind)
        return self.networks[kind]

    def stage(self, mode):
        if mode.name in self.stages:
            return self.stages[mode.name].begin()
        self.stages[mode.name] = Stage.launch(mode, self.network(mode.network))
        return self.stages[mode.name]

    def drop(self, stage):
        self.stages.pop(stage.mode.name, None)
        stage.listener.close()
        stage.daemon.remove()

    def close(self):
        statuses = {}
        for stage in list(self.stages.values()):
            stage.daemon.mark_log()
            statuses[stage.mode.name] = stage.daemon.stop(), stage.daemon.trouble()
            self.drop(stage)
        for network in self.networks.values():
            network.close()
        assert all(status == (0, []) for status in statuses.values()), f"shuntd stopped with {statuses}"

