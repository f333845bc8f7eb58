# SPDX-License-Identifier: BSD-2-Clause
"""Fixtures of the traffic tests.

A case that takes `stage` runs once per mode: relay, sockmap and parser on loopback, relay and sockmap across
three network namespaces. @pytest.mark.modes(...) names others.
"""

import os
import random
import subprocess
import zlib

import pytest

import daemon as daemons
from settings import HERE
from stage import MODES, Cast, Stage


def pytest_configure(config):
    config.addinivalue_line("markers", "modes(*names): the modes in which a case runs")


def pytest_generate_tests(metafunc):
    if "mode" in metafunc.fixturenames:
        marker = metafunc.definition.get_closest_marker("modes")
        names = marker.args if marker else tuple(MODES)
        metafunc.parametrize("mode", [MODES[name] for name in names], ids=names, scope="function")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    if report.when == "call":
        item.case_failed = report.failed
    if report.failed:
        for stage in getattr(item, "stages", []):
            report.sections.append(("shuntd", stage.describe()))
        for daemon in getattr(item, "daemons", []):
            report.sections.append(("shuntd", f"{' '.join(daemon.argv)}\n{daemon.log()[-6000:]}"))


def has_failed(request):
    return getattr(request.node, "case_failed", True)


@pytest.fixture(scope="session")
def cast():
    cast = Cast()
    yield cast
    cast.close()


@pytest.fixture(scope="session")
def peer_program(tmp_path_factory):
    """peer.c, compiled."""
    program = tmp_path_factory.mktemp("peer") / "peer"
    source = os.path.join(HERE, "peer.c")
    subprocess.run([os.environ.get("CC", "cc"), "-O2", "-o", program, source], check=True)
    return str(program)


@pytest.fixture
def rnd(request):
    """Random numbers that are the same in every run of this case."""
    return random.Random(zlib.crc32(request.node.name.encode()))


@pytest.fixture
def network(cast, mode):
    return cast.network(mode.network)


@pytest.fixture
def stage(request, cast, mode):
    """A daemon that other cases in this mode have used before and will use again."""
    stage = cast.stage(mode)
    request.node.stages = [stage]
    yield stage
    try:
        if has_failed(request):
            stage.close()
            cast.drop(stage)
        else:
            stage.finish()
    except BaseException:
        cast.drop(stage)
        raise


@pytest.fixture
def own_stage(request, cast, mode):
    """own_stage(options of Daemon) starts a daemon for this case alone."""
    request.node.stages = stages = []

    def launch(**options):
        stages.append(Stage.launch(mode, cast.network(mode.network), **options))
        return stages[-1]

    yield launch
    try:
        for stage in stages:
            if not has_failed(request):
                if stage.daemon.process.returncode is None:  # else the case has ended it
                    stage.finish()
                    status = stage.daemon.stop()
                    assert status == 0, f"shuntd stopped with {status}"
                trouble = stage.daemon.trouble(stage.allowed_log)
                assert not trouble, "the log has " + "\n".join(trouble)
    finally:
        for stage in stages:
            stage.close()
            stage.listener.close()
            stage.daemon.remove()


@pytest.fixture
def make_daemon(request):
    """make_daemon(arguments of Daemon) starts a bare daemon; the test does its own checks of the metrics."""
    request.node.daemons = made = []

    def make(*args, **options):
        made.append(daemons.Daemon(*args, **options))
        return made[-1].start()

    yield make
    try:
        for daemon in made:
            if not has_failed(request) and daemon.is_running():
                status = daemon.stop()
                assert status == 0, f"shuntd stopped with {status}"
    finally:
        for daemon in made:
            daemon.remove()
