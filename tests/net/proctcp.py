# SPDX-License-Identifier: BSD-2-Clause
"""What /proc/net/tcp says of the IPv4 sockets of a namespace."""

import contextlib
import dataclasses
import socket

TIME_WAIT, LISTEN = 6, 10
TIMERS = {0: "none", 1: "retransmit", 2: "keepalive", 3: "time-wait", 4: "zero window probe"}


@dataclasses.dataclass
class Row:
    local: tuple
    remote: tuple
    state: int
    unacked: int  # bytes written and not acknowledged, sent or not
    unread: int
    timer: int
    retransmits: int

    def __str__(self):
        return (f"{self.local[1]}->{self.remote[1]}: unacked {self.unacked}, unread {self.unread}, "
                f"timer {TIMERS.get(self.timer, self.timer)}, retransmits {self.retransmits}")


def _address(text):
    host, port = text.split(":")
    return socket.inet_ntoa(bytes.fromhex(host)[::-1]), int(port, 16)


def rows(space=None):
    with space.entered() if space else contextlib.nullcontext():
        with open("/proc/thread-self/net/tcp") as file:
            lines = file.readlines()[1:]
    found = []
    for line in lines:
        words = line.split()
        unacked, unread = (int(word, 16) for word in words[4].split(":"))
        found.append(Row(_address(words[1]), _address(words[2]), int(words[3], 16), unacked, unread,
                         int(words[5].split(":")[0], 16), int(words[6], 16)))
    return found


def row(sock_local, sock_remote, space=None):
    """The socket with these ends, or None."""
    return next((row for row in rows(space) if (row.local, row.remote) == (sock_local, sock_remote)), None)


def with_port(port, space=None):
    return [row for row in rows(space) if port in (row.local[1], row.remote[1])]
