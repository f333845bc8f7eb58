#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""A real web server behind shuntd, driven by real clients, once in each path. `make demo` runs it as root.

nginx serves a small and a large file. For each path, shuntd is started in front of it; wrk asks for the small
file over kept connections, curl asks for it over new ones and downloads the large one. The table comes from
wrk and from the daemon's metrics; the last line says what was proven. Exit: 0 all of it, 1 not.
"""
import hashlib
import http.client
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

ROOT = os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
SHUNTD = os.environ.get("SHUNTD", os.path.join(ROOT, "build", "shuntd"))
# Name in the table, options of shuntd, label of the path in the metrics.
PATHS = (
    ("relay", ("--path", "relay"), "relay"),
    ("sockmap", ("--path", "sockmap", "--parser", "none"), "sockmap"),
    ("sockmap, parser", ("--path", "sockmap", "--parser", "stream"), "sockmap"),
)
SECONDS = 5
CONNECTIONS = 32
SMALL_BYTES = 512
LARGE_BYTES = 256 << 20
FETCHES = 50
SHARE_MIN = 0.99  # of the small-message bytes
WAIT_S = 10
# wrk hangs up in the middle of its last requests; curl ends in order.
WRK_ENDS = {"complete", "client_abort"}
CURL_ENDS = {"complete"}

NGINX_CONF = """
daemon off;
worker_processes 1;
pid {dir}/nginx.pid;
error_log {dir}/nginx.log warn;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    keepalive_requests 100000000;
    sendfile on;
    client_body_temp_path {dir}/body;
    proxy_temp_path {dir}/proxy;
    fastcgi_temp_path {dir}/fastcgi;
    uwsgi_temp_path {dir}/uwsgi;
    scgi_temp_path {dir}/scgi;
    server {{ listen 127.0.0.1:{port} backlog=1024; root {dir}/www; }}
}}
"""


class Failure(Exception):
    """The demo cannot go on."""


class Group:
    """Processes that were started; each leads a process group, so that nothing of it can stay behind."""

    def __init__(self):
        self.started, self.starting, self.stopped = [], False, False

    def start(self, command, **kwargs):
        self.starting = True
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, **kwargs)
        self.started.append(process)
        self.starting = False
        if self.stopped:
            raise KeyboardInterrupt
        return process

    def on_signal(self, _number, _frame):
        """Not between the start of a process and the note of it."""
        self.stopped = True
        if not self.starting:
            raise KeyboardInterrupt

    def stop(self, process):
        """Returns its exit status. No part of it runs afterwards."""
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(WAIT_S)
        except subprocess.TimeoutExpired:
            pass
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        if process in self.started:
            self.started.remove(process)
        return process.wait()

    def stop_all(self):
        for process in reversed(list(self.started)):
            self.stop(process)


def wait_for(what, condition):
    deadline = time.monotonic() + WAIT_S
    while not condition():
        if time.monotonic() > deadline:
            raise Failure("%s: nothing after %d s" % (what, WAIT_S))
        time.sleep(0.01)


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def write(path, data):
    with open(path, "wb") as file:
        file.write(data)


def start_nginx(group, folder):
    """Returns the port."""
    port = free_port()
    write(os.path.join(folder, "nginx.conf"), NGINX_CONF.format(dir=folder, port=port).encode())
    process = group.start(["nginx", "-p", folder, "-c", os.path.join(folder, "nginx.conf")])

    def answers():
        if process.poll() is not None:
            raise Failure("nginx does not start")
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", port)) == 0
    wait_for("nginx", answers)
    return port


class Shuntd:
    """One daemon; its log lines are kept."""

    def __init__(self, group, options, port, stats_path):
        self.group, self.stats_path, self.lines = group, stats_path, []
        self.process = group.start([SHUNTD, "--listen", "127.0.0.1:0", "--to", "127.0.0.1:%d" % port,
                                    "--stats", "unix:" + stats_path, *options],
                                   stderr=subprocess.PIPE, text=True)
        self.reader = threading.Thread(target=self.read_log, daemon=True)
        self.reader.start()
        wait_for("shuntd", self.is_ready)
        self.port = int(self.find(r"listening on 127\.0\.0\.1:(\d+)$").group(1))

    def read_log(self):
        for line in self.process.stderr:
            self.lines.append(line.rstrip("\n"))

    def find(self, pattern):
        return next((match for match in (re.search(pattern, line) for line in list(self.lines)) if match), None)

    def is_ready(self):
        if self.process.poll() is not None:
            self.reader.join(WAIT_S)
            raise Failure("shuntd does not start:\n  " + "\n  ".join(self.lines))
        return self.find(r"notice: ready$")

    def complaints(self):
        return [line for line in self.lines if re.search(r": (warning|error): ", line)]

    def stop(self):
        status = self.group.stop(self.process)
        self.reader.join(WAIT_S)
        return status

    def metrics(self):
        """(name, labels as a dict) and value of each sample."""
        connection = http.client.HTTPConnection("localhost", timeout=WAIT_S)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(WAIT_S)
        try:
            connection.sock.connect(self.stats_path)
            connection.request("GET", "/metrics")
            answer = connection.getresponse()
            text = answer.read().decode()
        finally:
            connection.close()
        if answer.status != 200:
            raise Failure("/metrics: status %d" % answer.status)
        return Metrics(text)

    def wait_idle(self):
        """Metrics, once every session has ended."""
        wait_for("sessions to end", lambda: not self.metrics().total("shunt_listener_sessions_active"))
        return self.metrics()


class Metrics:
    def __init__(self, text):
        self.samples = []
        for name, labels, value in re.findall(r"^(\w+)(?:\{(.*)\})? (\S+)$", text, re.M):
            self.samples.append((name, dict(re.findall(r'(\w+)="([^"]*)"', labels)), float(value)))

    def total(self, name, **labels):
        return sum(value for sample, have, value in self.samples
                   if sample == name and labels.items() <= have.items())

    def by(self, name, label):
        return {have[label]: self.total(name, **{label: have[label]})
                for sample, have, _ in self.samples if sample == name and label in have}


def since(before, after, name, **labels):
    return after.total(name, **labels) - before.total(name, **labels)


def output_of(group, command):
    process = group.start(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    text = process.communicate()[0]
    if group.stop(process):
        raise Failure("%s: exit status %d\n%s" % (command[0], process.returncode, text))
    return text


def run_wrk(group, port):
    """Requests per second, p50, p99 as text, requests, errors."""
    text = output_of(group, ["wrk", "-t", "1", "-c", str(CONNECTIONS), "-d", "%ds" % SECONDS, "--latency",
                             "http://127.0.0.1:%d/small" % port])
    rate = re.search(r"^Requests/sec:\s+(\S+)", text, re.M)
    latency = dict(re.findall(r"^\s+(50|99)%\s+(\S+)", text, re.M))
    requests = re.search(r"(\d+) requests in", text)
    if not rate or not requests or len(latency) != 2:
        raise Failure("wrk says what the demo cannot read:\n" + text)
    errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    failed = sum(map(int, errors.groups())) if errors else 0
    return float(rate.group(1)), latency["50"], latency["99"], int(requests.group(1)), \
        failed + (int(bad.group(1)) if bad else 0)


def run_curl(group, urls, options=()):
    """sha256 and number of the body bytes, and of the bytes with headers that curl counted itself."""
    command = ["curl", "-sS", "--fail", "-w", "%{stderr}%{size_header} %{size_download}\\n", *options, *urls]
    with tempfile.TemporaryFile() as counts:
        process = group.start(command, stdout=subprocess.PIPE, stderr=counts)
        digest, size = hashlib.sha256(), 0
        while data := process.stdout.read(1 << 20):
            digest.update(data)
            size += len(data)
        status = process.wait()
        group.stop(process)
        counts.seek(0)
        text = counts.read().decode()
    if status:
        raise Failure("curl: exit status %d\n%s" % (status, text))
    return digest.hexdigest(), size, sum(int(number) for number in text.split())


class Check:
    """Claims about one path that have to hold."""

    def __init__(self, name, failures):
        self.name, self.failures = name, failures

    def claim(self, holds, text):
        if not holds:
            self.failures.append("%s: %s" % (self.name, text))

    def ends(self, what, before, after, allowed):
        reasons = after.by("shunt_sessions_ended_total", "reason")
        counts = {reason: since(before, after, "shunt_sessions_ended_total", reason=reason) for reason in reasons}
        ended = {reason: int(count) for reason, count in counts.items() if count}
        self.claim(ended and set(ended) <= allowed, "sessions of %s ended by %s" % (what, ended))


def run_path(group, folder, nginx_port, files, path, failures):
    """Returns the row of the table, and (requests, checked bytes, share)."""
    name, options, label = path
    check = Check(name, failures)
    daemon = Shuntd(group, options, nginx_port, os.path.join(folder, "stats.sock"))
    url = "http://127.0.0.1:%d/" % daemon.port

    start = daemon.metrics()
    rate, p50, p99, requests, errors = run_wrk(group, daemon.port)
    small = daemon.wait_idle()
    moved = since(start, small, "shunt_bytes_total")
    share = since(start, small, "shunt_bytes_total", path=label) / moved if moved else 0
    cpu = since(start, small, "process_cpu_seconds_total")
    check.claim(requests and not errors, "wrk: %d errors in %d requests" % (errors, requests))
    check.claim(share >= SHARE_MIN, "only %.2f %% of the small-message bytes took the path" % (share * 100))

    checked = 0
    for what, urls, copies, extra in (("small", [url + "small"] * FETCHES, FETCHES, ("-H", "Connection: close")),
                                      ("large", [url + "large"], 1, ())):
        before = daemon.wait_idle()
        digest, size, counted = run_curl(group, urls, extra)
        after = daemon.wait_idle()
        expected = hashlib.sha256(files[what] * copies).hexdigest()
        passed = since(before, after, "shunt_bytes_total", direction="s2c")
        check.claim(digest == expected, "%s file: wrong bytes (%d of %d)" % (what, size, len(files[what]) * copies))
        check.claim(passed == counted, "%s file: %d bytes counted, %d received" % (what, passed, counted))
        checked += size
        requests += copies
    check.ends("wrk", start, small, WRK_ENDS)
    check.ends("curl", small, after, CURL_ENDS)
    check.claim(not after.total("shunt_worker_restarts_total"), "the worker died")
    status = daemon.stop()
    check.claim(status == 0, "shuntd: exit status %d" % status)
    check.claim(not daemon.complaints(), "the log says:\n    " + "\n    ".join(daemon.complaints()))
    row = (name, "%.0f" % rate, p50, p99, "%.2f" % cpu, "%.2f %%" % (share * 100))
    return row, (requests, checked, share)


def run_all(group, folder):
    files = {"small": os.urandom(SMALL_BYTES), "large": os.urandom(LARGE_BYTES)}
    os.mkdir(os.path.join(folder, "www"))
    for name, data in files.items():
        write(os.path.join(folder, "www", name), data)
    port = start_nginx(group, folder)
    print("nginx serves %d bytes, and %d MiB; wrk uses %d connections for %d s\n" % (
        SMALL_BYTES, LARGE_BYTES >> 20, CONNECTIONS, SECONDS))
    form = "%-16s %11s %9s %9s %14s %14s"
    print(form % ("path", "requests/s", "p50", "p99", "daemon CPU s", "took the path"), flush=True)
    rate, p50, p99, _, _ = run_wrk(group, port)
    print(form % ("(no proxy)", "%.0f" % rate, p50, p99, "-", "-"), flush=True)
    failures, sums = [], []
    for path in PATHS:
        row, numbers = run_path(group, folder, port, files, path, failures)
        print(form % row, flush=True)
        sums.append(numbers)
    print()
    for failure in failures:
        print("NOT PROVEN: " + failure)
    if failures:
        return 1
    kernel = min(share for (_, _, label), (_, _, share) in zip(PATHS, sums) if label == "sockmap")
    print("proven: %d paths, %d requests, 0 errors, %d bytes checked by sha256 and by the daemon's counters, "
          "%.2f %% of small-message bytes in the kernel path" % (
              len(PATHS), sum(n[0] for n in sums), sum(n[1] for n in sums), kernel * 100))
    return 0


def main():
    missing = [tool for tool in ("nginx", "wrk", "curl") if not shutil.which(tool, path=os.environ.get(
        "PATH", "") + ":/usr/sbin:/sbin")]
    if os.geteuid() != 0:
        sys.exit("demo: the kernel path needs root: sudo make demo")
    if missing or not os.access(SHUNTD, os.X_OK):
        sys.exit("demo: missing: %s (make demo installs and builds)" % (", ".join(missing) or SHUNTD))
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    group, folder, status = Group(), None, 1
    handled = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    for number in handled:
        signal.signal(number, group.on_signal)
    try:
        folder = tempfile.mkdtemp(prefix="shunt-demo-")
        os.chmod(folder, 0o755)  # nginx and the worker have users of their own
        status = run_all(group, folder)
    except Failure as failure:
        print("\nNOT PROVEN: %s" % failure)
    except KeyboardInterrupt:
        print("\nNOT PROVEN: stopped")
    finally:
        for number in handled:
            signal.signal(number, signal.SIG_IGN)
        group.stop_all()
        if folder:
            shutil.rmtree(folder)
    return status


if __name__ == "__main__":
    sys.exit(main())
