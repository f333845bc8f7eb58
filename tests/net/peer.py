# SPDX-License-Identifier: BSD-2-Clause
"""One end of a proxied connection, and background tasks that drive several ends at once."""

import errno
import select
import socket
import struct
import threading
import time

import pattern
from settings import SCALE

TIMEOUT = 30 * SCALE
ABORT_ERRNOS = {errno.ECONNRESET, errno.EPIPE}
TCP_STATES = (
    "? ESTABLISHED SYN_SENT SYN_RECV FIN_WAIT1 FIN_WAIT2 TIME_WAIT CLOSE CLOSE_WAIT LAST_ACK LISTEN CLOSING NEW_SYN_RECV"
).split()


class Reset(AssertionError):
    """The connection was aborted where the test did not expect it."""


class CleanEof(AssertionError):
    """The stream ended with FIN where the test did not expect it."""


class Stuck(AssertionError):
    """Nothing moved until the deadline."""


def wait_until(what, condition, timeout=TIMEOUT, interval=0.01):
    """Polls until `condition()` is true and returns its value; fails with `what` at the deadline."""
    end = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() >= end:
            raise Stuck(f"after {timeout:.1f} s still not: {what}")
        time.sleep(interval)


class Peer:
    """A non-blocking socket that sends stream `out` and checks stream `into` (see pattern)."""

    def __init__(self, sock, name, out, into):
        sock.setblocking(False)
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = sock
        self.name = name
        self.out = out
        self.into = into
        self.sent = 0
        self.received = 0
        self.error = None  # the errno of an abort that any call on this socket met
        self.max_gap = 0.0  # longest wait for data in read()
        self.clock = None  # measures the waits in another way: see gaps.py
        self.excused = []  # (seconds, reason) of the waits that did not count

    def __str__(self):
        text = f"{self.name}: sent {self.sent}, received {self.received}"
        if self.error:
            text += f", saw {errno.errorcode[self.error]}"
        return text + f", {self.tcp_state()}"

    def fileno(self):
        return self.sock.fileno()

    def tcp_state(self):
        if self.sock.fileno() < 0:
            return "closed"
        if self.sock.family == socket.AF_UNIX:
            return "unix"
        info = self.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
        return TCP_STATES[info[0]]

    def wait(self, events, end, what):
        """True when ready, Stuck at the deadline. Errors and hang-ups count as ready."""
        poller = select.poll()
        poller.register(self.sock, events)
        left = end - time.monotonic()
        if not poller.poll(max(left, 0) * 1000):
            raise Stuck(f"{what} did not get on; {self}")

    def _aborted(self, error, what):
        if error.errno not in ABORT_ERRNOS:
            raise error
        self.error = error.errno
        raise Reset(f"{what}: {errno.errorcode[error.errno]}; {self}") from None

    def send_some(self, limit=65536):
        """One send of at most `limit` bytes of the stream; 0 when the socket takes none now."""
        limit = min(limit, pattern.MAX_CHUNK)
        try:
            count = self.sock.send(pattern.piece(self.out, self.sent, limit))
        except BlockingIOError:
            return 0
        except OSError as error:
            self._aborted(error, "send")
        self.sent += count
        return count

    def send(self, count, chunk=262144, timeout=TIMEOUT, pause=None):
        """Sends `count` bytes. `chunk` is a size or a function that gives one; `pause()` seconds between sends."""
        end = time.monotonic() + timeout
        stop = self.sent + count
        while self.sent < stop:
            size = chunk() if callable(chunk) else chunk
            if not self.send_some(min(size, stop - self.sent)):
                self.wait(select.POLLOUT, end, f"send up to {stop}")
            elif pause:
                time.sleep(pause())
        return self

    def recv_some(self, limit=262144):
        """One recv: the number of (checked) bytes, 0 at EOF, None when nothing is there now."""
        try:
            data = self.sock.recv(limit)
        except BlockingIOError:
            return None
        except OSError as error:
            self._aborted(error, "recv")
        pattern.check(self.into, self.received, data, self.name)
        self.received += len(data)
        return len(data)

    def read(self, count=None, chunk=262144, timeout=TIMEOUT, pause=None):
        """Reads `count` bytes, or until EOF without a count. Returns what came."""
        end = time.monotonic() + timeout
        start = self.received
        stop = None if count is None else start + count
        while stop is None or self.received < stop:
            size = chunk() if callable(chunk) else chunk
            got = self.recv_some(size if stop is None else min(size, stop - self.received))
            if got is None:
                self._wait_input(end, f"read up to {stop if stop is not None else 'EOF'}")
            elif got == 0:
                if stop is None:
                    break
                raise CleanEof(f"FIN after {self.received} of {stop} bytes; {self}")
            elif pause:
                time.sleep(pause())
        return self.received - start

    def _wait_input(self, end, what):
        if not self.clock:
            before = time.monotonic()
            self.wait(select.POLLIN, end, what)
            self.max_gap = max(self.max_gap, time.monotonic() - before)
            return
        gap, reason = self.clock.time(self, end, what)
        if reason:
            self.excused.append((gap, reason))
        else:
            self.max_gap = max(self.max_gap, gap)

    def fin(self):
        self.sock.shutdown(socket.SHUT_WR)
        return self

    def abort(self):
        """RST, whatever is queued."""
        linger = struct.pack("ii", 1, 0)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.sock.close()

    def close(self):
        self.sock.close()

    def expect_eof(self, total=None, **options):
        """The rest of the stream is correct, ends with FIN, and had `total` bytes in all. Options as for read()."""
        self.read(**options)
        if self.error:
            raise Reset(f"EOF only after an abort; {self}")
        if total is not None and self.received != total:
            raise CleanEof(f"clean EOF after {self.received} bytes where {total} were sent; {self}")
        return self

    def expect_reset(self, **options):
        """What still arrives is correct, then comes an abort and not a FIN. Options as for read()."""
        try:
            self.read(**options)
        except Reset:
            return self
        end = time.monotonic() + 1
        while not self.error and time.monotonic() < end:  # a send() in another thread may have met the error first
            time.sleep(0.001)
        if not self.error:
            raise CleanEof(f"clean EOF after {self.received} bytes where an abort was due; {self}")
        return self

    def expect_silence(self, seconds):
        """Neither bytes nor an end arrive for so long."""
        poller = select.poll()
        poller.register(self.sock, select.POLLIN | select.POLLRDHUP)
        events = poller.poll(seconds * 1000)
        if events:
            raise AssertionError(f"expected silence, got events {events[0][1]:#x}, recv {self.recv_some()}; {self}")

    def is_alive(self):
        """No end of any kind has been seen by this socket."""
        poller = select.poll()
        poller.register(self.sock, select.POLLRDHUP)
        return not poller.poll(0)


