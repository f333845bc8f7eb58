# SPDX-License-Identifier: BSD-2-Clause
"""What is tested, from the environment.

SHUNTD            the program; default: build/shuntd of this tree
SHUNT_WRAP        a command to run it under, such as "strace -f -o /tmp/trace"
SHUNT_TIME_SCALE  factor for deadlines; default: 1, and 4 for a program with a sanitizer
SHUNT_KEEP=1      keeps the folders with configurations and logs
SHUNT_DIRECT=1    tests the tests with forwarder.py in place of shuntd
"""

import functools
import os
import shlex
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
REPO = os.path.dirname(os.path.dirname(HERE))
DIRECT = os.environ.get("SHUNT_DIRECT") == "1"


def program():
    """The command that is tested, without its options."""
    if DIRECT:
        return [sys.executable, os.path.join(HERE, "forwarder.py")]
    wrap = shlex.split(os.environ.get("SHUNT_WRAP", ""))
    return wrap + [os.environ.get("SHUNTD", os.path.join(REPO, "build", "shuntd"))]


@functools.cache
def is_sanitized():
    """Does the program carry a sanitizer? Then its memory and CPU say nothing."""
    if DIRECT or not os.path.exists(program()[-1]):
        return False
    with open(program()[-1], "rb") as file:
        data = file.read()
    return b"__asan_init" in data or b"__tsan_init" in data


SCALE = float(os.environ.get("SHUNT_TIME_SCALE") or (4 if is_sanitized() else 1))
