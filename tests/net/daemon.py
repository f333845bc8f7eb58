# SPDX-License-Identifier: BSD-2-Clause
"""Starts, watches and stops one shuntd, and reads its metrics."""

import http.client
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import tempfile

from peer import Stuck, wait_until
from settings import SCALE, program

TROUBLE = re.compile(r"\berror\b|\bBUG\b|Sanitizer|runtime error:|assert", re.IGNORECASE)


class Metrics(dict):
    """(name, frozenset of label pairs) -> value."""

    @classmethod
    def parse(cls, text):
        found = cls()
        for line in text.splitlines():
            if not line or line.startswith("#"):
                continue
            name, labels, value = re.fullmatch(r"([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)(?: \S+)?", line).groups()
            pairs = re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', labels or "")
            found[name, frozenset(pairs)] = float(value)
        return found

    def total(self, name, **labels):
        """The sum over every series of that name that carries these labels."""
        want = set(labels.items())
        return sum(value for (key, pairs), value in self.items() if key == name and want <= pairs)

    def by(self, name, label):
        """Label value -> sum, zeros left out."""
        sums = {}
        for (key, pairs), value in self.items():
            if key == name and value:
                word = dict(pairs).get(label)
                sums[word] = sums.get(word, 0) + value
        return sums

    def since(self, base):
        return Metrics({key: value - base.get(key, 0) for key, value in self.items()})


class _UnixHttp(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.host)


def http_get(address, path="/metrics", timeout=10 * SCALE):
    """GET from `unix:/path` or `host:port`: (status, headers, text)."""
    if address.startswith("unix:"):
        connection = _UnixHttp(address[5:], timeout=timeout)
    else:
        connection = http.client.HTTPConnection(address, timeout=timeout)
    try:
        connection.request("GET", path, headers={"Host": "localhost", "Connection": "close"})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read().decode()
    finally:
        connection.close()


def processes_below(pid):
    """All descendants of a process, itself left out."""
    found = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children") as file:
                found += [int(word) for word in file.read().split()]
    except (FileNotFoundError, ProcessLookupError):
        pass
    return found + [below for child in found for below in processes_below(child)]


def state_of(pid):
    """The letter in /proc/PID/stat; Z for a process that is gone."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "Z"


def rss_kib(pid):
    with open(f"/proc/{pid}/smaps_rollup") as file:
        sums = {line.split()[0]: int(line.split()[1]) for line in file if line.rstrip().endswith("kB")}
    return sums["Private_Clean:"] + sums["Private_Dirty:"], sums["Rss:"]


def cpu_seconds(pids):
    """CPU time of all threads, from the scheduler's nanosecond clock."""
    total = 0
    for pid in pids:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/schedstat") as file:
                total += int(file.read().split()[0])
    return total / 1e9


def voluntary_switches(pids):
    total = 0
    for pid in pids:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/status") as file:
                total += int(re.search(r"^voluntary_ctxt_switches:\s+(\d+)", file.read(), re.M).group(1))
    return total


