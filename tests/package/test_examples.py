# SPDX-License-Identifier: BSD-2-Clause
"""Every example starts as it stands, under the unit, and moves traffic to the servers that it names."""

import contextlib
import glob
import ipaddress
import os
import re
import secrets
import socket
import subprocess
import threading

import pytest

import unit as units
from netns import Netns
from peer import SCALE, wait_until
from service import program

EXAMPLES = sorted(glob.glob(os.path.join(units.REPO, "conf", "examples", "*.conf")))
SAMPLE = os.path.join(units.REPO, "debian", "shunt.conf")


def sections(text):
    """[(kind, name, [(key, value)])], as daemon/conf_ini.c sees them."""
    found = []
    for line in text.splitlines():
        line = re.sub(r"\s+[;#].*", "", line.strip())
        if line.startswith("["):
            kind, _, name = line.strip("[]").partition(" ")
            found.append((kind, name, []))
        elif line and line[0] not in ";#":
            key, value = line.split("=", 1)
            found[-1][2].append((key.strip(), value.strip()))
    return found


def values(section, key):
    return [value for name, value in section[2] if name == key]


def split(address):
    host, port = address.rsplit(":", 1)
    return host.strip("[]"), int(port)


class Stubs:
    """A server on each address of an example: answers checks, else its own address and what it was sent."""

    def __init__(self, space, addresses):
        self.listeners = {}
        self.sockets = set()
        self.unfit = set()  # serve, but fail the check of an example: a web server without its page, a Redis standby
        with space.entered():
            for address in addresses:
                self.listeners[address] = listener = socket.create_server(split(address))
                threading.Thread(target=self._accept, args=(listener, address), daemon=True).start()

    def _accept(self, listener, address):
        with contextlib.suppress(OSError):
            while True:
                sock = listener.accept()[0]
                self.sockets.add(sock)
                threading.Thread(target=self._serve, args=(sock, address), daemon=True).start()

    def _serve(self, sock, address):
        with contextlib.suppress(OSError), sock:
            while data := sock.recv(65536):
                if data.startswith(b"GET /healthz"):
                    status = "503 No" if address in self.unfit else "200 OK"
                    sock.sendall(f"HTTP/1.0 {status}\r\n\r\n".encode())
                    return
                if data.startswith(b"INFO replication"):
                    role = "slave" if address in self.unfit else "master"
                    sock.sendall(f"$30\r\n# Replication\r\nrole:{role}\r\n".encode())
                else:
                    sock.sendall(address.encode() + b" " + data)
        self.sockets.discard(sock)

    def fail(self, address):
        """Nobody listens there any more."""
        if address in self.listeners:
            self.listeners[address].shutdown(socket.SHUT_RDWR)
            self.listeners.pop(address).close()

    def close(self):
        for address in list(self.listeners):
            self.fail(address)
        for sock in list(self.sockets):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)


