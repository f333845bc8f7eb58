# SPDX-License-Identifier: BSD-2-Clause
"""The bytes that tests send.

Byte i of stream `seed` is BLOB[(i + seed * STRIDE) % PERIOD]: a slice of one random blob with a prime period.
A receiver compares what it got with what has to come at its offset, so a loss, a repetition, a reordering or
bytes of another stream show at once, and the report says which offset the wrong bytes belong to.
"""

import random

PERIOD = 16777213
STRIDE = 1299709
MAX_CHUNK = 1 << 20

_BLOB = random.Random("shunt").randbytes(PERIOD)
BLOB = _BLOB + _BLOB[:MAX_CHUNK]
_VIEW = memoryview(BLOB)


class Corrupted(AssertionError):
    """Bytes arrived that are not the ones that were sent at this offset."""


def _position(seed, offset):
    return (offset + seed * STRIDE) % PERIOD


def piece(seed, offset, length):
    """`length` bytes (at most MAX_CHUNK) of the stream from `offset`, without a copy."""
    start = _position(seed, offset)
    return _VIEW[start : start + length]


def check(seed, offset, data, who="the receiver"):
    """Raises Corrupted unless `data` is what the stream holds at `offset`."""
    for start in range(0, len(data), MAX_CHUNK):
        part = data[start : start + MAX_CHUNK]
        if not BLOB.startswith(part, _position(seed, offset + start)):
            raise Corrupted(_explain(seed, offset + start, part, who))


def _explain(seed, offset, data, who):
    want = bytes(piece(seed, offset, len(data)))
    data = bytes(data)
    at = next(i for i in range(len(data)) if data[i] != want[i])
    text = (
        f"{who}: wrong bytes at stream offset {offset + at} (byte {at} of a read of {len(data)}): "
        f"got {data[at:at + 16].hex()}, want {want[at:at + 16].hex()}"
    )
    sample = data[at : at + 24]
    found = BLOB.find(sample) if len(sample) == 24 else -1
    if found < 0:
        return text + "; the bytes are of no stream"
    distance = (found - _position(seed, offset + at)) % PERIOD
    if distance > PERIOD // 2:
        distance -= PERIOD
    kind = "repeated: they were due earlier" if distance < 0 else "from later: bytes before them are missing"
    return text + f"; the bytes are {abs(distance)} {kind} (or they are of another stream)"