class Daemon:
    """One shuntd. `pairs` are (listen, to) addresses; with `conf` the text of a configuration file instead."""

    def __init__(self, pairs=(), path="relay", parser="none", conf=None, stats=("unix",), threads=2, netns=None,
                 nofile=None, extra=()):
        self.dir = tempfile.mkdtemp(prefix="shunt-test-")
        os.chmod(self.dir, 0o755)  # the worker runs as another user and connects to UNIX servers in here
        self.stats = [f"unix:{self.dir}/stats.sock" if address == "unix" else address for address in stats]
        self.log_path = os.path.join(self.dir, "log")
        self.netns = netns
        self.nofile = nofile
        self.process = None
        self.log_start = 0
        self.last_log = None
        argv = program()
        if conf is not None:
            file = os.path.join(self.dir, "shunt.conf")
            with open(file, "w") as out:
                out.write(conf.format(dir=self.dir))
            argv += ["--config", file]
        else:
            for listen, to in pairs:
                argv += ["--listen", listen.format(dir=self.dir), "--to", to.format(dir=self.dir)]
            argv += ["--path", path, "--parser", parser, "--threads", str(threads)]
            for address in self.stats:
                argv += ["--stats", address]
        self.argv = argv + list(extra)

    # ---- life

    def start(self, timeout=15 * SCALE):
        argv = self.netns.command(self.argv) if self.netns else self.argv

        def limits():
            if self.nofile:
                resource.setrlimit(resource.RLIMIT_NOFILE, (self.nofile, self.nofile))

        with open(self.log_path, "w") as log:
            self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            preexec_fn=limits, start_new_session=True)
        try:
            self.wait_log(r"\bnotice: ready$", timeout=timeout)
        except Stuck as error:
            self.kill()
            raise AssertionError(f"shuntd did not get ready ({error}); its log:\n{self.log()}") from None
        return self

    @property
    def pid(self):
        return self.process.pid

    def is_running(self):
        return self.process is not None and self.process.poll() is None

    def workers(self):
        return [pid for pid in processes_below(self.pid) if state_of(pid) != "Z"]

    def signal(self, number):
        self.process.send_signal(number)

    def wait_exit(self, timeout=20 * SCALE):
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise Stuck(f"shuntd still runs after {timeout:.0f} s; its log:\n{self.log()}") from None

    def stop(self, timeout=20 * SCALE):
        """TERM twice (the second one means at once); the exit status."""
        if not self.is_running():
            return self.process.returncode
        below = self.workers()
        self.signal(signal.SIGTERM)
        try:
            self.process.wait(0.5)
        except subprocess.TimeoutExpired:
            self.signal(signal.SIGTERM)
        status = self.wait_exit(timeout)
        wait_until(f"every worker of {below} gone", lambda: all(state_of(pid) == "Z" for pid in below))
        return status

    def kill(self):
        """The last resort: SIGKILL for the processes of this daemon only."""
        if self.process is None:
            return
        below = self.workers() if self.is_running() else []
        if self.is_running():
            self.process.kill()
        self.process.wait()
        for pid in below:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass

    def remove(self):
        self.kill()
        self.last_log = self.log()
        if not os.environ.get("SHUNT_KEEP"):
            shutil.rmtree(self.dir, ignore_errors=True)

    # ---- log

    def log(self, everything=True):
        if self.last_log is None:
            with open(self.log_path, errors="replace") as file:
                text = file.read()
        else:
            text = self.last_log
        return text if everything else text[self.log_start:]

    def mark_log(self):
        self.log_start = len(self.log())

    def wait_log(self, pattern, timeout=10 * SCALE, everything=True):
        """The match of the first line that has the pattern."""
        expression = re.compile(pattern, re.MULTILINE)

        def look():
            found = expression.search(self.log(everything))
            if not found and not self.is_running():
                raise Stuck(f"shuntd ended with status {self.process.returncode} before it logged {pattern!r}")
            return found

        return wait_until(f"log has {pattern!r}", look, timeout)

    def trouble(self, allowed=()):
        """The log lines since mark_log() that no test may cause, but for those that match `allowed`."""
        lines = [line for line in self.log(everything=False).splitlines() if TROUBLE.search(line)]
        return [line for line in lines if not any(re.search(word, line) for word in allowed)]

    def address(self, listener="listener1", index=0):
        """Where the listener is bound: (host, port), or a path."""
        found = re.findall(rf"notice: listener {re.escape(listener)}: listening on (\S+)$", self.log(), re.MULTILINE)
        if len(found) <= index:
            raise AssertionError(f"no address {index} of listener {listener} in the log:\n{self.log()}")
        return split_address(found[index])

    # ---- metrics

    def metrics(self):
        status, _, text = http_get(self.stats[0])
        assert status == 200, f"GET /metrics: {status} {text}"
        return Metrics.parse(text)

    def wait_metric(self, what, condition, timeout=10 * SCALE):
        """Polls the metrics until `condition(metrics)`; the metrics."""
        last = [None]

        def look():
            last[0] = self.metrics()
            return condition(last[0])

        try:
            wait_until(what, look, timeout, interval=0.02)
        except Stuck as error:
            shown = {key: value for key, value in last[0].items() if value and not key[0].endswith("_bucket")}
            raise Stuck(f"{error}; metrics: {shown}") from None
        return last[0]


def split_address(text):
    if text.startswith("unix:"):
        return text[5:]
    host, port = text.rsplit(":", 1)
    return host.strip("[]"), int(port)