class Scene:
    """An example, running in a network namespace that has the addresses it listens on; the servers are in another."""

    def __init__(self, path, make_service):
        with open(path) as file:
            text = file.read()
        self.sections = sections(text)
        self.listeners = {section[1]: section for section in self.sections if section[0] == "listener"}
        self.backends = {section[1]: section for section in self.sections if section[0] == "backend"}
        self.stubs = []
        self.spaces = []
        try:
            self.space = self._space("p")
            self.outside = self._space("s")
            self._wire()
            self.serve(self.space, [server for server in self.servers() if server.startswith("127.")])
            self.serve(self.outside, [server for server in self.servers() if not server.startswith("127.")])
            # As the package has it, but for an account and a directory that this machine need not have.
            text = text.replace("[global]", "[global]\nuser = nobody", 1).replace("/run/shunt/", "{dir}/")
            for key, value in (("stats", "unix:{dir}/stats.sock"), ("control", "off")):
                if not values(self.sections[0], key):
                    text = text.replace("[global]", f"[global]\n{key} = {value}", 1)
            self.service = make_service(text, netns=self.space).start()
        except BaseException:
            self.close()
            raise

    def _space(self, end):
        space = Netns(f"shunt-example-{os.getpid()}-{secrets.token_hex(2)}-{end}")
        self.spaces.append(space)
        return space

    def _wire(self):
        self.space.ip("link", "add", "net0", "type", "veth", "peer", "name", "net0", "netns", self.outside.name)
        for space, address in ((self.space, "169.254.77.1/30"), (self.outside, "169.254.77.2/30")):
            space.ip("addr", "add", address, "dev", "net0")
            space.ip("link", "set", "net0", "up")
        for host in {split(server)[0] for server in self.servers()}:
            if not host.startswith("127."):
                self.outside.ip("addr", "add", f"{host}/32", "dev", "lo")
                self.space.ip("route", "add", f"{host}/32", "via", "169.254.77.2")
        here = {split(address)[0] for address in self.binds()} - {"*", "127.0.0.1"}
        for host in here | {str(network[9]) for network in self.networks("allow") + self.networks("deny")}:
            self.space.ip("addr", "add", f"{host}/32", "dev", "lo")

    def serve(self, space, addresses):
        self.stubs.append(Stubs(space, set(addresses)))

    def fail(self, address):
        for stubs in self.stubs:
            stubs.fail(address)

    def make_fit(self, address, fit):
        for stubs in self.stubs:
            (stubs.unfit.discard if fit else stubs.unfit.add)(address)

    def close(self):
        for stubs in self.stubs:
            stubs.close()
        for space in self.spaces:
            space.close()

    def servers(self, backend=None):
        return [value.split()[0] for name, section in self.backends.items() if backend in (None, name)
                for value in values(section, "server")]

    def binds(self):
        return [value for section in self.listeners.values() for value in values(section, "bind")]

    def networks(self, key):
        return [ipaddress.ip_network(value) for section in self.listeners.values() for value in values(section, key)]

    def connect(self, listener, source=None):
        section = self.listeners[listener]
        host, port = split(values(section, "bind")[0])
        if source is None and values(section, "allow"):
            source = str(self.networks("allow")[0][9])
        with self.space.entered():
            return socket.create_connection(("127.0.0.1" if host == "*" else host, port), timeout=10 * SCALE,
                                            source_address=(source, 0) if source else None)

    def ask(self, listener, source=None, size=200):
        """The server that answers, once all that was sent has come back."""
        data = os.urandom(size).hex().encode()
        with self.connect(listener, source) as sock:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            got = b""
            while part := sock.recv(65536):
                got += part
        server, _, rest = got.partition(b" ")
        assert rest == data, f"{listener}: sent {len(data)} bytes, got {got[:80]!r}"
        return server.decode()

    def metrics(self):
        stats = values(self.sections[0], "stats") or ["unix:/run/shunt/stats.sock"]
        with self.space.entered():
            return self.service.metrics(stats[0].replace("/run/shunt/", self.service.dir + "/"))

    def wait_up(self, address, up):
        """Until the checks have found it so."""
        labels = {frozenset({("backend", backend), ("server", re.search(r"name=(\S+)", value)[1])})
                  for backend, section in self.backends.items() for value in values(section, "server")
                  if value.split()[0] == address}
        assert labels

        def look():
            metrics = self.metrics()
            return all(metrics["shunt_server_up", label] == up for label in labels)

        wait_until(f"{address} is {'up' if up else 'down'}", look, 20 * SCALE, interval=0.1)


@pytest.fixture
def play(make_service):
    scenes = []

    def start(name):
        scenes.append(Scene(name if "/" in name else os.path.join(units.REPO, "conf", "examples", name), make_service))
        return scenes[-1]

    yield start
    for scene in scenes:
        try:
            assert scene.service.stop() == 0
        finally:
            scene.close()


def short(path):
    return os.path.relpath(path, units.REPO)


# ---- each one


def test_there_are_examples():
    assert len(EXAMPLES) >= 3


