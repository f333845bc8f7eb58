# SPDX-License-Identifier: BSD-2-Clause
"""Fixtures of the tests of the unit, the package and the examples; they borrow the helpers of tests/net."""

import os
import sys

import pytest

sys.path.insert(1, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "net"))

from service import Service  # noqa: E402  (after the path is set)


@pytest.fixture
def make_service(request):
    """make_service(conf, netns=None) makes a service that is not started yet; all are removed at the end."""
    made = []

    def make(*args, **options):
        made.append(Service(*args, **options))
        return made[-1]

    yield make
    for service in made:
        if os.path.exists(service.log_path):
            request.node.add_report_section("call", "shuntd", service.log()[-6000:])
        service.close()
