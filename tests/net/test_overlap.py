# SPDX-License-Identifier: BSD-2-Clause
"""Segments that repeat old bytes: legal, made by every stack that repacketizes, and a trap for sockmap.

The stream must come out exact. A stream parser leaves no way to take the old bytes off (design.md 5.2): there
both ends may be reset instead, but what is repeated or missing must never be followed by a clean EOF.
"""

import random
import time

import pytest

import pattern
from peer import Reset, Task, TIMEOUT, together
from rawtcp import Forger

KB, MB = 1024, 1024 * 1024

# Steps: (offset, length) is a segment; a number waits until so many bytes of the case have arrived.
CASES = {
    "old_and_new_bytes_in_one_segment": [(0, 1000), 1000, (500, 1000), 1500],
    "whole_old_segment_with_a_new_tail": [(0, 1000), 1000, (0, 1400), 1400],
    "tail_of_one_byte": [(0, 1000), 1000, (0, 1001), 1001, (1000, 2), 1002],
    "old_segment_before_a_new_one": [(0, 1000), 1000, (0, 1000), (1000, 500), 1500],
    "part_of_an_old_segment": [(0, 1000), 1000, (200, 300), (1000, 500), 1500, (1499, 1), (1500, 10), 1510],
    "every_segment_twice": [(0, 700), (0, 700), (700, 700), (700, 700), (1400, 700), (1400, 700), 2100],
    "every_segment_half_old": [(i * 300, 600) for i in range(12)] + [3900],
    "growing_from_the_start": [(0, 100 * i) for i in range(1, 12)] + [1100],
    "overlap_in_the_out_of_order_queue": [(1000, 500), (1200, 800), (0, 1000), 2000],
    "hole_filled_with_more_than_the_hole": [(1000, 500), (0, 1300), 1500],
    "hole_filled_past_what_was_queued": [(500, 200), (0, 1400), 1400],
    "out_of_order_backwards_with_overlaps": [(1600, 400), (1200, 600), (800, 600), (400, 600), (0, 600), 2000],
    "out_of_order_inside_out": [(600, 200), (500, 400), (400, 600), (0, 500), 1000],
    "repacketized": [(0, 500), (500, 500), (1000, 500), 1500, (0, 1460), (1460, 140), 1600],
}
FLOOD = "flood"
LARGE = {
    "large_half_old": [(0, 60000), 60000, (30000, 60000), 90000],
    "large_nearly_all_old": [(0, 60000), 60000, (0, 60100), 60100],
    "large_repacketized": [(0, 40000), 40000, (10000, 60000), 70000, (5000, 65000), (69999, 10001), 80000],
    "large_out_of_order": [(30000, 20000), (20000, 25000), (0, 30001), 50000],
}


def length_of(steps):
    return max(sum(step) for step in steps if isinstance(step, tuple))


