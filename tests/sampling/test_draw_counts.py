"""Draws of each transition at most a number of times."""

from __future__ import annotations

import signal
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from children import in_child
from common import columns, run_python
from distributions import drawn
from drawn import fill
from frequencies import assert_neither_too_far_nor_too_near, chi_square
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from stores import RECORD_BYTES, change, spoil, stored

import diskreplay
from diskreplay import ArgumentError, PrioritizedReplayBuffer, ReplayBuffer, SampleError
from diskreplay.live_range import LiveRange
from diskreplay.samplers import AtMost, Epoch
from diskreplay.sampling import DrawBasis, DrawCounts, RandomStream, new_seed

KINDS = [ReplayBuffer, PrioritizedReplayBuffer]
N, SIZE, TIMES = 60, 8, 2


def opened(kind: Any, path: Path, **arguments: Any) -> Any:
    arguments = {"sampler": AtMost(TIMES), "commit_interval": 1e9, **arguments}
    return kind(N, seed=3, path=path, **arguments)


def indices(batch: Any) -> list[int]:
    found: list[int] = batch.indices.tolist()
    return found


def drawn_until_none_is_left(buffer: Any, n: int = 1) -> Counter[int]:
    found: Counter[int] = Counter()
    while buffer.total_mass >= n:
        found.update(indices(buffer.sample(n)))
    with pytest.raises(SampleError, match=r"have draws left with the sampler AtMost\(times="):
        buffer.sample(n)
    return found


# The table and the sampler


class Counts(RuleBasedStateMachine):
    """Draws, given or not, of a ring that goes on, against plain dictionaries."""

    @initialize(capacity=st.integers(1, 12), keep_rows=st.integers(0, 3), times=st.integers(1, 3))
    def begin(self, capacity: int, keep_rows: int, times: int) -> None:
        self.live = LiveRange(capacity, 0, 0, keep_rows)
        self.times = times
        self.counts = DrawCounts(capacity + keep_rows, times)
        self.sampler = AtMost(times).sampler(DrawBasis(counts=self.counts))
        self.stream = RandomStream(new_seed(1))
        self.given: Counter[int] = Counter()
        self.ahead: dict[int, list[int]] = {}
        self.left_out: set[int] = set()
        self.stored: dict[int, bytes] = {}
        self.draws = 0

    @rule(n=st.integers(1, 15))
    def push(self, n: int) -> None:
        self.live = self.live.until(self.live.count + n)

    @rule(n=st.integers(1, 6), later=st.integers(0, 3))
    def draw(self, n: int, later: int) -> None:
        number = self.draws + min(later, len(self.ahead))
        self.ahead = {at: ids for at, ids in self.ahead.items() if at < number}
        taken = self.given + Counter(i for ids in self.ahead.values() for i in ids)
        live = range(self.live.first, self.live.count)
        left = [i for i in live if taken[i] < self.times and i not in self.left_out]
        if n > len(left):
            with pytest.raises(SampleError, match="have draws left"):
                self.sampler.draw(n, self.live, self.stream.of_draw(number))
        else:
            ids, shares = self.sampler.draw(n, self.live, self.stream.of_draw(number))
            assert len(set(ids.tolist())) == n
            assert set(ids.tolist()) <= set(left)
            assert shares.tolist() == [1 / len(left)] * n
            self.ahead[number] = ids.tolist()
            assert self.counts.is_current(number, ids)
        assert self.sampler.total_mass(self.live) == len(left) - sum(
            taken[i] + 1 == self.times for i in self.ahead.get(number, [])
        )

    @rule()
    def give(self) -> None:
        self.counts.give(self.draws, self.live)
        self.given.update(self.ahead.pop(self.draws, []))
        self.draws += 1

    @precondition(lambda self: self.live.size)
    @rule(data=st.data())
    def leave_out(self, data: Any) -> None:
        one = data.draw(st.integers(self.live.first, self.live.count - 1))
        self.left_out.add(one)
        self.sampler.leave_out(np.array([one]), self.live)

    @rule()
    def break_off(self) -> None:
        self.counts.mark_broken()

    @rule()
    def store_and_load(self) -> None:
        self.stored.update(self.counts.dirty_blocks(self.live))
        values = {i: self.given[i] for i in range(self.live.first, self.live.count)}
        self.counts = DrawCounts(self.live.ring_slots, self.times)
        self.counts.clear(self.live.first)
        self.counts.load(self.stored, self.live)
        self.sampler = AtMost(self.times).sampler(DrawBasis(counts=self.counts))
        ids = np.array([*values], np.int64)
        assert self.counts.of(ids, self.live).tolist() == [*values.values()]
        self.ahead.clear()
        self.left_out.clear()

    def teardown(self) -> None:
        if hasattr(self, "live"):
            self.counts.check(self.live)


