# SPDX-License-Identifier: BSD-2-Clause
"""Promises 2, 3 and 5: a reader that does not read bounds what is held, stops nobody else, and misses nothing."""

import contextlib
import select
import time

import pytest

from daemon import cpu_seconds
from peer import TIMEOUT, Task, together
from settings import SCALE, is_sanitized
from stage import LOOPBACK
from tracing import backlog_runs

KB, MB = 1024, 1024 * 1024
SENDERS = ("client", "server")
OFFERED = 512 * MB
BOUND = 24 * MB  # what the path and all buffers may take when the reader never read
GAP = 0.05


def ends(stage, sender, rcvbuf=None):
    """(sender, reader) of a new connection that is on its path."""
    client, server = stage.settled_pair(rcvbuf)
    return (client, server) if sender == "client" else (server, client)


def totals(stage):
    return {"c2s": sum(peer.sent for peer in stage.peers if "client" in peer.name),
            "s2c": sum(peer.sent for peer in stage.peers if "server" in peer.name)}


def offer(senders, total=OFFERED, quiet=0.5):
    """All senders send until nobody got rid of anything for `quiet` seconds, or of `total` bytes each.

    What each one could send."""
    start = {sender: sender.sent for sender in senders}
    poller = select.epoll()
    by_fd = {sender.fileno(): sender for sender in senders}
    for fd in by_fd:
        poller.register(fd, select.EPOLLOUT)
    while by_fd:
        ready = poller.poll(quiet)
        if not ready:
            break
        for fd, _ in ready:
            left = start[by_fd[fd]] + total - by_fd[fd].sent
            if left:
                by_fd[fd].send_some(min(left, 262144))
            else:
                poller.unregister(fd)
                del by_fd[fd]
    return [sender.sent - start[sender] for sender in senders]


def mem_available():
    with open("/proc/meminfo") as file:
        return next(int(line.split()[1]) * KB for line in file if line.startswith("MemAvailable"))


def memory_agrees(before, during, allowed):
    """Neither did more memory go when the senders were blocked, nor did more come back when they were gone.

    Both, because other processes take and give memory too."""
    fell, rose = before - during, mem_available() - during
    print(f"MemAvailable fell by {fell} and rose by {rose}")
    assert min(fell, rose) <= allowed, f"MemAvailable fell by {fell} and rose by {rose}, more than {allowed}"


def buffer_maxima(stage):
    """tcp_rmem and tcp_wmem maxima of both sockets that the proxy has."""
    space = stage.network.proxy
    with space.entered() if space else contextlib.nullcontext():
        maxima = [int(open(f"/proc/sys/net/ipv4/{name}").read().split()[2]) for name in ("tcp_rmem", "tcp_wmem")]
    return 2 * sum(maxima)


def wake(stage, sender, reader, more):
    """The reader starts to read while the sender goes on with `more` bytes and FIN."""
    total = sender.sent + more
    stage.watch(sender, reader)
    together(Task(lambda: sender.send(more).fin()), Task(reader.expect_eof, total))
    reader.fin()
    sender.expect_eof()
    assert reader.max_gap <= GAP * SCALE, f"the reader was awake, but nothing came for {reader.max_gap * 1000:.1f} ms"
    print(f"longest gap {reader.max_gap * 1000:.1f} ms, without {reader.excused}")


@pytest.mark.parametrize("sender", SENDERS)
def test_reader_that_never_reads_bounds_what_is_taken(stage, sender):
    sender, reader = ends(stage, sender)
    before = mem_available()
    taken, = offer([sender])
    during = mem_available()
    assert taken <= BOUND, f"{taken} bytes of {OFFERED} were taken although nobody reads"
    wake(stage, sender, reader, 24 * MB)
    stage.prove(**totals(stage))
    memory_agrees(before, during, 3 * taken + 64 * MB)


