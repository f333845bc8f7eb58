# SPDX-License-Identifier: BSD-2-Clause
"""Fixtures of the operator's tests. A case names its modes: sockmap alone, or relay too where the path matters."""

import os
import pathlib
import subprocess

import pytest

from ops.farm import Farm, Hole
from ops.flood import EchoServer, Flood
from ops.scene import Scene, app

HERE = pathlib.Path(__file__).resolve().parent


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """A module may name relay for all of its cases: those that do not name it themselves are then long ones."""
    for item in items:
        mode = getattr(item, "callspec", None) and item.callspec.params.get("mode")
        if HERE in item.path.parents and mode and mode.name == "relay" and not any(
                marker.name == "modes" for marker in item.own_markers):
            item.add_marker(pytest.mark.long)


@pytest.fixture
def farm(network):
    farm = Farm(network)
    yield farm
    farm.close()


@pytest.fixture
def servers(farm):
    """servers("a", "b") are running servers of these names."""
    return lambda *names: [farm.add(name) for name in names]


@pytest.fixture
def hole():
    hole = Hole()
    yield hole
    hole.close()


@pytest.fixture
def launch(request, mode, network, farm):
    """launch(sections) or launch(servers=[...], keys of app()) is a Scene with a daemon."""
    request.node.stages = scenes = []

    def make(sections=None, start=True, servers=None, nofile=None, **keys):
        scene = Scene(mode, network, farm, sections or app(servers, **keys), start=start, nofile=nofile)
        scenes.append(scene)
        return scene

    yield make
    try:
        if not getattr(request.node, "case_failed", True):
            for scene in scenes:
                if scene.daemon.is_running():
                    scene.finish()
    finally:
        for scene in scenes:
            scene.close()


@pytest.fixture(scope="session")
def flood_program(tmp_path_factory):
    """flood.c, compiled."""
    program = tmp_path_factory.mktemp("flood") / "flood"
    subprocess.run([os.environ.get("CC", "cc"), "-O2", "-Wall", "-Wextra", "-o", program, HERE / "flood.c"], check=True)
    return str(program)


@pytest.fixture
def echo_servers(flood_program):
    """echo_servers("a", "b") are servers in processes of their own."""
    made = []

    def make(*names):
        made.extend(EchoServer(flood_program, name) for name in names)
        return made[-len(names):]

    yield make
    for server in made:
        server.close()


@pytest.fixture
def flood(flood_program):
    """flood(scene, rate, seconds) starts connections at a rate."""
    made = []

    def start(scene, rate, seconds, listener="front"):
        made.append(Flood(flood_program, scene.address(listener), rate, seconds))
        return made[-1]

    yield start
    for each in made:
        each.close()
