# SPDX-License-Identifier: BSD-2-Clause
"""How long a reader that is awake waits for bytes that the proxy owes it.

Three things make it wait that are not the proxy's doing, and are taken off:
- TCP: a full receive buffer makes the kernel drop segments, and the retransmission of a dropped one waits for its
  timer although the reader is awake again. Then many bytes are in the write queue of the proxy's socket towards the
  reader, or the sender waits for a timer although the proxy has read everything.
- This process, or shuntd, was ready to run and did not get a CPU.
- Everything stood still: a hiccup.
"""

import os
import select
import threading
import time

import proctcp

SLOW = 0.03


class Hiccups(threading.Thread):
    """Notes when this process did not run although it wanted to: another process, the hypervisor, the interpreter."""

    def __init__(self):
        super().__init__(daemon=True)
        self._found = []
        self.start()

    def run(self):
        before = time.monotonic()
        while True:
            time.sleep(0.002)
            now = time.monotonic()
            if now - before > 0.007:
                self._found.append((before + 0.002, now))
            before = now

    def within(self, start, end):
        """Seconds of that time that were lost."""
        return sum(max(0.0, min(end, last) - max(start, first)) for first, last in self._found[-100:])


def waited_for_cpu(pids):
    """Seconds for which this thread, and those of the processes, were ready to run and did not."""
    files = ["/proc/thread-self/schedstat"]
    for pid in pids:
        files += [f"/proc/{pid}/task/{task}/schedstat" for task in os.listdir(f"/proc/{pid}/task")]
    total = 0
    for name in files:
        with open(name) as file:
            total += int(file.read().split()[1])
    return total / 1e9


_HICCUPS = []


class Clock:
    """Times the waits of `reader` for what `sender` sends, both of a stage."""

    def __init__(self, stage, sender, reader):
        if not _HICCUPS:
            _HICCUPS.append(Hiccups())
        topology = stage.network.topology
        self.pids = stage.daemon.workers()
        self.proxy = stage.network.proxy
        self.sending = topology and (topology.client if "client" in sender.name else topology.server)
        self.to_reader = reader.sock.getpeername(), reader.sock.getsockname()
        self.from_sender = sender.sock.getpeername(), sender.sock.getsockname()

    def why(self):
        """TCP's reason, or None."""
        last = proctcp.row(*self.to_reader, self.proxy)
        if last and last.unacked >= 131072:
            return f"TCP towards the reader: {last}"
        first, own = proctcp.row(*self.from_sender, self.proxy), proctcp.row(*self.from_sender[::-1], self.sending)
        if first and own and last and not first.unread and not last.unacked and own.timer in (1, 4) and own.unacked:
            return f"TCP of the sender: {own}"
        print(f"slow, and not because of TCP: sender {own}; proxy {first} and {last}")
        return None

    def time(self, reader, end, what):
        """(seconds until there is input, TCP's reason)"""
        poller = select.poll()
        poller.register(reader, select.POLLIN)
        before, late, reason = time.monotonic(), 0.0, None
        if not poller.poll(SLOW * 1000):
            late = waited_for_cpu(self.pids)
            reason = self.why()
            reader.wait(select.POLLIN, end, what)
            late = waited_for_cpu(self.pids) - late
        now = time.monotonic()
        if now - before < SLOW:
            return now - before, None
        lost = max(late, _HICCUPS[0].within(before, now))
        if lost:
            print(f"waited {now - before:.3f} s, of which {lost:.3f} s for a CPU")
        return now - before - lost, reason
