# SPDX-License-Identifier: BSD-2-Clause
"""Real servers from Debian's packages, each with its own folder and port, and their own clients."""

import glob
import hashlib
import os
import pwd
import re
import shutil
import socket
import subprocess
import tempfile

import pattern
from peer import wait_until
from settings import SCALE
from stage import PORTS


def free_port():
    sock = PORTS.listen()
    port = sock.getsockname()[1]
    sock.close()
    return port


def answers(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
        return True
    except OSError:
        return False


def run(*argv, timeout=120, **options):
    """The output of a program that has to succeed."""
    done = subprocess.run([str(word) for word in argv], capture_output=True, text=True, timeout=timeout * SCALE,
                          **options)
    assert done.returncode == 0, f"{' '.join(map(str, argv))}: status {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


class Server:
    """A server process that runs in the foreground; close() ends it and removes its folder."""

    user = None

    def __init__(self):
        self.dir = tempfile.mkdtemp(prefix="shunt-test-")
        os.chmod(self.dir, 0o755)
        self.port = free_port()
        self.process = None
        try:
            argv = self.prepare()
            with open(f"{self.dir}/log", "w") as log:
                self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.dir,
                                                start_new_session=True)
            wait_until(f"{argv[0]} answers", self.is_up, timeout=30 * SCALE)
        except BaseException:
            self.close()
            raise

    def is_up(self):
        if self.process.poll() is not None:
            raise AssertionError(f"{self.process.args[0]} ended: {self.log()}")
        return answers(self.port)

    def log(self):
        with open(f"{self.dir}/log", errors="replace") as file:
            return file.read()

    def close(self):
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        shutil.rmtree(self.dir, ignore_errors=True)


class Nginx(Server):
    def prepare(self):
        os.makedirs(f"{self.dir}/www")
        with open(f"{self.dir}/www/small", "wb") as file:
            file.write(b"24 bytes, not one more.\n")
        with open(f"{self.dir}/nginx.conf", "w") as file:
            file.write(f"""daemon off; user root; worker_processes 1; pid {self.dir}/pid; error_log stderr warn;
events {{ worker_connections 4096; }}
http {{
    access_log off; sendfile on; tcp_nodelay on; keepalive_requests 1000000000;
    client_body_temp_path {self.dir}/body; proxy_temp_path {self.dir}/proxy; fastcgi_temp_path {self.dir}/fastcgi;
    uwsgi_temp_path {self.dir}/uwsgi; scgi_temp_path {self.dir}/scgi;
    server {{
        listen 127.0.0.1:{self.port} backlog=4096 reuseport; root {self.dir}/www; client_max_body_size 0;
        location /upload {{ dav_methods PUT; }}
    }}
}}
""")
        os.makedirs(f"{self.dir}/www/upload")
        return ["nginx", "-c", f"{self.dir}/nginx.conf", "-e", "stderr"]

    def file(self, megabytes):
        """(name, sha256) of a file of that size."""
        name, digest = f"{megabytes}MB", hashlib.sha256()
        with open(f"{self.dir}/www/{name}", "wb") as file:
            for number in range(megabytes):
                piece = pattern.piece(7, number << 20, 1 << 20)
                digest.update(piece)
                file.write(piece)
        return name, digest.hexdigest()


def download(url):
    """(bytes, sha256) of what curl gets."""
    curl = subprocess.Popen(["curl", "--silent", "--show-error", "--fail", url], stdout=subprocess.PIPE)
    digest, count = hashlib.sha256(), 0
    while piece := curl.stdout.read(1 << 20):
        digest.update(piece)
        count += len(piece)
    curl.stdout.close()
    assert curl.wait() == 0, f"curl ended with {curl.returncode} after {count} bytes"
    return count, digest.hexdigest()


def wrk(url, seconds, *options):
    """Requests done; any error fails."""
    output = run("wrk", "-t2", "-c32", f"-d{seconds}s", *options, url, timeout=seconds + 60)
    assert "Socket errors" not in output and "Non-2xx" not in output, output
    print(re.search(r"Requests/sec.*", output).group())
    return int(re.search(r"(\d+) requests in", output).group(1))


class Redis(Server):
    def prepare(self):
        return ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
                "--dir", self.dir, "--daemonize", "no"]


def redis_benchmark(port, requests, *options):
    output = run("redis-benchmark", "-h", "127.0.0.1", "-p", port, "-n", requests, "-c", 16, "-q", *options, timeout=600)
    assert "rror" not in output, output
    return output


class Postgres(Server):
    def prepare(self):
        binaries = sorted(glob.glob("/usr/lib/postgresql/*/bin"))[-1]
        account = pwd.getpwnam("postgres")
        self.bin = binaries
        self.as_user = ["setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups"]
        data = f"{self.dir}/data"
        os.mkdir(data)
        os.chown(data, account.pw_uid, account.pw_gid)
        os.chown(self.dir, account.pw_uid, account.pw_gid)
        run(*self.as_user, f"{binaries}/initdb", "-D", data, "-U", "postgres", "-A", "trust", "-N", "-E", "UTF8",
            "--locale=C", cwd=self.dir)
        return [*self.as_user, f"{binaries}/postgres", "-D", data, "-p", str(self.port), "-k", self.dir,
                "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off", "-c", "synchronous_commit=off"]

    def is_up(self):
        return super().is_up() and subprocess.run(
            [f"{self.bin}/pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)]).returncode == 0

    def pgbench(self, port, *options):
        output = run(f"{self.bin}/pgbench", "-h", "127.0.0.1", "-p", port, "-U", "postgres", *options, "postgres",
                     cwd=self.dir)
        assert "rror" not in output and "abort" not in output, output
        return output

    def psql(self, port, sql):
        return run(f"{self.bin}/psql", "-h", "127.0.0.1", "-p", port, "-U", "postgres", "-XAtq", "-c", sql, "postgres",
                   cwd=self.dir)