@pytest.mark.parametrize("sender", SENDERS)
@pytest.mark.modes(*LOOPBACK)
def test_forty_readers_that_never_read_bound_what_is_taken_from_each(stage, sender):
    pairs = [ends(stage, sender) for _ in range(40)]
    before = mem_available()
    taken = offer([sender for sender, _ in pairs])
    during = mem_available()
    assert max(taken) <= BOUND, f"taken from each: {sorted(taken)}"
    for sender, reader in pairs:
        sender.fin()
        reader.expect_eof(100 + sender.sent - 100)
        reader.fin()
        sender.expect_eof(100)
    stage.prove(**totals(stage))
    memory_agrees(before, during, 3 * sum(taken) + 64 * MB)


def fast_then_deaf(stage, sender, size):
    sender, reader = ends(stage, sender)
    together(Task(sender.send, size), Task(reader.read, size))
    taken, = offer([sender])
    bound = buffer_maxima(stage) + 8 * MB
    print(f"{taken} bytes taken after {size} were read")
    assert taken <= bound, f"{taken} bytes taken, the bound is {bound}"
    time.sleep(0.5)
    wake(stage, sender, reader, 24 * MB)
    stage.prove(**totals(stage))


@pytest.mark.parametrize("sender", SENDERS)
def test_reader_that_was_fast_and_goes_deaf_is_bounded_and_wakes(stage, sender):
    """Its buffers have grown to what the kernel allows."""
    fast_then_deaf(stage, sender, 64 * MB)


@pytest.mark.long
@pytest.mark.parametrize("sender", SENDERS)
def test_reader_that_was_fast_for_a_gigabyte_and_goes_deaf_is_bounded_and_wakes(stage, sender):
    fast_then_deaf(stage, sender, 1024 * MB)


@pytest.mark.long
@pytest.mark.parametrize("sender", SENDERS)
def test_all_of_512_mb_arrive_at_a_reader_that_wakes(stage, sender):
    sender, reader = ends(stage, sender)
    taken, = offer([sender], quiet=2)
    assert taken <= BOUND
    wake(stage, sender, reader, OFFERED - taken)
    stage.prove(**totals(stage))


@pytest.mark.parametrize("naps", [1, 5])
@pytest.mark.parametrize("sender", SENDERS)
def test_reader_that_naps_gets_everything_and_no_gap_after_a_nap(stage, sender, naps):
    sender, reader = ends(stage, sender)
    stage.watch(sender, reader)
    sending = Task(lambda: sender.send(naps * 24 * MB).fin())
    for _ in range(naps):
        time.sleep(0.3)
        reader.read(20 * MB)
        assert reader.max_gap <= GAP * SCALE, f"nothing for {reader.max_gap * 1000:.1f} ms while the reader was awake"
        reader.max_gap = 0.0
    reader.expect_eof(100 + naps * 24 * MB)
    together(sending)
    reader.fin()
    sender.expect_eof(100)
    stage.prove(**totals(stage))


@pytest.mark.parametrize("deaf", SENDERS)
def test_deaf_reader_does_not_slow_the_other_direction(stage, deaf):
    """Two floods; the deaf end sends at full speed and gets every byte when it wakes."""
    other, deaf = ends(stage, "server" if deaf == "client" else "client")
    flood = Task(other.send, 60 * MB)
    time.sleep(0.3)
    stage.watch(deaf, other)
    together(Task(lambda: deaf.send(96 * MB).fin()), Task(other.expect_eof, 100 + 96 * MB))
    assert other.max_gap <= GAP * SCALE, f"the direction with a reader stood still for {other.max_gap:.3f} s"
    assert not flood.done(), "60 MB went to an end that does not read"
    deaf.read(60 * MB)
    together(flood)
    other.fin()
    deaf.expect_eof(100 + 60 * MB)
    stage.prove(**totals(stage))


@pytest.mark.parametrize("deaf", SENDERS)
def test_deaf_reader_does_not_delay_small_messages_the_other_way(stage, deaf):
    """The deaf end sends single messages; each one arrives at once although its own input is stuck."""
    other, deaf = ends(stage, "server" if deaf == "client" else "client")
    flood = Task(other.send, 40 * MB)
    time.sleep(0.3)
    waits = []
    for _ in range(50):
        start = time.monotonic()
        deaf.send(200)
        other.read(200)
        waits.append(time.monotonic() - start)
    assert not flood.done()
    assert sorted(waits)[25] < 0.05 * SCALE, f"the median message took {sorted(waits)[25] * 1000:.1f} ms"
    deaf.read(40 * MB)
    together(flood)
    stage.prove(**totals(stage))


