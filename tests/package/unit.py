# SPDX-License-Identifier: BSD-2-Clause
"""Reads systemd/shuntd.service, so that the tests run the daemon under what the unit says and not under a copy."""

import os
import shlex
import subprocess

HERE = os.path.dirname(os.path.abspath(__file__))
REPO = os.path.dirname(os.path.dirname(HERE))
UNIT = os.path.join(REPO, "systemd", "shuntd.service")


def read(path=UNIT):
    """Key -> list of values, over all sections."""
    found = {}
    with open(path) as file:
        for line in file:
            line = line.strip()
            if line and line[0] not in "#;[":
                key, value = line.split("=", 1)
                found.setdefault(key, []).append(value)
    return found


def commands(unit, key, places):
    """The commands of a key such as ExecStart, as lists of words with `places` (word -> word) filled in."""
    return [[places.get(word, word) for word in shlex.split(line)] for line in unit[key]]


def syscall_sets():
    """Set name -> members, from this machine's systemd; members may be sets."""
    text = subprocess.run(["systemd-analyze", "syscall-filter", "--no-pager"], check=True, capture_output=True,
                          text=True).stdout
    sets, name = {}, None
    for line in text.splitlines():
        word = line.strip()
        if line.startswith("@"):
            name = word
            sets[name] = []
        elif not word:
            name = None
        elif name and not word.startswith("#"):
            sets[name].append(word)
    return sets


def _expand(word, sets):
    if not word.startswith("@"):
        return {word}
    return set().union(*(_expand(member, sets) for member in sets[word]))


def allowed_syscalls(unit):
    """The names that SystemCallFilter= leaves, for an allow list that further lines narrow and widen."""
    sets = syscall_sets()
    lines = unit["SystemCallFilter"]
    assert not lines[0].startswith("~"), "the first line must be an allow list"
    names = _expand("@default", sets)
    for line in lines:
        words = set().union(*(_expand(word, sets) for word in line.lstrip("~").split()))
        names = names - words if line.startswith("~") else names | words
    return names