class Task(threading.Thread):
    """A function that runs beside the test; result() gives its value or raises what it raised."""

    def __init__(self, function, *args, **kwargs):
        super().__init__(daemon=True, name=getattr(function, "__qualname__", "task"))
        self._call = (function, args, kwargs)
        self._value = None
        self._error = None
        self.start()

    def run(self):
        function, args, kwargs = self._call
        try:
            self._value = function(*args, **kwargs)
        except BaseException as error:  # handed to result()
            self._error = error

    def done(self):
        return not self.is_alive()

    def failed(self):
        return self._error is not None

    def result(self, timeout=2 * TIMEOUT):
        self.join(timeout)
        if self._error is not None:
            raise self._error
        if self.is_alive():
            raise Stuck(f"{self.name} was still running after {timeout:.0f} s")
        return self._value


def together(*tasks, timeout=4 * TIMEOUT):
    """Waits for all tasks; the first failure ends the wait. The values in order."""
    end = time.monotonic() + timeout
    pending = list(tasks)
    while pending:
        for task in pending:
            task.join(0.02 / len(pending))
            if task.failed():
                task.result(0)
        pending = [task for task in pending if not task.done()]
        if pending and time.monotonic() >= end:
            raise Stuck("still running: " + ", ".join(task.name for task in pending))
    return [task.result(0) for task in tasks]
