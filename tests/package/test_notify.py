# SPDX-License-Identifier: BSD-2-Clause
"""What systemd is told, by a daemon that runs under what the unit allows it."""

import contextlib
import grp
import http.client
import os
import pwd
import re
import signal
import shutil
import socket
import subprocess
import threading
import time

import pytest

import unit as units
from peer import SCALE, wait_until
from service import shuntctl

CONF = """[global]
stats = unix:{dir}/stats.sock
control = unix:{dir}/control.sock
user = nobody
threads = 2
path = %(path)s
drain_timeout = 20s

[listener web]
bind = 127.0.0.1:%(port)d
backend = app

[backend app]
server = 127.0.0.1:%(server)d
"""


@pytest.fixture
def echo():
    """The port of a server that sends back what it gets."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(sock):
        with sock, contextlib.suppress(OSError):
            while data := sock.recv(65536):
                sock.sendall(data)

    def accept():
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


@pytest.fixture
def service(make_service, echo):
    service = make_service(conf(echo))
    return service.start()


def conf(server, port=0, path="auto", more=""):
    return CONF % {"server": server, "port": port, "path": path} + more


def connect(service):
    return socket.create_connection(service.address("web"), timeout=10 * SCALE)


def round_trip(sock, data=b"x" * 1000):
    sock.sendall(data)
    got = b""
    while len(got) < len(data):
        part = sock.recv(65536)
        assert part, "the connection ended early"
        got += part
    assert got == data


def status_lines(pid, *names):
    with open(f"/proc/{pid}/status") as file:
        lines = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
    return [lines[name].split() for name in names]


# ---- start


def test_ready_is_said_once_and_by_the_main_process_when_it_serves(make_service, echo):
    service = make_service(conf(echo)).start()
    with connect(service) as sock:
        round_trip(sock)
    assert service.notices.words() == ["READY"]
    assert service.notices.status() == "Serving"
    assert {pid for _, pid, _ in service.notices.received} == {service.pid}, "NotifyAccess=main hears nobody else"


def test_not_ready_where_it_cannot_start(make_service, echo):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        service = make_service(conf(echo, port=taken.getsockname()[1])).launch()
        assert service.process.wait(20 * SCALE) == 1
    assert service.notices.words() == []


# ---- under the unit


@pytest.mark.parametrize("path", ["auto", "relay"])
def test_traffic_takes_its_path_under_the_unit(make_service, echo, path):
    service = make_service(conf(echo, path=path)).start()
    with connect(service) as sock:
        for _ in range(50):
            round_trip(sock)
            time.sleep(0.002)
    wanted = "sockmap" if path == "auto" else "relay"
    moved = wait_until("the bytes are counted", lambda: service.metrics().by("shunt_bytes_total", "path"))
    assert moved.get(wanted, 0) >= 0.9 * sum(moved.values()), f"{moved}\n{service.log()}"
    assert "switched off" not in service.log()


def test_self_test_is_complete_under_the_unit(make_service, echo):
    service = make_service(conf(echo))
    argv = service.sandboxed([service.program, "--probe"])
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not re.search(r": no\b", done.stdout), done.stdout


def test_supervisor_has_the_capabilities_of_the_unit_and_the_worker_none(service):
    unit = units.read()
    effective, bounding, secure = status_lines(service.pid, "CapEff", "CapBnd", "NoNewPrivs")
    assert effective == bounding
    assert bin(int(bounding[0], 16)).count("1") == len(unit["CapabilityBoundingSet"][0].split())
    assert secure == ["1"]
    worker = status_lines(service.worker(), "CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb")
    assert {word for line in worker for word in line} == {"0000000000000000"}
    assert status_lines(service.worker(), "Uid", "Groups", "Seccomp") == [["65534"] * 4, [], ["2"]]


def test_statistics_have_their_nicer_thread_under_the_unit(service):
    """The one call of @resources that the unit gives back."""
    pid = service.worker()

    def niceness(task):
        with open(f"/proc/{pid}/task/{task}/stat") as file:
            return int(file.read().rsplit(")", 1)[1].split()[16])

    service.metrics()
    assert any(niceness(task) > 0 for task in os.listdir(f"/proc/{pid}/task"))


@pytest.mark.parametrize("argv, error", [
    (["touch", "/etc/shunt-was-here"], "Read-only file system"),
    (["chown", "nobody", "{conf}"], "Operation not permitted"),
    (["ip", "link"], "Operation not permitted"),
    (["cat", "/proc/sys/kernel/hostname"], "No such file or directory"),
    (["unshare", "--uts", "true"], "Operation not permitted"),
    (["nice", "-n", "-1", "true"], "Permission denied"),
    (["taskset", "1", "true"], "Operation not permitted"),
    (["cat", "{secret}"], "Permission denied"),
], ids=lambda value: value[0] if isinstance(value, list) else "")
def test_sandbox_of_these_tests_bites(make_service, echo, argv, error):
    """Else what passes in it would prove nothing."""
    service = make_service(conf(echo))
    secret = os.path.join(service.dir, "secret")
    with open(secret, "w") as file:
        os.fchmod(file.fileno(), 0o600)
        os.fchown(file.fileno(), 65534, 65534)
    words = [shutil.which(argv[0])] + [word.format(conf=service.conf_path, secret=secret) for word in argv[1:]]
    done = subprocess.run(service.sandboxed(words), capture_output=True, text=True)
    assert error in done.stderr, f"status {done.returncode}: {done.stderr}{done.stdout}"


def test_control_socket_is_for_the_workers_group(service):
    """Without CAP_CHOWN, because the supervisor is a member."""
    info = os.stat(f"{service.dir}/control.sock")
    group = grp.getgrgid(pwd.getpwnam("nobody").pw_gid).gr_name
    assert (info.st_uid, grp.getgrgid(info.st_gid).gr_name, info.st_mode & 0o777) == (0, group, 0o660)
    assert "chown" not in service.log()


# ---- reload


def reloaded(service, start, words):
    wait_until(f"{words} is said", lambda: len(service.notices.words(start)) >= len(words), 10 * SCALE)
    assert service.notices.words(start) == words
    return [message for _, _, message in service.notices.received[start:]]


def test_reload_is_told_from_begin_to_end(service, echo):
    with connect(service) as sock:
        round_trip(sock)
        service.write_conf(conf(echo, more="connect_timeout = 3s\n"))
        start = len(service.notices.received)
        before = time.clock_gettime(time.CLOCK_MONOTONIC)
        assert service.reload().returncode == 0
        begin, end = reloaded(service, start, ["RELOADING", "READY"])
        after = time.clock_gettime(time.CLOCK_MONOTONIC)
        # notify-reload of later systemd drops a RELOADING=1 without the right time.
        assert before <= int(begin["MONOTONIC_USEC"]) / 1e6 <= after
        assert end["STATUS"] == "Serving"
        round_trip(sock)
    with connect(service) as sock:
        round_trip(sock)
    assert service.metrics().total("shunt_config_reloads_total", result="ok") == 1


def test_reload_of_an_error_fails_in_systemctl_and_reaches_nobody(service, echo):
    """ExecReload= checks first: the daemon never hears of it."""
    service.write_conf(conf(echo, more="conect_timeout = 3s\n"))
    start = len(service.notices.received)
    done = service.reload()
    assert done.returncode == 1
    assert re.search(r"shunt\.conf:\d+: .*conect_timeout", done.stderr), done.stderr
    assert service.notices.words(start) == []
    with connect(service) as sock:
        round_trip(sock)


def test_failed_reload_is_the_status_and_the_service_goes_on(service, echo):
    """What --check cannot see: an address that is taken. Then the error of a file, by a bare HUP."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        more = f"\n[listener more]\nbind = 127.0.0.1:{taken.getsockname()[1]}\nbackend = app\n"
        service.write_conf(conf(echo, more=more))
        start = len(service.notices.received)
        assert service.reload().returncode == 0
        _, end = reloaded(service, start, ["RELOADING", "READY"])
    assert end["STATUS"].startswith("Reload failed: ")
    service.write_conf(conf(echo, more="conect_timeout = 3s\n"))
    start = len(service.notices.received)
    os.kill(service.pid, signal.SIGHUP)
    _, end = reloaded(service, start, ["RELOADING", "READY"])
    assert re.search(r"^Reload failed: .*shunt\.conf:\d+: .*conect_timeout", end["STATUS"]), end
    with connect(service) as sock:
        round_trip(sock)
    assert service.metrics().total("shunt_config_reloads_total", result="error") == 2
    service.write_conf(conf(echo))
    start = len(service.notices.received)
    assert service.reload().returncode == 0
    _, end = reloaded(service, start, ["RELOADING", "READY"])
    assert end["STATUS"] == "Serving", "the next good reload clears the status"


