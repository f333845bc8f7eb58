# SPDX-License-Identifier: BSD-2-Clause
"""Fixtures: servers that the test plays, and a daemon in front of them."""

import pytest

from who.scene import Cast, Scene


@pytest.fixture
def cast_of():
    """cast_of("a", "b") are listening servers of these names."""
    cast = Cast()
    yield lambda *names, **options: [cast.add(name, **options) for name in names]
    cast.close()


@pytest.fixture
def launch(request, mode, network):
    """launch(sections) is a Scene. With gate=True it has one thread and a listener for pass_gate()."""
    request.node.stages = scenes = []
    cast = Cast()

    def make(sections, gate=False):
        if gate:
            gatekeeper = cast.add("gate")
            sections["global"]["threads"] = "1"
            sections["listener gate"] = {"bind": "127.0.0.1:0", "backend": "gate"}
            sections["backend gate"] = {"server": gatekeeper.line(), "check": "off"}
        scene = Scene(mode, network, cast, sections)
        scenes.append(scene)
        if gate:
            scene.gate = gatekeeper
            scene.allow(fallbacks={"half_closed"}, ends={"client_abort", "server_abort"})
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
        cast.close()