TestCounts = Counts.TestCase


def test_a_batch_ahead_takes_no_draw_of_a_kept_row() -> None:
    live = LiveRange(1, 0, 1, keep_rows=1)
    counts = DrawCounts(2, 1)
    counts.settle(live)
    counts.take(0, np.array([0]), live)
    live = live.until(2)  # write id 0 is kept, and no longer live
    counts.check(live)


def test_the_draws_are_uniform_among_those_with_draws_left() -> None:
    live = LiveRange(40, 0, 90)
    frequencies = np.zeros(40)
    for seed in range(2000):
        sampler = AtMost(1).sampler(DrawBasis(counts=DrawCounts(40, 1)))
        ids, _ = drawn(sampler, live, 4, 3, seed=seed)
        assert len(set(ids.ravel().tolist())) == 12  # none of them twice
        frequencies[ids[2] - live.first] += 1  # of the third batch
    statistic, freedom = chi_square(frequencies, np.full(40, frequencies.sum() / 40))
    # Without replacement the variance of a frequency is this much lower.
    assert_neither_too_far_nor_too_near(statistic * 39 / 36, freedom)


@given(st.binary(min_size=4, max_size=4))
def test_a_stored_count_is_not_negative(content: bytes) -> None:
    (value,) = np.frombuffer(content, "<i4")
    if value >= 0:
        assert DrawCounts.block_of(0, content, 1).tolist() == [value]
    else:
        with pytest.raises(diskreplay.DamageError, match="draw counts 0 holds a negative number"):
            DrawCounts.block_of(0, content, 1)


# Buffers


@pytest.mark.parametrize("kind", KINDS)
def test_each_transition_is_drawn_that_often_over_any_reopenings(kind: Any, tmp_path: Path) -> None:
    found: Counter[int] = Counter()
    for opening in range(7):
        with opened(kind, tmp_path / "b") as buffer:
            buffer.extend(**columns(buffer.count, 10))  # evicts from the seventh on
            for _ in range(2):
                found.update(indices(buffer.sample(SIZE)))
            assert buffer.draw(1).probabilities.size == 1 or opening
    assert max(found.values()) <= TIMES
    with opened(kind, tmp_path / "b") as buffer:
        rest = drawn_until_none_is_left(buffer)
        assert buffer.total_mass == 0.0
        assert max((found + rest).values()) <= TIMES
        buffer.extend(**columns(buffer.count, 5))
        again = drawn_until_none_is_left(buffer)
        assert again == dict.fromkeys(range(70, 75), TIMES)


