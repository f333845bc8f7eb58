# SPDX-License-Identifier: BSD-2-Clause
"""Plays systemd for one shuntd: the commands, the sandbox and the notify socket of systemd/shuntd.service."""

import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

import unit as units
from daemon import http_get, Metrics, processes_below, state_of
from peer import SCALE, Stuck, wait_until

SANDBOX = os.path.join(units.HERE, "sandbox.py")


def program():
    return os.environ.get("SHUNTD", os.path.join(units.REPO, "build", "shuntd"))


def shuntctl():
    return os.path.join(os.path.dirname(program()), "shuntctl")


class Notices:
    """The socket of NOTIFY_SOCKET: every message with its time and the process that sent it."""

    def __init__(self, path):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.sock.bind(path)
        os.chmod(path, 0o777)  # as systemd's own; NotifyAccess= decides, not the mode
        self.received = []  # (time, pid, {name: value})
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        while True:
            data, extra, _, _ = self.sock.recvmsg(4096, 256)
            if not data:
                return
            pid = next((struct.unpack("iii", body[:12])[0] for level, kind, body in extra
                        if level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS), 0)
            words = dict(line.split("=", 1) for line in data.decode().splitlines())
            self.received.append((time.monotonic(), pid, words))

    def close(self):
        self.sock.shutdown(socket.SHUT_RDWR)
        self.thread.join(5)
        self.sock.close()

    def words(self, start=0):
        """What was said, without the texts that vary: READY, RELOADING, STOPPING, in their order."""
        return [name for _, _, message in list(self.received)[start:] for name in message
                if name in ("READY", "RELOADING", "STOPPING")]

    def status(self):
        """The status text that `systemctl status` would show."""
        texts = [message["STATUS"] for _, _, message in list(self.received) if "STATUS" in message]
        return texts[-1] if texts else None


class Service:
    """One shuntd below /run; `conf` is the text of its configuration, in which {dir} is its directory."""

    def __init__(self, conf, netns=None):
        self.dir = tempfile.mkdtemp(prefix="shunt-package-", dir="/run")
        os.chmod(self.dir, 0o755)
        self.netns = netns
        self.unit = units.read()
        self.conf_path = os.path.join(self.dir, "shunt.conf")
        self.log_path = os.path.join(self.dir, "log")
        self.program = shutil.copy(program(), self.dir)
        self.places = {"/usr/sbin/shuntd": self.program, "/etc/shunt/shunt.conf": self.conf_path}
        self.write_conf(conf)
        self.process = None
        self.notices = Notices(os.path.join(self.dir, "notify"))

    def write_conf(self, text):
        """As the package has it: for root to write and all to read; replaced at once, as editors do."""
        with open(self.conf_path + ".new", "w") as file:
            file.write(text.replace("{dir}", self.dir))
        os.chmod(self.conf_path + ".new", 0o644)
        os.rename(self.conf_path + ".new", self.conf_path)

    def sandboxed(self, argv):
        argv = [sys.executable, SANDBOX, units.UNIT, self.dir, *argv]
        return self.netns.command(argv) if self.netns else argv

    # ---- what systemctl does

    def launch(self):
        argv, = units.commands(self.unit, "ExecStart", self.places)
        environment = {**os.environ, "NOTIFY_SOCKET": os.path.join(self.dir, "notify")}
        with open(self.log_path, "w") as log:
            self.process = subprocess.Popen(self.sandboxed(argv), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            env=environment, start_new_session=True)
        return self

    def start(self):
        self.launch()

        def look():
            if not self.is_running():
                raise Stuck(f"shuntd ended with status {self.process.returncode}")
            return self.notices.words()

        try:
            wait_until("a notice", look, 20 * SCALE)
        except Stuck as error:
            raise AssertionError(f"{error}; its log:\n{self.log()}") from None
        assert self.notices.words() == ["READY"]
        return self

    def reload(self):
        """`systemctl reload`: each ExecReload= in turn, up to the first that fails; the last one's result."""
        places = {**self.places, "$MAINPID": str(self.pid)}
        for argv in units.commands(self.unit, "ExecReload", places):
            own = argv[0] == self.program
            done = subprocess.run(self.sandboxed(argv) if own else argv, capture_output=True, text=True)
            if done.returncode:
                break
        return done

    def stop(self, timeout=20 * SCALE):
        """KillMode=mixed: TERM to the main process alone. A second TERM cuts the drain short."""
        if not self.is_running():
            return self.process.returncode
        below = processes_below(self.pid)
        self.process.terminate()
        try:
            self.process.wait(1)
        except subprocess.TimeoutExpired:
            self.process.terminate()
        status = self.process.wait(timeout)
        wait_until("no process is left", lambda: all(state_of(pid) == "Z" for pid in below))
        return status

    # ---- looking

    @property
    def pid(self):
        return self.process.pid

    def is_running(self):
        return self.process is not None and self.process.poll() is None

    def worker(self):
        pid, = [pid for pid in processes_below(self.pid) if state_of(pid) != "Z"]
        return pid

    def log(self):
        with open(self.log_path, errors="replace") as file:
            return file.read()

    def address(self, listener):
        found = re.search(rf"notice: listener {re.escape(listener)}: listening on (\S+):(\d+)$", self.log(), re.M)
        assert found, f"listener {listener} is not in the log:\n{self.log()}"
        return found.group(1).strip("[]"), int(found.group(2))

    def metrics(self, address=None):
        status, _, text = http_get(address or f"unix:{self.dir}/stats.sock")
        assert status == 200, text
        return Metrics.parse(text)

    def close(self):
        if self.is_running():
            below = processes_below(self.pid)
            self.process.kill()
            self.process.wait()
            for pid in below:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
        self.notices.close()
        shutil.rmtree(self.dir, ignore_errors=True)