def test_reload_by_shuntctl_waits_for_its_outcome(service, echo):
    """The drop-in that the unit suggests."""
    shutil.copy(shuntctl(), service.dir)
    argv = service.sandboxed([f"{service.dir}/shuntctl", "--socket", f"{service.dir}/control.sock", "reload"])
    service.write_conf(conf(echo, more="connect_timeout = 3s\n"))
    start = len(service.notices.received)
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    reloaded(service, start, ["RELOADING", "READY"])
    with socket.create_server(("127.0.0.1", 0)) as taken:
        more = f"\n[listener more]\nbind = 127.0.0.1:{taken.getsockname()[1]}\nbackend = app\n"
        service.write_conf(conf(echo, more=more))
        done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode and "listener" in done.stderr, done.stdout + done.stderr


# ---- death and stop


def test_death_of_the_worker_is_none_of_systemds_business(service):
    worker = service.worker()
    os.kill(worker, signal.SIGKILL)
    wait_until("another worker serves", lambda: re.search(r"notice: worker (\d+) ready", service.log()), 10 * SCALE)
    with connect(service) as sock:
        round_trip(sock)
    assert service.worker() != worker
    assert service.notices.words() == ["READY"]


def test_stopping_is_said_at_term_and_sessions_go_on(service):
    with connect(service) as sock:
        round_trip(sock)
        service.process.terminate()
        wait_until("STOPPING is said", lambda: service.notices.words() == ["READY", "STOPPING"], 5 * SCALE)
        round_trip(sock)
        assert service.is_running(), "shuntd left while a session was open"
    assert service.process.wait(5 * SCALE) == 0, "far less than drain_timeout"
    assert service.notices.words() == ["READY", "STOPPING"]
    assert not {"stats.sock", "control.sock"} & set(os.listdir(service.dir))


def test_unix_statistics_answer_everybody(service):
    """UMask= of the unit does not reach the socket."""
    path = f"{service.dir}/stats.sock"
    assert os.stat(path).st_mode & 0o777 == 0o666
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(path)
    connection = http.client.HTTPConnection("localhost")
    connection.sock = sock
    connection.request("GET", "/readyz")
    assert connection.getresponse().status == 200
    connection.close()
