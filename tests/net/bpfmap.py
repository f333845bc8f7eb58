# SPDX-License-Identifier: BSD-2-Clause
"""Puts sockets of a test into the sockhashes of a running shuntd, to make it meet a full map or a taken key."""

import ctypes
import os
import platform
import re
import socket
import struct

SYS_BPF = {"x86_64": 321, "aarch64": 280, "riscv64": 280}
MAP_UPDATE_ELEM, MAP_DELETE_ELEM, MAP_GET_FD_BY_ID, OBJ_GET_INFO_BY_FD = 2, 3, 14, 15
BPF_NOEXIST = 1
_LIBC = ctypes.CDLL(None, use_errno=True)


def _bpf(command, attributes):
    attr = ctypes.create_string_buffer(attributes, 128)
    result = _LIBC.syscall(SYS_BPF[platform.machine()], command, attr, 128)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"bpf({command}): {os.strerror(code)}")
    return result


class Map:
    def __init__(self, number):
        self.fd = _bpf(MAP_GET_FD_BY_ID, struct.pack("I", number))
        info = ctypes.create_string_buffer(88)
        _bpf(OBJ_GET_INFO_BY_FD, struct.pack("IIQ", self.fd, 88, ctypes.addressof(info)))
        self.type, self.id, self.key_size, self.value_size, self.max_entries, _ = struct.unpack_from("6I", info)
        self.name = info.raw[24:40].rstrip(b"\0").decode()

    def put(self, key, fd):
        key = ctypes.create_string_buffer(key, self.key_size)
        value = ctypes.create_string_buffer(struct.pack("Q", fd), 8)
        _bpf(MAP_UPDATE_ELEM, struct.pack("I4xQQQ", self.fd, ctypes.addressof(key), ctypes.addressof(value), BPF_NOEXIST))

    def delete(self, key):
        buffer = ctypes.create_string_buffer(key, self.key_size)
        _bpf(MAP_DELETE_ELEM, struct.pack("I4xQ", self.fd, ctypes.addressof(buffer)))

    def close(self):
        os.close(self.fd)


def map_of(pids, name):
    """The BPF map of that name that one of the processes has open."""
    for pid in pids:
        for fd in os.listdir(f"/proc/{pid}/fdinfo"):
            with open(f"/proc/{pid}/fdinfo/{fd}") as file:
                found = re.search(r"^map_id:\s+(\d+)", file.read(), re.M)
            if found:
                candidate = Map(int(found.group(1)))
                if candidate.name == name:
                    return candidate
                candidate.close()
    raise AssertionError(f"no BPF map {name} in the processes {pids}")


def key_of(local, remote):
    """struct flow_key of an IPv4 socket with these ends (bpf/abi.h)."""

    def mapped(host):
        return bytes(10) + b"\xff\xff" + socket.inet_aton(host)

    return struct.pack("I", socket.AF_INET) + mapped(local[0]) + mapped(remote[0]) + struct.pack(
        "!HH", local[1], remote[1])
