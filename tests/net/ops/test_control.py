# SPDX-License-Identifier: BSD-2-Clause
"""What an operator changes at run time: it takes effect on traffic, and it stays through a reload."""

import http.client
import json
import socket

import pytest

from daemon import http_get
from ops.scene import farm_lines, is_refused
from peer import TIMEOUT, wait_until
from stage import PORTS, shown

pytestmark = pytest.mark.modes("sockmap")
CONTROL = {"control": "unix:{dir}/control.sock"}


class _Connection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=TIMEOUT)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def post(scene, path, **members):
    """(status, answer) of a change."""
    connection = _Connection(f"{scene.daemon.dir}/control.sock")
    try:
        connection.request("POST", path, json.dumps(members) if members else None,
                           {"Content-Type": "application/json"} if members else {})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read() or b"{}")
    finally:
        connection.close()


def set_server(scene, name, **members):
    status, answer = post(scene, f"/v1/servers/app/{name}", **members)
    assert status == 200, (status, answer)


@pytest.fixture
def controlled(launch):
    """launch() with a control socket."""
    def make(top=(), **keys):
        return launch(top={**CONTROL, "threads": "1", **dict(top)}, **keys)
    return make


@pytest.mark.modes("relay", "sockmap")
@pytest.mark.parametrize("state", ["drain", "maint"])
def test_server_that_is_taken_out_gets_no_new_sessions_and_keeps_its_own(controlled, servers, state):
    scene = controlled(servers=servers("a", "b"))
    clients = [scene.connect().exchange() for _ in range(6)]
    set_server(scene, "a", state=state)
    assert scene.visits(10) == {"b": 10}
    for client in clients:
        client.exchange(50_000)
    set_server(scene, "a", state="ready")
    assert scene.visits(10) == {"a": 5, "b": 5}
    for client in clients:
        client.leave()
    assert {client.who() for client in clients} == {"a", "b"}


def test_weight_changes_the_shares(controlled, servers):
    scene = controlled(servers=servers("a", "b"))
    set_server(scene, "a", weight=3)
    assert scene.visits(40) == {"a": 30, "b": 10}
    set_server(scene, "a", weight=0)
    assert scene.visits(10) == {"b": 10}
    set_server(scene, "a", weight=None)
    assert scene.visits(10) == {"a": 5, "b": 5}


def test_operators_word_stands_through_a_reload(controlled, servers):
    a, b, c, d = farm = servers("a", "b", "c", "d")
    scene = controlled(servers=farm[:3])
    set_server(scene, "a", state="drain")
    set_server(scene, "b", weight=3)
    assert scene.visits(20) == {"b": 15, "c": 5}
    scene.reload({"backend app": {"server": farm_lines([d, c, b, a], {"b": "weight=7", "a": "weight=9"})}})
    assert scene.visits(25) == {"b": 15, "c": 5, "d": 5}
    set_server(scene, "a", state="ready")
    set_server(scene, "b", weight=None)
    assert scene.visits(36) == {"a": 18, "b": 14, "c": 2, "d": 2}


@pytest.mark.parametrize("change", [{"state": "ready"}, {"weight": None}])
def test_server_that_is_let_in_again_serves_those_that_wait(controlled, servers, change):
    a, b = farm = servers("a", "b")
    scene = controlled(servers=farm, backend={"server_max_sessions": "1", "queue_timeout": "20s"})
    set_server(scene, "b", **({"state": "drain"} if "state" in change else {"weight": 0}))
    holder = scene.connect().exchange()
    waiting = scene.connect(early=100)
    scene.wait_active(2)
    set_server(scene, "b", **change)
    assert waiting.who(timeout=5) == "b"
    waiting.read_back()
    holder.exchange()


def test_unknown_server_is_an_error_and_changes_nothing(controlled, servers):
    scene = controlled(servers=servers("a", "b"))
    status, answer = post(scene, "/v1/servers/app/nobody", state="maint")
    assert status == 404 and "nobody" in json.dumps(answer)
    status, answer = post(scene, "/v1/servers/app/a", state="asleep")
    assert 400 <= status < 500
    assert scene.visits(4) == {"a": 2, "b": 2}


def test_reload_by_request_answers_with_its_outcome(controlled, servers):
    a, b = servers("a", "b")
    scene = controlled(servers=[a])
    scene.allow(log=["reload failed", "Address already in use", "reload: "])
    old = scene.connect().exchange()
    with open(scene.file) as file:
        text = file.read()
    scene.write(text.replace(a.line(), b.line()))
    status, answer = post(scene, "/v1/reload")
    assert status == 200, answer
    assert scene.visits(3) == {"b": 3}
    scene.write(text + "colour = blue\n")
    status, answer = post(scene, "/v1/reload")
    assert status >= 400 and "shunt.conf:" in json.dumps(answer) and "colour" in json.dumps(answer)
    taken = PORTS.listen()
    scene.write(text + f"[listener more]\nbind = {shown(taken.getsockname())}\nbackend = app\n")
    assert post(scene, "/v1/reload")[0] >= 400
    taken.close()
    assert scene.visits(3) == {"b": 3}
    assert (scene.reloads("ok"), scene.reloads("error")) == (1, 2)
    old.exchange().leave()


def test_not_ready_goes_on_serving(controlled, servers):
    scene = controlled(servers=servers("a"))
    address = scene.daemon.stats[0]
    assert http_get(address, "/readyz")[0] == 200
    assert post(scene, "/v1/ready", ready=False)[0] == 200
    assert http_get(address, "/readyz")[0] == 503
    assert scene.visits(3) == {"a": 3}
    scene.reload({"listener front": {"idle_timeout": "5m"}})
    assert http_get(address, "/readyz")[0] == 503, "a reload does not change it"
    assert post(scene, "/v1/ready", ready=True)[0] == 200
    assert http_get(address, "/readyz")[0] == 200


@pytest.mark.modes("relay", "sockmap")
def test_drain_by_request_is_that_of_sigterm(controlled, servers):
    scene = controlled(servers=servers("a"), top={"drain_timeout": "60s"})
    front = scene.address()
    client = scene.connect().exchange()
    assert post(scene, "/v1/drain")[0] == 200
    wait_until("new connections are refused", lambda: is_refused(front), timeout=2)
    client.exchange(50_000).leave()
    assert scene.daemon.wait_exit() == 0


def test_session_that_is_closed_by_request_is_reset_with_its_reason(controlled, servers):
    scene = controlled(servers=servers("a"))
    scene.allow(ends={"closed"})
    client, other = scene.connect().exchange(), scene.connect().exchange()
    port = client.sock.getsockname()[1]
    found = json.loads(http_get(f"unix:{scene.daemon.dir}/control.sock", "/v1/sessions")[2])["sessions"]
    ids = [session["id"] for session in found if str(session["client"]).endswith(f":{port}")]
    assert len(ids) == 1, found
    assert post(scene, f"/v1/sessions/{ids[0]}/close")[0] == 200
    client.expect_reset()
    assert scene.ended("closed") == 1
    assert post(scene, f"/v1/sessions/{ids[0]}/close")[0] == 404
    other.exchange().leave()