def random_steps(seed, piece):
    """Segments that cover everything in a wild order with overlaps; every 30,000 bytes all must have arrived."""
    rnd = random.Random(seed)
    steps, done = [], 0
    for _ in range(4):
        end = done + rnd.randrange(10000, 30000)
        segments, at = [], done
        while at < end:
            size = min(rnd.randrange(1, piece), end - at)
            back = min(rnd.choice((0, 0, 1, rnd.randrange(1, piece))), at, piece - size)
            segments.append((at - back, size + back))
            at += size
        extra = [rnd.choice(segments) for _ in range(len(segments) // 4)]
        if rnd.random() < 0.7:
            for i in range(len(segments) - 1):
                if rnd.random() < 0.3:
                    segments[i], segments[i + 1] = segments[i + 1], segments[i]
        else:
            rnd.shuffle(segments)
        for segment in extra:
            segments.insert(rnd.randrange(len(segments) + 1), segment)
        steps += segments + [end]
        done = end
    return steps


class Case:
    def __init__(self, stage, sender_name):
        self.stage = stage
        self.client, self.server = stage.settled_pair()
        self.sender, self.reader = self.client, self.server
        if sender_name == "server":
            self.sender, self.reader = self.server, self.client
        topology = stage.network.topology
        space = topology and (topology.client if sender_name == "client" else topology.server)
        self.forger = Forger(self.sender.sock, space)
        self.total = self.sender.sent
        self.asleep = False

    def forge(self, steps):
        """Sends the segments; the reader's task is reading already."""
        length = length_of(steps)
        self.total += length
        start = self.sender.sent
        self.forger.begin(pattern.piece(self.sender.out, start, length))
        self.sender.sent += length
        for step in steps:
            if isinstance(step, tuple):
                self.forger.segment(*step)
            else:
                self.wait(start + step)
        try:
            self.forger.commit()
        except OSError as error:  # no longer connected
            raise Reset(str(error)) from None

    def flood(self):
        """So much that the path overflows, because the reader sleeps."""
        self.asleep = True
        flood = Task(self.sender.send, 12 * MB)
        time.sleep(0.3)
        self.asleep = False
        together(flood)
        self.total += 12 * MB
        self.wait(self.sender.sent)

    def wait(self, received):
        """Until the reader has so much. With a parser the bytes may be stuck or the connection gone: go on then."""
        limit = TIMEOUT if self.stage.mode.trims else 0.1
        end = time.monotonic() + limit
        while self.reader.received < received and not self.reading.done() and time.monotonic() < end:
            time.sleep(0.0005)
        if self.stage.mode.trims and not self.reading.failed():
            assert self.reader.received == received, f"{self.reader.received} of {received} arrived; {self.reader}"

    def nap(self):
        while self.asleep:
            time.sleep(0.005)
        return 0

    def read(self):
        """("eof" or "reset", was everything before it right?)"""
        right = True
        while True:
            try:
                self.reader.read(pause=self.nap)
                return ("reset" if self.reader.error else "eof"), right
            except Reset:
                return "reset", right
            except pattern.Corrupted:
                if self.stage.mode.trims:
                    raise
                right = False
                self.reader.received += 1  # lost its place for good; only the end matters now

    def play(self, *scripts):
        self.reading = Task(self.read)
        try:
            for steps in scripts:
                if steps is FLOOD:
                    self.flood()
                else:
                    self.forge(steps)
            self.sender.send(3000)  # the connection goes on as if nothing had been
            self.total += 3000
            self.sender.fin()
        except Reset:
            assert not self.stage.mode.trims
        end, right = self.reading.result()
        self.forger.close()
        if end == "eof":
            assert right and self.reader.received == self.total, (
                f"clean EOF, but {self.reader.received} of {self.total} bytes, right: {right}")
            self.reader.send(500).fin()
            self.sender.expect_eof(600)
            return True
        assert not self.stage.mode.trims, f"reset, but this path can trim; {self.reader}"
        self.sender.expect_reset()
        return False


def play(stage, sender, *scripts_of_cases):
    """Plays the cases, a connection each: exact, or (where trimming is impossible) reset and counted as such."""
    stage.allow(ends=() if stage.mode.trims else {"accounting", "broken_flow"})
    cases = [Case(stage, sender) for _ in scripts_of_cases]
    exact = [case.play(*scripts) for case, scripts in zip(cases, scripts_of_cases)]
    if all(exact):
        stage.prove(**{"c2s" if sender == "client" else "s2c": sum(case.total for case in cases)})
    else:
        ended = stage.prove(share=0).by("shunt_sessions_ended_total", "reason")
        counted = ended.get("accounting", 0) + ended.get("broken_flow", 0)
        assert counted == exact.count(False), f"{exact.count(False)} sessions were reset, counted {ended}"


@pytest.mark.parametrize("sender", ["client", "server"])
@pytest.mark.parametrize("steps", CASES.values(), ids=CASES)
def test_overlap(stage, sender, steps):
    play(stage, sender, [steps])


@pytest.mark.parametrize("sender", ["client", "server"])
@pytest.mark.parametrize("steps", LARGE.values(), ids=LARGE)
@pytest.mark.modes("relay", "sockmap", "parser")
def test_overlap_of_large_segments(stage, sender, steps):
    play(stage, sender, [steps])


@pytest.mark.parametrize("sender", ["client", "server"])
def test_overlaps_in_random_segments(stage, sender):
    play(stage, sender, *([random_steps(seed, 1400)] for seed in range(4)))


@pytest.mark.long
@pytest.mark.parametrize("sender", ["client", "server"])
def test_overlaps_in_random_segments_200_times(stage, sender):
    play(stage, sender, *([random_steps(seed, 1400)] for seed in range(100, 300)))


@pytest.mark.parametrize("sender", ["client", "server"])
def test_overlap_right_after_an_overflow(stage, sender):
    """The direction has just been relayed because its reader was slow."""
    play(stage, sender, [FLOOD, CASES["old_and_new_bytes_in_one_segment"], CASES["overlap_in_the_out_of_order_queue"]])


@pytest.mark.parametrize("sender", ["client", "server"])
def test_many_overlaps_on_one_connection(stage, sender):
    play(stage, sender, list(CASES.values()))