def stop_and_go(reader, total, awake, asleep):
    """Reads as fast as it can for `awake` seconds, then not at all for `asleep` seconds, until EOF."""
    end = time.monotonic() + 4 * TIMEOUT
    nap_at = time.monotonic() + awake
    while True:
        got = reader.recv_some()
        if got == 0:
            break
        if got is None:
            reader.wait(select.POLLIN, end, "stop and go")
        if time.monotonic() >= nap_at:
            time.sleep(asleep)
            nap_at = time.monotonic() + awake
    assert reader.received == total, f"clean EOF after {reader.received} of {total} bytes; {reader}"


def stop_and_go_rounds(stage, count, size, rcvbuf=None):
    for _ in range(count):
        pairs = [stage.settled_pair(rcvbuf) for _ in range(2)]
        tasks = []
        for awake, asleep, pair in zip((0.003, 0.002), (0.003, 0.004), pairs):
            for sender, reader in (pair, pair[::-1]):
                tasks.append(Task(lambda sender=sender: sender.send(size).fin()))
                tasks.append(Task(stop_and_go, reader, 100 + size, awake, asleep))
        together(*tasks)
        for pair in pairs:
            for peer in pair:
                peer.close()
    stage.prove(**totals(stage))


def test_stop_and_go_readers_on_two_connections_both_ways(stage):
    stop_and_go_rounds(stage, 20, 4 * MB)


def test_stop_and_go_readers_with_small_windows(stage):
    stop_and_go_rounds(stage, 5, MB, rcvbuf=32 * KB)


@pytest.mark.long
def test_stop_and_go_readers_on_two_connections_both_ways_300_times(stage):
    stop_and_go_rounds(stage, 300, 16 * MB)


@pytest.mark.resources
@pytest.mark.parametrize("sender", SENDERS)
@pytest.mark.modes(*LOOPBACK)
def test_stalled_pair_costs_no_cpu(stage, sender):
    """Neither in the daemon nor in a kernel worker that retries.

    The best of some windows, and of some pairs: kernel workers serve the whole machine."""
    pids = [stage.daemon.pid, *stage.daemon.workers()]
    for attempt in range(3):
        speaker, reader = ends(stage, sender)
        offer([speaker])
        used, suspects = [], None
        for _ in range(4):
            before = cpu_seconds(pids)
            busy = {work for work, runs in backlog_runs(2).items() if runs > 10}
            used.append(cpu_seconds(pids) - before)
            suspects = busy if suspects is None else suspects & busy
            if used[-1] <= 0.004 and not suspects:
                break
        speaker.fin()
        reader.expect_eof(speaker.sent)
        reader.fin()
        speaker.expect_eof(100)
        if not stage.mode.in_kernel or suspects and suspects & set(backlog_runs(1)):
            suspects = set()  # they go on although the pair is gone: somebody else's
        if not suspects:
            break
    stage.prove(**totals(stage))
    assert is_sanitized() or min(used) <= 0.004, f"the daemon used {used} s of CPU in windows of 2 s"
    assert not suspects, f"sk_psock_backlog kept running for {len(suspects)} sockets while a pair was stalled"


def test_many_small_windows_at_once_stay_exact(stage, rnd):
    """16 connections with readers of 16 KB windows and random pauses, both ways."""
    tasks = []
    for _ in range(16):
        client, server = stage.settled_pair(rcvbuf=16 * KB)
        for sender, reader in ((client, server), (server, client)):
            size = rnd.randrange(100 * KB, 600 * KB)
            tasks.append(Task(lambda sender=sender, size=size: sender.send(size).fin()))
            tasks.append(Task(reader.expect_eof, 100 + size, chunk=lambda: rnd.randrange(1, 100000),
                              pause=lambda: rnd.choice((0, 0, 0.001, 0.01))))
    together(*tasks)
    stage.prove(**totals(stage))


