# SPDX-License-Identifier: BSD-2-Clause
"""python3 loris.py HOST PORT COUNT SECONDS FILE: COUNT connections, each sends a byte of the file a second.

Prints "open" when all are connected, and at the end how many bytes were sent and how many connections had ended.
A process of its own, so that it takes nothing from the client that is measured but CPU time."""

import socket
import sys
import time


def main(host, port, count, seconds, path):
    with open(path, "rb") as file:
        data = file.read()
    socks = [socket.create_connection((host, port), timeout=20) for _ in range(count)]
    for sock in socks:
        sock.setblocking(False)
    print("open", flush=True)
    sent = ended = 0
    start = time.monotonic()
    # Spread over each second, as strangers would be.
    for number in range(seconds * count):
        pause = start + number / count - time.monotonic()
        if pause > 0:
            time.sleep(pause)
        try:
            sent += socks[number % count].send(data[number // count:number // count + 1])
        except OSError:
            pass
    for sock in socks:
        try:
            ended += sock.recv(1) == b""
        except BlockingIOError:
            pass
        except OSError:
            ended += 1
    print(f"sent={sent} ended={ended}", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), sys.argv[5])
