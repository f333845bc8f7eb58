# SPDX-License-Identifier: BSD-2-Clause
"""Segments made by hand in the name of an established connection.

TCP_REPAIR tells the sequence numbers. The raw socket sends the bytes, cut and ordered as the test likes. Then
TCP_REPAIR lets the kernel believe that it has sent them itself, and the connection goes on as if nothing had
happened.
"""

import array
import contextlib
import socket
import struct
import sys

TCP_REPAIR, TCP_REPAIR_QUEUE, TCP_QUEUE_SEQ = 19, 20, 21
SO_SNDBUFFORCE = 32
RECV_QUEUE, SEND_QUEUE = 1, 2
REPAIR_ON, REPAIR_OFF_NO_PROBE = 1, -1
PSH_ACK = 0x18


def _checksum(data):
    if len(data) % 2:
        data += b"\0"
    words = array.array("H", data)
    if sys.byteorder == "little":
        words.byteswap()
    total = sum(words)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


class Forger:
    """Sends segments as `sock` (IPv4) would. `space` is the namespace of the socket, or None."""

    def __init__(self, sock, space=None):
        self.sock = sock
        with space.entered() if space else contextlib.nullcontext():
            self.raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        self.raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        self.local, self.remote = sock.getsockname(), sock.getpeername()
        self.base = 0

    @contextlib.contextmanager
    def _repair(self):
        self.sock.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, REPAIR_ON)
        try:
            yield
        finally:
            self.sock.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, REPAIR_OFF_NO_PROBE)

    def _sequence(self, queue):
        self.sock.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR_QUEUE, queue)
        return self.sock.getsockopt(socket.IPPROTO_TCP, TCP_QUEUE_SEQ) & 0xFFFFFFFF

    def begin(self, data):
        """segment() offsets count from what the socket would send next.

        The kernel knows nothing of these bytes until commit(): it ignores their acknowledgments, so that it sends
        nothing of its own between the segments."""
        with self._repair():
            self.ack = self._sequence(RECV_QUEUE)
            self.base = self._sequence(SEND_QUEUE)
        self.data = data

    def commit(self):
        """From now on the socket has sent all of it."""
        self.sock.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, 4 * len(self.data) + 262144)
        with self._repair():
            self.sock.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR_QUEUE, SEND_QUEUE)
            sent = self.sock.send(self.data)
        if sent != len(self.data):
            raise RuntimeError(f"the send buffer took {sent} of {len(self.data)} bytes")

    def segment(self, offset, length):
        """Puts that piece on the wire."""
        payload = bytes(self.data[offset : offset + length])
        source, target = socket.inet_aton(self.local[0]), socket.inet_aton(self.remote[0])
        sequence = (self.base + offset) & 0xFFFFFFFF

        def header(checksum):
            return struct.pack("!HHIIBBHHH", self.local[1], self.remote[1], sequence, self.ack, 5 << 4, PSH_ACK,
                               2000, checksum, 0)

        pseudo = source + target + struct.pack("!BBH", 0, socket.IPPROTO_TCP, 20 + len(payload))
        tcp = header(_checksum(pseudo + header(0) + payload)) + payload
        packet = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(tcp), 0, 0x4000, 64, socket.IPPROTO_TCP, 0, source,
                             target)
        self.raw.sendto(packet + tcp, (self.remote[0], 0))

    def close(self):
        self.raw.close()