@pytest.mark.parametrize("path", [*EXAMPLES, SAMPLE], ids=short)
def test_check_accepts(path):
    done = subprocess.run([program(), "--check", "--config", path], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("path", [*EXAMPLES, SAMPLE], ids=short)
def test_drain_fits_into_the_time_that_systemd_grants(path):
    done = subprocess.run([program(), "--dump-config", "--config", path], capture_output=True, text=True, check=True)
    number, unit = re.search(r"^drain_timeout = (\d+)(\w*)$", done.stdout, re.M).groups()
    seconds = int(number) * {"": 0, "ms": 0.001, "s": 1, "m": 60, "h": 3600}[unit]
    assert seconds <= int(units.read()["TimeoutStopSec"][0].removesuffix("s")) - 10


@pytest.mark.parametrize("path", [*EXAMPLES, SAMPLE], ids=short)
def test_each_listener_moves_traffic_to_its_own_servers(play, path):
    scene = play(path)
    for name, section in scene.listeners.items():
        backend = values(section, "backend")[0]
        for _ in range(8):
            assert scene.ask(name) in scene.servers(backend)
        moved = wait_until("the bytes are counted", lambda: scene.metrics().total(
            "shunt_bytes_total", listener=name, direction="c2s"))
        assert moved >= 8 * 400
    log = scene.service.log()
    assert "error" not in log and "warning" not in log, log


# ---- what the comments promise


def test_web_leaves_out_the_server_whose_page_is_gone(play):
    scene = play("web.conf")
    web1, web2 = scene.servers("http")
    assert {scene.ask("http") for _ in range(12)} == {web1, web2}
    scene.make_fit(web1, False)
    scene.wait_up(web1, 0)
    assert {scene.ask("http") for _ in range(12)} == {web2}


def test_web_says_sorry_when_all_are_gone(play):
    scene = play("web.conf")
    web1, web2, sorry = scene.servers("https")
    assert {scene.ask("https") for _ in range(12)} == {web1, web2}
    scene.fail(web1)
    scene.fail(web2)
    assert {scene.ask("https") for _ in range(4)} == {sorry}


def test_redis_follows_the_master(play):
    scene = play("postgresql-redis.conf")
    old, new = scene.servers("redis")
    scene.make_fit(new, False)
    scene.wait_up(new, 0)
    assert {scene.ask("redis") for _ in range(6)} == {old}
    with scene.connect("redis") as client:
        client.sendall(b"x")
        assert client.recv(100)
        scene.make_fit(old, False)
        scene.make_fit(new, True)
        with pytest.raises(ConnectionResetError):
            client.recv(100)
    scene.wait_up(new, 1)
    assert {scene.ask("redis") for _ in range(6)} == {new}


def test_postgresql_reads_go_to_the_primary_only_without_standbys(play):
    scene = play("postgresql-redis.conf")
    pg2, pg3, pg1 = scene.servers("postgresql-standbys")
    assert {scene.ask("postgresql-read") for _ in range(12)} == {pg2, pg3}
    assert {scene.ask("postgresql-write") for _ in range(4)} == {pg1}
    scene.fail(pg2)
    scene.fail(pg3)
    assert {scene.ask("postgresql-read") for _ in range(4)} == {pg1}


def test_maglev_hosts_agree_and_a_dead_server_moves_few_but_its_own(play):
    """Two daemons from the same file, each in its own namespace."""
    one, two = play("maglev.conf"), play("maglev.conf")
    clients = [f"10.20.7.{n}" for n in range(1, 41)]
    for scene in (one, two):
        for client in clients:
            scene.space.ip("addr", "add", f"{client}/32", "dev", "lo")
    where = {client: one.ask("app", client) for client in clients}
    assert {client: two.ask("app", client) for client in clients} == where
    assert set(where.values()) == set(one.servers())
    dead = one.servers()[0]
    one.fail(dead)
    one.wait_up(dead, 0)
    after = {client: one.ask("app", client) for client in clients}
    moved = [client for client in clients if after[client] != where[client] and where[client] != dead]
    assert len(moved) <= 4, f"of {len(clients)} clients these moved: {moved}"


def test_maglev_admits_its_clients_networks_only(play):
    scene = play("maglev.conf")
    scene.ask("app", "10.20.0.9")
    for stranger in ("10.20.66.9", "127.0.0.1"):
        with pytest.raises((OSError, AssertionError)):
            scene.ask("app", stranger)
