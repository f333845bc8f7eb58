# SPDX-License-Identifier: BSD-2-Clause
"""Clients that never finish their handshake cost other clients nothing, and go when their time is over."""

import contextlib
import os
import re
import select
import subprocess
import sys
import time

import pytest

from apps import Nginx
from daemon import cpu_seconds
from ops.farm import until
from peer import SCALE
from stage import shown
from who import SEEDS, headers
from who.test_accept import WHERE, WHO

COUNT, SECONDS = 1000, 5
HELLO = os.path.join(SEEDS, "fuzz_hello.in", "openssl4-mlkem768")


@pytest.fixture(scope="module")
def nginx():
    with contextlib.closing(Nginx()) as nginx:
        yield nginx


class Loris:
    def __init__(self, address, path):
        self.process = subprocess.Popen(
            [sys.executable, os.path.join(os.path.dirname(__file__), "loris.py"), *map(str, address), str(COUNT),
             str(SECONDS), str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def line(self, timeout):
        assert select.select([self.process.stdout], [], [], timeout * SCALE)[0], "the slow clients say nothing"
        return self.process.stdout.readline().strip()

    def close(self):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


def request(scene, listener, start):
    """Seconds for a connection, a request and its answer."""
    began = time.monotonic()
    with scene.open(listener) as sock:
        sock.sendall(start + b"GET /small HTTP/1.0\r\n\r\n")
        answer = b""
        while part := sock.recv(4096):
            answer += part
    scene.clients.clear()
    assert answer.endswith(b"24 bytes, not one more.\n"), answer
    return time.monotonic() - began


def measure(scene, listener, start, seconds):
    """(median, p99) of requests in a row, 2 ms apart, in milliseconds."""
    took, go_on = [], until(seconds)
    while go_on():
        took.append(1000 * request(scene, listener, start))
        time.sleep(0.002)
    took.sort()
    assert len(took) >= 100, f"{len(took)} requests in {seconds} s"
    return took[len(took) // 2], took[len(took) * 99 // 100]


@pytest.mark.modes("sockmap")
def test_thousand_slow_hellos_leave_the_latency_of_another_client_as_it_was(launch, nginx):
    slow_clients_harm_nobody(launch, nginx, "hello", HELLO)


@pytest.mark.long
@pytest.mark.modes("relay")
def test_thousand_slow_hellos_leave_the_latency_of_another_client_as_it_was_in_relay(launch, nginx):
    slow_clients_harm_nobody(launch, nginx, "hello", HELLO)


@pytest.mark.long
@pytest.mark.modes("relay", "sockmap")
def test_thousand_slow_proxy_headers_leave_the_latency_of_another_client_as_it_was(launch, nginx, tmp_path):
    path = tmp_path / "header"
    path.write_bytes(headers.v1(WHO, WHERE))
    slow_clients_harm_nobody(launch, nginx, "header", path)


def slow_clients_harm_nobody(launch, nginx, kind, path):
    """They send a byte a second, into the listener that the other client uses."""
    server = {"server": f"{shown(('127.0.0.1', nginx.port))} name=nginx", "check": "off"}
    listener = {"bind": "127.0.0.1:0", "backend": "web", "handshake_timeout": f"{SECONDS + 3}s"}
    scene = launch({
        "global": {}, "backend web": server, "backend git": server,
        "listener front": {**listener, "route": "git.example.org git"} if kind == "hello" else {
            **listener, "accept_proxy": "on"},
    })
    start = headers.v1(WHO, WHERE) if kind == "header" else b""
    scene.allow(ends={"handshake_timeout"})
    measure(scene, "front", start, 0.3)
    before = measure(scene, "front", start, 1.5)
    with contextlib.closing(Loris(scene.address(), path)) as loris:
        assert loris.line(20) == "open"
        scene.wait_active(COUNT)
        served, cpu = scene.sessions("web")["nginx"], cpu_seconds(scene.daemon.workers())
        during = measure(scene, "front", start, SECONDS - 2)
        cpu = cpu_seconds(scene.daemon.workers()) - cpu
        metrics = scene.metrics()
        assert metrics.total("shunt_listener_sessions_active") == COUNT, "they did not stay to the end"
        report = f"median and p99 in ms: before {before[0]:.2f} {before[1]:.2f}, during {during[0]:.2f} {during[1]:.2f}"
        print(report, f"requests {scene.sessions('web')['nginx'] - served}, CPU {cpu:.2f} s")
        # The slow clients' own work and the two shared processors are within the second term.
        assert during[0] <= 2 * before[0] + 2 * SCALE, report
        assert during[1] <= 3 * before[1] + 20 * SCALE, report
        sent, ended = map(int, re.fullmatch(r"sent=(\d+) ended=(\d+)", loris.line(20)).groups())
        assert (sent, ended) == (COUNT * SECONDS, 0), "they were to send all the time"
        requests = scene.ended("complete")
        assert scene.sessions("web")["nginx"] == requests, "a slow client reached the server"
        scene.wait_ended("handshake_timeout", COUNT, timeout=(SECONDS + 3) * SCALE)
    scene.wait_active(0)
    assert scene.ended("handshake_timeout") == COUNT
    assert request(scene, "front", start) < 1 * SCALE
