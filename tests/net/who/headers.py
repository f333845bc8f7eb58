# SPDX-License-Identifier: BSD-2-Clause
"""The PROXY protocol as haproxy's proxy-protocol.txt has it, written apart from the daemon's code."""

import dataclasses
import socket
import struct

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
LOCAL, PROXY = 0, 1
UNSPEC, TCP4, TCP6, UNIX = 0x00, 0x11, 0x21, 0x31
ALPN, AUTHORITY, CRC32C, NOOP, UNIQUE_ID, SSL, NETNS = 0x01, 0x02, 0x03, 0x04, 0x05, 0x20, 0x30


def crc32c(data):
    """Bit by bit, as RFC 3720 has it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


assert crc32c(b"123456789") == 0xE3069283


def v1(source, target):
    """The line for two (host, port)."""
    word = "TCP6" if ":" in source[0] else "TCP4"
    return f"PROXY {word} {source[0]} {target[0]} {source[1]} {target[1]}\r\n".encode()


def tlv(kind, value):
    return struct.pack("!BH", kind, len(value)) + value


def block(source, target):
    """(family, bytes) of two (host, port), or two names of UNIX sockets."""
    if isinstance(source, bytes):
        return UNIX, source.ljust(108, b"\0") + target.ljust(108, b"\0")
    kind, family = (TCP6, socket.AF_INET6) if ":" in source[0] else (TCP4, socket.AF_INET)
    return kind, (socket.inet_pton(family, source[0]) + socket.inet_pton(family, target[0]) +
                  struct.pack("!HH", source[1], target[1]))


def v2(source=None, target=None, tlvs=b"", crc=False, command=PROXY):
    """Without addresses the family is UNSPEC."""
    family, addresses = block(source, target) if source else (UNSPEC, b"")
    rest = addresses + tlvs + (tlv(CRC32C, bytes(4)) if crc else b"")
    header = SIGNATURE + struct.pack("!BBH", 0x20 | command, family, len(rest)) + rest
    return header[:-4] + struct.pack("!I", crc32c(header)) if crc else header


def local(**options):
    return v2(command=LOCAL, **options)


@dataclasses.dataclass
class Header:
    """What a server was told. `source` is None for LOCAL and UNKNOWN."""

    version: int
    word: str  # TCP4, TCP6, UNIX, UNKNOWN, LOCAL
    source: object = None
    target: object = None
    tlvs: list = dataclasses.field(default_factory=list)  # (type, value), without the checksum
    crc: bool = False  # there was one, and it was right

    @property
    def ends(self):
        return self.source, self.target


def _exactly(sock, count):
    data = b""
    while len(data) < count:
        part = sock.recv(count - len(data))
        assert part, f"the stream ended in the PROXY header after {data!r}"
        data += part
    return data


def _read_v1(sock, line):
    while not line.endswith(b"\r\n"):
        assert len(line) < 107, f"no end of the line: {line!r}"
        line += _exactly(sock, 1)
    words = line[:-2].decode("ascii").split(" ")
    if words[1] == "UNKNOWN":
        return Header(1, "UNKNOWN")
    assert len(words) == 6, line
    family = {"TCP4": socket.AF_INET, "TCP6": socket.AF_INET6}[words[1]]
    for text in words[2:4]:
        assert socket.inet_ntop(family, socket.inet_pton(family, text)) == text, line
    return Header(1, words[1], (words[2], int(words[4])), (words[3], int(words[5])))


def _tlvs(data):
    found = []
    while data:
        kind, length = struct.unpack_from("!BH", data)
        assert len(data) >= 3 + length, f"a TLV goes beyond the header: {data!r}"
        found.append((kind, data[3:3 + length]))
        data = data[3 + length:]
    return found


def _read_v2(sock, start):
    head = start + _exactly(sock, 16 - len(start))
    assert head[:12] == SIGNATURE, head
    command, family, length = struct.unpack("!BBH", head[12:])
    body = _exactly(sock, length)
    assert command in (0x20, 0x21), head
    header = Header(2, {TCP4: "TCP4", TCP6: "TCP6", UNIX: "UNIX", UNSPEC: "UNSPEC"}[family])
    size = {TCP4: 12, TCP6: 36, UNIX: 216, UNSPEC: 0}[family]
    if family in (TCP4, TCP6):
        af, n = (socket.AF_INET, 4) if family == TCP4 else (socket.AF_INET6, 16)
        ports = struct.unpack("!HH", body[2 * n:2 * n + 4])
        header.source = socket.inet_ntop(af, body[:n]), ports[0]
        header.target = socket.inet_ntop(af, body[n:2 * n]), ports[1]
    elif family == UNIX:
        header.source, header.target = (name.rstrip(b"\0") for name in (body[:108], body[108:216]))
    if command == 0x20:
        header.word, header.source, header.target = "LOCAL", None, None
    header.tlvs = _tlvs(body[size:])
    sums = [value for kind, value in header.tlvs if kind == CRC32C]
    assert len(sums) <= 1, header
    if sums:
        plain = head + body
        at = plain.rindex(tlv(CRC32C, sums[0])) + 3
        want = crc32c(plain[:at] + bytes(4) + plain[at + 4:])
        assert struct.unpack("!I", sums[0])[0] == want, f"wrong checksum in {plain.hex()}"
        header.crc = True
        header.tlvs = [(kind, value) for kind, value in header.tlvs if kind != CRC32C]
    return header


def read(sock):
    """One header from a blocking socket, and not a byte more."""
    start = _exactly(sock, 6)
    if start == b"PROXY ":
        return _read_v1(sock, start)
    return _read_v2(sock, start)
