# SPDX-License-Identifier: BSD-2-Clause
"""flood.c from Python: echo servers in processes of their own, and connections at a rate."""

import re
import select
import signal
import subprocess
import time

from peer import SCALE, Stuck
from stage import PORTS, shown


class EchoServer:
    """A process that echoes. Its listening socket may be closed and opened again while connections live on."""

    def __init__(self, program, name):
        sock = PORTS.listen()
        self.name, self.address = name, sock.getsockname()
        self.process = subprocess.Popen([program, "serve", str(sock.fileno())], pass_fds=[sock.fileno()],
                                        stdout=subprocess.PIPE, text=True)
        sock.close()

    def line(self, options=""):
        return f"{shown(self.address)} name={self.name} {options}".strip()

    def _order(self, number, answer):
        self.process.send_signal(number)
        if not select.select([self.process.stdout], [], [], 10 * SCALE)[0]:
            raise Stuck(f"the server did not say {answer}")
        assert self.process.stdout.readline().strip() == answer

    def shut(self):
        """Accepts what waits and closes the listening socket."""
        self._order(signal.SIGUSR1, "closed")

    def open(self):
        self._order(signal.SIGUSR2, "open")

    def close(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


class Flood:
    """RATE connections a second from a process; each exchanges a checked message."""

    def __init__(self, program, address, rate, seconds):
        self.seconds, self.rate, self.start = seconds, rate, time.monotonic()
        self.process = subprocess.Popen([program, "connect", address[0], str(address[1]), str(rate), str(seconds)],
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def is_running(self):
        return self.process.poll() is None

    def end(self):
        """No new connections from now on."""
        self.process.send_signal(signal.SIGTERM)
        return self

    def result(self):
        """{what: number of connections}"""
        out, err = self.process.communicate(timeout=self.seconds + 30 * SCALE)
        assert self.process.returncode == 0, f"{out} {err}"
        print(out.strip(), err[:2000])
        return {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)", out)}

    def close(self):
        if self.is_running():
            self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.process.stderr.close()


FAILURES = ("refused", "reset", "eof", "wrong", "timeout", "other")


def failures(result):
    return {key: result[key] for key in FAILURES if result[key]}