TRAIN = """
import os, sys
import diskreplay
from common import columns
from diskreplay.samplers import AtMost

kind, path, begin, end, prefetch = sys.argv[1:]
buffer = getattr(diskreplay, kind)(
    60, seed=3, path=path, commit_interval=1e9, sampler=AtMost(2)
)
if begin == "0":
    buffer.extend(**columns(0, 90))
with buffer.batches(8, prefetch=int(prefetch)) as batches:
    for step in range(int(begin), int(end)):
        print(next(batches).indices.tolist())
    buffer.flush()
    print(next(batches).indices.tolist(), "is not committed", flush=True)
    os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("prefetch", [0, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_a_kill_between_a_draw_and_its_commit(kind: Any, prefetch: int, tmp_path: Path) -> None:
    def train(path: str, begin: int, end: int) -> list[list[int]]:
        arguments = kind.__name__, tmp_path / path, begin, end, prefetch
        done = run_python(TRAIN, *arguments, check=False)
        assert done.returncode == -signal.SIGKILL, done.stderr
        *found, last = done.stdout.splitlines()
        assert last.endswith("is not committed")
        return [[int(i) for i in line[1:-1].split(",")] for line in found]

    whole = train("whole", 0, 12)
    parts = train("parts", 0, 4) + train("parts", 4, 12)
    assert parts == whole
    with opened(kind, tmp_path / "parts") as buffer:
        found = Counter(i for ids in parts for i in ids) + drawn_until_none_is_left(buffer)
    assert found == dict.fromkeys(range(30, 90), 2)


@pytest.mark.parametrize("readers", [0, 1])
@pytest.mark.parametrize("kind", KINDS)
def test_batches_drawn_ahead_count_when_they_are_given(
    kind: Any, readers: int, tmp_path: Path
) -> None:
    with opened(kind, tmp_path / "b") as buffer:
        buffer.extend(**columns(0, N))
        found: Counter[int] = Counter()
        with buffer.batches(SIZE, prefetch=3, readers=readers) as batches:
            for step in range(6):
                found.update(indices(next(batches)))
                if not readers:
                    fill(batches)
                if step == 2:  # another size, under the number of the next batch
                    found.update(indices(buffer.sample(5)))
                if step == 4:
                    buffer.extend(**columns(0, 1))  # evicts
        rest = drawn_until_none_is_left(buffer)
        live = range(buffer.first, buffer.count)
        assert max(found.values()) <= TIMES
        assert {i: (found + rest)[i] for i in live} == dict.fromkeys(live, TIMES)


@pytest.mark.parametrize("pad", [True, False])
def test_the_starts_of_sequences_count(pad: bool, tmp_path: Path) -> None:
    with opened(ReplayBuffer, tmp_path / "b") as buffer:
        buffer.extend(**columns(0, N), env=0)  # episodes of 5 transitions
        starts = [buffer.sample_sequences(4, 3, pad=pad).indices[:, 0] for _ in range(5)]
        found = Counter(np.concatenate(starts).tolist())
        rest = drawn_until_none_is_left(buffer)
        assert max((found + rest).values()) <= TIMES
        assert not pad or found + rest == dict.fromkeys(range(N), TIMES)


def test_two_iterators_that_draw_ahead(tmp_path: Path) -> None:
    with opened(ReplayBuffer, tmp_path / "b") as buffer:
        buffer.extend(**columns(0, N))
        found: Counter[int] = Counter()
        with buffer.batches(5, prefetch=2) as some, buffer.batches(7, prefetch=2) as others:
            for _ in range(8):
                found.update(indices(next(some)))
                fill(others) if others._drawn_ahead.thread else None
                found.update(indices(next(others)))
        found += drawn_until_none_is_left(buffer)
        assert found == dict.fromkeys(range(N), TIMES)


def test_counting_begins_anew_after_an_opening_without_it(tmp_path: Path) -> None:
    path = tmp_path / "b"
    with opened(ReplayBuffer, path) as buffer:
        buffer.extend(**columns(0, 50))
        drawn_until_none_is_left(buffer)
    with opened(ReplayBuffer, path, access="read", sampler=None) as buffer:
        buffer.sample(SIZE)
    with opened(ReplayBuffer, path) as buffer:
        assert drawn_until_none_is_left(buffer) == {}  # a reader changes nothing
    with opened(ReplayBuffer, path, sampler=Epoch()) as buffer:
        buffer.extend(**columns(50, 20))
    for _ in range(2):
        with opened(ReplayBuffer, path) as buffer:
            buffer.check()
            drawn_until_none_is_left(buffer)
    assert diskreplay.verify(path) == []


def test_what_is_left_after_clear_load_save_and_resize(tmp_path: Path) -> None:
    with opened(ReplayBuffer, tmp_path / "b") as buffer:
        buffer.extend(**columns(0, 50))
        drawn_until_none_is_left(buffer)
        buffer.save(tmp_path / "saved")
        buffer.clear()
        buffer.extend(**columns(50, 3))
        assert drawn_until_none_is_left(buffer) == {50: 2, 51: 2, 52: 2}
        buffer.load(tmp_path / "saved")
        live = range(buffer.first, buffer.count)
        assert drawn_until_none_is_left(buffer) == dict.fromkeys(live, 2)
    with opened(ReplayBuffer, tmp_path / "saved") as buffer:
        assert drawn_until_none_is_left(buffer) == {}
    diskreplay.resize(tmp_path / "saved", 40)
    with diskreplay.open(tmp_path / "saved", sampler=AtMost(1)) as buffer:
        assert drawn_until_none_is_left(buffer) == dict.fromkeys(range(10, 50), 1)
        buffer.check()
    diskreplay.compact(tmp_path / "saved")
    with diskreplay.open(tmp_path / "saved", sampler=AtMost(1)) as buffer:
        assert set(drawn_until_none_is_left(buffer).values()) <= {1}
    assert diskreplay.verify(tmp_path / "saved") == []


def test_a_rewind_takes_the_counts_back(tmp_path: Path) -> None:
    with opened(ReplayBuffer, tmp_path / "b") as buffer:
        buffer.extend(**columns(0, 40))
        before = Counter(i for _ in range(4) for i in indices(buffer.sample(SIZE)))
        buffer.mark("here")
        after = [indices(buffer.sample(SIZE)) for _ in range(4)]
    with opened(ReplayBuffer, tmp_path / "b") as buffer:
        buffer.rewind("here")
        assert [indices(buffer.sample(SIZE)) for _ in range(4)] == after
        buffer.rewind("here")
        assert before + drawn_until_none_is_left(buffer) == dict.fromkeys(range(40), 2)
        buffer.delete_mark("here")
    with opened(ReplayBuffer, tmp_path / "b", sampler=None) as buffer:
        buffer.mark("uncounted")
    with opened(ReplayBuffer, tmp_path / "b") as buffer:
        buffer.sample(SIZE)
        buffer.flush()
        buffer.rewind("uncounted")
        assert drawn_until_none_is_left(buffer) == dict.fromkeys(range(40), 2)
    assert diskreplay.verify(tmp_path / "b") == []


def test_a_rewind_to_a_mark_that_is_older_than_all_counts(tmp_path: Path) -> None:
    with opened(ReplayBuffer, tmp_path / "b", sampler=None) as buffer:
        buffer.extend(**columns(0, 40))
        buffer.mark("here")
    with opened(ReplayBuffer, tmp_path / "b") as buffer:
        buffer.sample(SIZE)
        buffer.flush()
        buffer.rewind("here")
        assert drawn_until_none_is_left(buffer) == dict.fromkeys(range(40), 2)
    assert diskreplay.verify(tmp_path / "b") == []


def test_only_a_lone_writer_counts(tmp_path: Path) -> None:
    path = tmp_path / "b"
    with opened(ReplayBuffer, path) as buffer:
        buffer.extend(**columns(0, 50))
        buffer.flush()

        def draw_in_child() -> str:
            assert buffer.get([3])
            with pytest.raises(SampleError) as caught:
                buffer.sample(SIZE)
            return str(caught.value)

        assert "counts draws, which a buffer that only reads" in in_child(draw_in_child).value
    with pytest.raises(ArgumentError, match=r"AtMost\(times=2\) counts draws.*'exclusive'"):
        opened(ReplayBuffer, path, access="shared")
    with opened(ReplayBuffer, path, access="read") as buffer:
        assert buffer.get([3]).indices == [3]
        assert buffer.total_mass == 0.0
        with pytest.raises(SampleError, match=r"read with get\(\), or open the store with another"):
            buffer.sample(1)
    bad: Any
    for bad in (0, -1, 1.5, "2", None, True):
        with pytest.raises(ArgumentError, match="times must be a whole number of at least 1"):
            AtMost(bad)


def test_damage_of_records_and_of_counts(tmp_path: Path) -> None:
    path = tmp_path / "b"
    with opened(ReplayBuffer, path) as buffer:
        buffer.extend(**columns(0, 40))
        buffer.sample(SIZE)
    spoil(path, [10, 17], RECORD_BYTES)
    with opened(ReplayBuffer, path, window_bytes=0, on_damage="skip") as buffer:
        found = drawn_until_none_is_left(buffer, 4)
        assert not {10, 17} & found.keys()
        assert max(found.values()) <= TIMES
    content = bytearray(stored(path, "draw_counts", 0))
    content[50] ^= 1
    change(path, "draw_counts", 0, bytes(content))
    with pytest.raises(diskreplay.DamageError, match="block of draw counts 0"):
        opened(ReplayBuffer, path)
    opened(ReplayBuffer, path, sampler=None).close()
    [fault] = [fault for fault in diskreplay.verify(path) if "draw counts" in fault]
    assert "block of draw counts 0" in fault
