# SPDX-License-Identifier: BSD-2-Clause
"""How often the kernel ran sk_psock_backlog, the worker function that moves redirected bytes."""

import collections
import ctypes
import os
import re
import secrets
import tempfile
import time

_LIBC = ctypes.CDLL(None, use_errno=True)
MNT_DETACH = 2


def _check(result):
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _write(path, text):
    with open(path, "w") as file:
        file.write(text)


def backlog_runs(seconds):
    """Sleeps so long and counts by socket (the address of its work), with a trace instance of its own.

    The counts are of the whole machine, other users of sockmap included."""
    mount = tempfile.mkdtemp(prefix="shunt-trace-")
    try:
        _check(_LIBC.mount(b"tracefs", mount.encode(), b"tracefs", 0, None))
        instance = f"{mount}/instances/shunt{secrets.token_hex(4)}"
        try:
            os.mkdir(instance)
            try:
                event = f"{instance}/events/workqueue/workqueue_execute_start"
                _write(f"{instance}/buffer_size_kb", "4096")
                _write(f"{event}/enable", "1")
                time.sleep(seconds)
                _write(f"{event}/enable", "0")
                with open(f"{instance}/trace", errors="replace") as file:
                    return collections.Counter(re.findall(r"work struct (\S+): function sk_psock_backlog", file.read()))
            finally:
                os.rmdir(instance)
        finally:
            _LIBC.umount2(mount.encode(), MNT_DETACH)
    finally:
        os.rmdir(mount)
