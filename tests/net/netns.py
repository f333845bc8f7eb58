# SPDX-License-Identifier: BSD-2-Clause
"""Three network namespaces of our own.

    client ns                 proxy ns                  server ns
    10.91.1.1 --- veth --- 10.91.1.2 | 10.91.2.1 --- veth --- 10.91.2.2
    fd91:1::1              fd91:1::2 | fd91:2::1              fd91:2::2
"""

import contextlib
import ctypes
import os
import secrets
import subprocess

_LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNET = 0x40000000


def _setns(fd):
    if _LIBC.setns(fd, CLONE_NEWNET) != 0:
        code = ctypes.get_errno()
        raise OSError(code, "setns: " + os.strerror(code))


def ip(*words):
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"ip {' '.join(words)}: {done.stderr.strip()}")


class Netns:
    def __init__(self, name):
        self.name = name
        ip("netns", "add", name)
        self.fd = os.open(f"/run/netns/{name}", os.O_RDONLY | os.O_CLOEXEC)
        self.ip("link", "set", "lo", "up")

    def ip(self, *words):
        ip("-n", self.name, *words)

    @contextlib.contextmanager
    def entered(self):
        """Sockets that this thread makes inside belong to the namespace for good."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _setns(self.fd)
            yield
        finally:
            _setns(home)
            os.close(home)

    def command(self, argv):
        return ["nsenter", f"--net=/run/netns/{self.name}", "--", *argv]

    def close(self):
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
            ip("netns", "del", self.name)


class Topology:
    """client - proxy - server; close() removes it, also when it is only half built."""

    def __init__(self):
        tag = f"shunt{os.getpid()}{secrets.token_hex(2)}"
        self.spaces = []
        try:
            self.client, self.proxy, self.server = (self._space(f"{tag}-{end}") for end in "cps")
            self._wire(self.client, "1", 1, self.proxy, 2)
            self._wire(self.proxy, "2", 1, self.server, 2)
        except BaseException:
            self.close()
            raise

    def _space(self, name):
        space = Netns(name)
        self.spaces.append(space)
        return space

    def _wire(self, left, net, left_host, right, right_host):
        left.ip("link", "add", f"net{net}", "type", "veth", "peer", "name", f"net{net}", "netns", right.name)
        for space, host in ((left, left_host), (right, right_host)):
            space.ip("addr", "add", f"10.91.{net}.{host}/24", "dev", f"net{net}")
            space.ip("addr", "add", f"fd91:{net}::{host}/64", "dev", f"net{net}", "nodad")
            space.ip("link", "set", f"net{net}", "up")

    def close(self):
        while self.spaces:
            self.spaces.pop().close()
