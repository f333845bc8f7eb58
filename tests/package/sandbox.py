#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""sandbox.py UNIT DIRECTORY COMMAND...: what systemd would do before it executes the daemon of UNIT.

Capability bounding set, supplementary group (nobody's: the tests cannot count on an account shunt), no_new_privs,
system call filter with its address families, no memory that is writable and executable, umask, limit on descriptors
(as far as this machine allows), and a mount namespace in which all but DIRECTORY is read-only, /home, /root and /tmp
are empty and /proc shows processes only. DIRECTORY stands for RuntimeDirectory= and must lie elsewhere, in /run for
one. The rest of the unit is not imitated.
"""

import ctypes
import os
import platform
import pwd
import re
import resource
import struct
import subprocess
import sys

import unit as units

LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNS = 0x20000
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, PR_CAPBSET_READ, PR_CAPBSET_DROP, PR_SET_MDWE = 38, 22, 23, 24, 65
AT_RECURSIVE, AT_FDCWD, MOUNT_ATTR_RDONLY, SYS_MOUNT_SETATTR = 0x8000, -100, 1, 442
EPERM, EINVAL = 1, 22
MACHINES = {  # name of the header, AUDIT_ARCH_*
    "x86_64": ("asm/unistd_64.h", 0xC000003E),
    "aarch64": ("asm-generic/unistd.h", 0xC00000B7),
}
FAMILIES = {"AF_UNIX": 1, "AF_INET": 2, "AF_INET6": 10, "AF_NETLINK": 16, "AF_PACKET": 17}


def must(result, what):
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def prctl(option, a=0, b=0, what="prctl"):
    must(LIBC.prctl(option, ctypes.c_ulong(a), ctypes.c_ulong(b), ctypes.c_ulong(0), ctypes.c_ulong(0)), what)


# ---- mounts


def mount_setattr(path, set_bits, clear_bits):
    attr = struct.pack("QQQQ", set_bits, clear_bits, 0, 0)
    must(LIBC.syscall(SYS_MOUNT_SETATTR, AT_FDCWD, path.encode(), AT_RECURSIVE, attr, len(attr)), f"read-only {path}")


def mount(*words):
    subprocess.run(["mount", *words], check=True)


def private_mounts(writable):
    must(LIBC.unshare(CLONE_NEWNS), "unshare")
    mount("--make-rprivate", "/")
    mount("--bind", writable, writable)
    for place in ("/home", "/root", "/tmp"):
        mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", place)
    mount("-t", "proc", "-o", "subset=pid,hidepid=invisible", "proc", "/proc")
    mount_setattr("/", MOUNT_ATTR_RDONLY, 0)
    mount_setattr(writable, 0, MOUNT_ATTR_RDONLY)


# ---- capabilities


def bound(names):
    """Root's permitted set after execve is the bounding set, as under systemd."""
    with open("/usr/include/linux/capability.h") as file:
        numbers = dict(re.findall(r"^#define\s+(CAP_\w+)\s+(\d+)$", file.read(), re.M))
    keep = {int(numbers[name]) for name in names}
    for number in range(64):
        if number not in keep and LIBC.prctl(PR_CAPBSET_READ, number, 0, 0, 0) == 1:
            prctl(PR_CAPBSET_DROP, number, what="bounding set")


# ---- system calls


def syscall_numbers(header):
    """Name -> number, by the compiler's own reading of the header."""
    text = subprocess.run(["cc", "-E", "-dM", "-include", header, "-x", "c", "/dev/null"], check=True,
                          capture_output=True, text=True).stdout
    defined = dict(re.findall(r"^#define (__NR\w+) (\w+)$", text, re.M))

    def number(word):
        while not word.isdigit():
            word = defined[word]
        return int(word)

    return {name[5:]: number(name) for name in defined if name.startswith("__NR_") and
            (defined[name].isdigit() or defined[name] in defined)}


def filter_program(names, families):
    """Classic BPF: EPERM for all but `names`, and for socket(2) of a family that is not in `families`."""
    load, equal, give = 0x20, 0x15, 0x06
    allow, deny = 0x7FFF0000, 0x00050000 | EPERM
    header, arch = MACHINES[platform.machine()]
    numbers = syscall_numbers(header)
    code = [(load, 0, 0, 4), (equal, 1, 0, arch), (give, 0, 0, deny), (load, 0, 0, 0)]
    for name in sorted(names & numbers.keys() - {"socket"}):
        code += [(equal, 0, 1, numbers[name]), (give, 0, 0, allow)]
    code += [(equal, 1, 0, numbers["socket"]), (give, 0, 0, deny), (load, 0, 0, 16)]
    for family in families:
        code += [(equal, 0, 1, FAMILIES[family]), (give, 0, 0, allow)]
    code.append((give, 0, 0, deny))
    return b"".join(struct.pack("HBBI", *line) for line in code)


def install(program):
    """The last step: the calls that it needs are few, but not among those that every unit allows."""
    buffer = ctypes.create_string_buffer(program, len(program))
    head = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(buffer)))
    prctl(PR_SET_SECCOMP, 2, ctypes.addressof(head), what="seccomp")


def main(path, writable, *command):
    unit = units.read(path)
    assert unit["NoNewPrivileges"] == unit["MemoryDenyWriteExecute"] == ["yes"] and unit["ProtectSystem"] == ["strict"]
    wanted = int(unit["LimitNOFILE"][0])
    limit = min(wanted, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    program = filter_program(units.allowed_syscalls(unit), unit["RestrictAddressFamilies"][0].split())
    private_mounts(writable)
    os.chdir("/")
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    os.setgroups([pwd.getpwnam("nobody").pw_gid] if unit["SupplementaryGroups"] == ["shunt"] else [])
    os.umask(int(unit["UMask"][0], 8))
    bound(unit["CapabilityBoundingSet"][0].split())
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    if LIBC.prctl(PR_SET_MDWE, 1, 0, 0, 0) < 0 and ctypes.get_errno() != EINVAL:  # Linux 6.3
        raise OSError(ctypes.get_errno(), "memory-deny-write-execute")
    install(program)
    os.execv(command[0], command)


if __name__ == "__main__":
    main(*sys.argv[1:])
