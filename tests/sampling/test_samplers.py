"""Samplers: priorities, annealing, and the blocks that a commit holds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from hypothesis.stateful import run_state_machine_as_test as run_machine
from sampling import append, mass, sampler, tree_bytes, written

from diskreplay import ArgumentError, DamageError, PriorityError, importance_weights
from diskreplay.sampling.priorities import checked_priorities
from diskreplay.sampling.prioritized import UniformSampler

LARGEST_FLOAT32 = float(np.finfo(np.float32).max)

Floats = np.ndarray[Any, np.dtype[np.float64]]


# Importance weights


@pytest.mark.parametrize("beta", [0.0, 0.4, 0.73, 1.0])
def test_importance_weights_follow_the_formula(beta: float) -> None:
    probabilities = [0.5, 0.2, 1e-3, 3.7e-9, 0.2, 1.0]
    for size in (1, 6, 1_000_000):
        raw = [(size * p) ** -beta for p in probabilities]
        expected = [w / max(raw) for w in raw]
        found = importance_weights(np.array(probabilities), size, beta)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, rtol=2e-7)
        assert found.max() == 1.0
        assert importance_weights(np.full(5, 0.1), size, beta).tolist() == [1.0] * 5


# Prioritized draws


# Uniform draws


def test_a_uniform_sampler_takes_no_priorities() -> None:
    assert UniformSampler().accept(None, 3) is None
    with pytest.raises(PriorityError, match="draws uniformly and keeps no priorities: leave them"):
        UniformSampler().accept([1.0], 1)


# Priorities


def test_new_write_ids_get_the_largest_priority_so_far_or_one() -> None:
    small = sampler(4)
    append(small, 0, [0.25, 0.5])
    small.hold(2, 1, None)
    assert small.live_priorities(0, 3).tolist() == [0.25, 0.5, 0.5]
    target = sampler(4)
    assert target.max_priority == 1.0
    target.hold(0, 2, None)
    assert target.live_priorities(0, 2).tolist() == [1.0, 1.0]
    assert target.update(np.array([0]), np.array([5.0], np.float32), 0, 2) == 1
    assert target.update(np.array([0]), np.array([0.5], np.float32), 0, 2) == 1
    target.hold(2, 1, None)
    append(target, 3, [7.0])
    append(target, 4, [0.25])
    target.hold(5, 1, None)
    assert target.live_priorities(2, 6).tolist() == [5.0, 7.0, 0.25, 7.0]
    target.check(2, 6)


def test_more_new_write_ids_than_the_capacity_leave_the_last_ones() -> None:
    target = sampler(3)
    append(target, 5, [9.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    assert target.live_priorities(9, 12).tolist() == [4.0, 5.0, 6.0]
    assert target.max_priority == 9.0
    target.check(9, 12)


def test_stale_write_ids_are_ignored_and_not_counted_as_applied() -> None:
    target = sampler(10)
    target.hold(0, 25, None)
    write_ids = np.array([14, 15, 24, 25, -1, 5, 2**62])
    assert target.update(write_ids, np.full(7, 8.0, np.float32), 15, 25) == 2
    assert target.live_priorities(15, 25).tolist() == [8.0] + [1.0] * 8 + [8.0]
    stale = np.array([14, 25])
    assert target.update(stale, np.full(2, 99.0, np.float32), 15, 25) == 0
    assert target.max_priority == 8.0
    target.check(15, 25)


def test_the_last_of_duplicate_write_ids_wins() -> None:
    target = sampler(10)
    target.hold(0, 10, None)
    new = np.array([4.0, 2.0, 3.0, 0.5], np.float32)
    assert target.update(np.array([2, 7, 2, 2]), new, 0, 10) == 4
    assert target.live_priorities(0, 10)[[2, 7]].tolist() == [0.5, 2.0]
    target.check(0, 10)
    assert target._tree.masses([2, 7]).tolist() == [mass(0.5), mass(2.0)]


def test_clear_forgets_priorities_and_the_largest_but_not_the_annealing() -> None:
    target = sampler(10)
    append(target, 0, [3.0] * 8)
    target.frame = 7
    target.clear(8)
    assert (target.max_priority, target.frame) == (1.0, 7)
    target.hold(8, 3, None)
    assert target.live_priorities(8, 11).tolist() == [1.0, 1.0, 1.0]
    target.check(8, 11)
    assert set(target.draw(60, 8, 11, np.random.default_rng(1))[0].tolist()) == {8, 9, 10}


def test_priorities_become_float32() -> None:
    for given in ([1, 2], [True, False], [0.1, 0.0], np.array([1, 2], "u1"), np.ones(2, ">f8")):
        found = checked_priorities(given, 2)
        assert found.dtype == np.float32
        assert found.tolist() == np.asarray(given, np.float32).tolist()
    assert checked_priorities([LARGEST_FLOAT32], 1).tolist() == [LARGEST_FLOAT32]


def test_bad_priorities_are_refused() -> None:
    for bad in (-1.0, -1e-45, float("nan"), float("inf"), -float("inf"), 3.5e38, 1e300):
        message = r"must be finite and not negative, at most 3.403e\+38 \(found .*absolute TD error"
        with pytest.raises(PriorityError, match=message):
            checked_priorities([1.0, bad, 2.0], 3)
    with pytest.raises(PriorityError, match="finite and not negative"):
        checked_priorities(np.array([1.0, np.inf], np.float32), 2)
    for shape, given in [(r"\(2,\)", [1.0, 2.0]), (r"\(3, 1\)", [[1.0]] * 3), (r"\(\)", 1.0)]:
        with pytest.raises(PriorityError, match=rf"expected 3 .* \(3,\) \(found shape {shape}"):
            checked_priorities(given, 3)
    for given in (["1"], [None], [1j], [{}]):
        with pytest.raises(PriorityError, match="expected 1 priorities"):
            checked_priorities(given, 1)


def test_float16_priorities_are_taken_and_their_infinity_is_refused() -> None:
    assert checked_priorities(np.array([1.0, 65_504.0], np.float16), 2).tolist() == [1.0, 65_504.0]
    with pytest.raises(PriorityError, match="finite and not negative"):
        checked_priorities(np.array([1.0, np.inf], np.float16), 2)


# Settings and state


@pytest.mark.parametrize("name", ["alpha", "beta_start", "beta_end"])
def test_exponents_are_numbers_from_zero_to_one(name: str) -> None:
    for good in (0, 1, 0.5, np.float32(0.25)):
        assert getattr(sampler(3, **{name: good}), name) == good
    for bad in (-0.1, 1.1, float("nan"), float("inf"), "x", None, True, [0.5, 0.6]):
        with pytest.raises(ArgumentError, match=rf"{name} must be a number in \[0, 1\] \(found"):
            sampler(3, **{name: bad})


def test_epsilon_is_above_zero_and_counts_are_at_least_one() -> None:
    assert sampler(3, epsilon=5e-324).epsilon == 5e-324
    for bad in (0, 0.0, -1.0, float("nan"), float("inf"), 1e39, None, True):
        with pytest.raises(ArgumentError, match=r"epsilon must be a number in \(0, 3.40282e\+38\]"):
            sampler(3, epsilon=bad)
    for bad in (0, -1, 1.5, "3", None, True):
        with pytest.raises(ArgumentError, match="beta_frames must be a whole number of at least 1"):
            sampler(3, beta_frames=bad)
        with pytest.raises(ArgumentError, match="capacity must be a whole number of at least 1"):
            sampler(bad)


def test_settings_that_are_text_or_beyond_a_float_are_refused() -> None:
    for bad in ("0.6", 10**400):
        with pytest.raises(ArgumentError, match=r"alpha must be a number in \[0, 1\]"):
            sampler(3, alpha=bad)


def test_beta_goes_linearly_from_start_to_end() -> None:
    for start, end in [(0.4, 1.0), (1.0, 0.0), (0.5, 0.5)]:
        target = sampler(3, beta_start=start, beta_end=end, beta_frames=10)
        for frame in range(15):
            target.frame = frame
            assert target.beta == pytest.approx(start + (end - start) * min(frame, 10) / 10)
        assert target.beta == end


def test_state_restores_frame_and_largest_priority() -> None:
    target, other = sampler(3), sampler(3)
    assert target.state() == {"frame": 0, "max_priority": None}
    append(target, 0, [5.0])
    target.frame = 12
    other.restore(target.state())
    assert (other.frame, other.max_priority) == (12, 5.0)
    for bad in (-1, 1.0, None, True, "1"):
        with pytest.raises(DamageError, match="the stored frame is not a count of draws"):
            other.restore({"frame": bad, "max_priority": 1.0})
    for bad in (-1.0, float("nan"), float("inf"), 1, "1"):
        with pytest.raises(DamageError, match="the stored largest priority is not a priority"):
            other.restore({"frame": 1, "max_priority": bad})
    assert (other.frame, other.max_priority) == (12, 5.0)


# Blocks


def test_only_changed_blocks_are_dirty_until_they_are_committed() -> None:
    target = sampler(2500)
    assert target.dirty_blocks(0, 0) == {}
    target.hold(0, 1700, None)
    blocks = target.dirty_blocks(0, 1700)
    assert {number: len(block) for number, block in blocks.items()} == {0: 4000, 1: 4000}
    assert blocks[1] == np.repeat(np.array([1.0, 0.0], "<f4"), [700, 300]).tobytes()
    assert target.dirty_blocks(0, 1700) == blocks  # no commit, they stay
    target.committed(blocks)
    assert target.dirty_blocks(0, 1700) == {}
    target.update(np.array([1000]), np.array([3.0], np.float32), 0, 1700)
    assert sorted(target.dirty_blocks(0, 1700)) == [1]
    target.hold(1700, 900, None)  # around the end, into block 0
    blocks = target.dirty_blocks(100, 2600)
    assert {n: len(block) for n, block in blocks.items()} == {0: 4000, 1: 4000, 2: 2000}
    target.committed([0, 2])
    assert sorted(target.dirty_blocks(100, 2600)) == [1]
    target.committed([1])
    target.hold(2600, 1, None)
    assert sorted(target.dirty_blocks(101, 2601)) == [0]
    target.committed([0])
    target.update(np.array([50]), np.array([2.0], np.float32), 101, 2601)
    assert target.dirty_blocks(101, 2601) == {}


def test_what_is_held_but_never_live_leaves_no_trace() -> None:
    target, twin = sampler(4), sampler(4)
    for each in (target, twin):
        append(each, 0, [1.0, 2.0, 3.0, 4.0])
        each.check(0, 4)
    append(target, 4, [9.0, 9.0])  # a call that was interrupted before it published them
    target.check(0, 4)
    assert target.live_priorities(0, 4).tolist() == [1.0, 2.0, 3.0, 4.0]
    for each in (target, twin):
        append(each, 4, [5.0])
        each.check(1, 5)
    assert tree_bytes(target) == tree_bytes(twin)


def test_a_tree_whose_update_was_interrupted_is_rebuilt() -> None:
    target = sampler(100)
    append(target, 0, list(range(100)))
    target.check(0, 100)
    target._tree._levels[2][:] = 7.0
    with pytest.raises(DamageError, match="is not left"):
        target.check(0, 100)
    target._tree_is_whole = False
    target.draw(5, 0, 100, np.random.default_rng(0))
    target.check(0, 100)
    target._tree_is_whole = False
    target.check(10, 90)  # those that are live no more have no mass left


def test_a_loaded_tree_is_equal_bit_for_bit() -> None:
    for capacity in (1, 3, 1000, 2500):
        for count in (capacity // 2 or 1, capacity, 3 * capacity + 1):
            target, first = written(capacity, count, seed=count)
            target.check(first, count)
            other = target.sibling(capacity)
            other.load_blocks(target.dirty_blocks(first, count), first, count)
            assert tree_bytes(other) == tree_bytes(target)
            other.check(first, count)
            assert other.dirty_blocks(first, count) == {}
            one, two = np.random.default_rng(1), np.random.default_rng(1)
            drawn, again = target.draw(99, first, count, one), other.draw(99, first, count, two)
            assert [a.tobytes() for a in drawn] == [a.tobytes() for a in again]


def test_slots_of_a_loaded_block_that_are_not_live_have_no_mass() -> None:
    target, other = sampler(10), sampler(10)
    append(target, 0, [5.0] * 8)
    other.load_blocks(target.dirty_blocks(0, 8), 6, 8)
    other.check(6, 8)
    assert np.flatnonzero(other._tree.masses(np.arange(10))).tolist() == [6, 7]


@pytest.mark.parametrize("capacity", [1000, 10_000])  # a loaded block is all, or little of it
def test_new_write_ids_of_a_loaded_block_have_a_mass_even_with_priority_zero(capacity: int) -> None:
    target = sampler(capacity)
    append(target, 0, [0.0] * 10)
    target.check(0, 10)
    content = np.zeros(1000, "<f4")
    content[20] = 5.0
    target.load_blocks({0: content.tobytes()}, 0, 30)
    target.check(0, 30)
    expected = [mass(5.0) if i == 20 else mass(0.0) if i < 30 else 0.0 for i in range(31)]
    assert target._tree.masses(np.arange(31)).tolist() == pytest.approx(expected, rel=1e-15)


def test_live_blocks_are_those_of_live_slots() -> None:
    target = sampler(3500)
    spans = {(0, 0): [], (0, 1): [0], (999, 1001): [0, 1], (3400, 3600): [0, 3], (9000, 9000): []}
    for (first, count), expected in spans.items():
        assert target.live_blocks(first, count) == expected


def test_a_block_that_no_commit_wrote_is_refused() -> None:
    target = sampler(1500)
    for number, size, expected in [(0, 3999, 4000), (1, 4000, 2000), (2, 0, 0), (2, 4000, 0)]:
        message = rf"priority block {number} has {size:,} bytes \(expected {expected:,}\)"
        with pytest.raises(DamageError, match=message):
            target.load_blocks({number: bytes(size)}, 0, 1500)
    for bad in (-1.0, np.nan, np.inf):
        content = np.full(500, bad, "<f4").tobytes()
        with pytest.raises(DamageError, match="priority block 1 holds what is not a priority"):
            target.load_blocks({1: content}, 0, 1500)


def test_check_finds_a_priority_that_the_tree_does_not_have() -> None:
    target = sampler(10)
    target.hold(0, 10, None)
    target.check(0, 10)
    target._priorities[3] = 2.0
    with pytest.raises(DamageError, match=r"priorities of 1 slot \(the first: 3\)"):
        target.check(0, 10)


def test_the_memory_is_what_it_says() -> None:
    target = sampler(100_000)
    levels = sum(level.nbytes for level in target._tree._levels)
    actual = levels + target._priorities.nbytes + target._dirty.nbytes + target._waiting.nbytes
    assert target.nbytes == pytest.approx(actual, rel=1e-3)


# Random operations, commits and reopenings, against a dictionary


class SamplerAndTwin(RuleBasedStateMachine):
    @initialize(capacity=st.sampled_from([1, 2, 7, 64, 999, 1000, 1001, 2500]))
    def start(self, capacity: int) -> None:
        self.sampler, self.capacity = sampler(capacity), capacity
        self.begin = self.count = 0
        self.twin: dict[int, float] = {}
        self.largest = 1.0
        self.known = False
        self.stored: dict[int, bytes] = {}

    @property
    def first(self) -> int:
        return max(self.begin, self.count - self.capacity)

    def note(self, priorities: list[float]) -> None:
        self.largest = max([*priorities, self.largest] if self.known else priorities)
        self.known = True

    @rule(n=st.integers(1, 40) | st.integers(900, 1200), given=st.none() | st.integers(0, 99))
    def append(self, n: int, given: int | None) -> None:
        new = [self.largest] * n
        if given is None:
            self.sampler.hold(self.count, n, None)
        else:
            new = [((given + i) * 37 % 101) / 8 for i in range(n)]
            append(self.sampler, self.count, new)
        self.note(new)
        self.twin.update(zip(range(self.count, self.count + n), new, strict=True))
        self.count += n

    @rule(pairs=st.lists(st.tuples(st.floats(-0.5, 1.1), st.integers(0, 99)), max_size=30))
    def update(self, pairs: list[tuple[float, int]]) -> None:
        span = self.count - self.first
        ids = [self.first + int(place * span) for place, _ in pairs]
        new = [p / 4 for _, p in pairs]
        live = {i: p for i, p in zip(ids, new, strict=True) if self.first <= i < self.count}
        stale = sum(not self.first <= i < self.count for i in ids)
        applied = self.sampler.update(
            np.array(ids, np.int64), checked_priorities(new, len(new)), self.first, self.count
        )
        assert applied == len(ids) - stale
        self.twin.update(live)
        if live:
            self.note([p for i, p in zip(ids, new, strict=True) if i in live])

    @rule()
    def clear(self) -> None:
        self.sampler.clear(self.count)
        self.begin, self.largest, self.known = self.count, 1.0, False

    @rule(works=st.booleans(), reopen=st.booleans())
    def commit(self, works: bool, reopen: bool) -> None:
        blocks = self.sampler.dirty_blocks(self.first, self.count)
        if not works:
            return
        self.sampler.committed(blocks)
        self.stored.update(blocks)
        if reopen:
            state, self.sampler = self.sampler.state(), self.sampler.sibling(self.capacity)
            needed = self.sampler.live_blocks(self.first, self.count)
            blocks = {number: self.stored[number] for number in needed}
            self.sampler.load_blocks(blocks, self.first, self.count)
            self.sampler.restore(state)

    @rule(seed=st.integers(0, 99))
    def draw(self, seed: int) -> None:
        if self.first == self.count:
            return
        drawn, found = self.sampler.draw(20, self.first, self.count, np.random.default_rng(seed))
        total = sum(mass(self.twin[i]) for i in range(self.first, self.count))
        expected = [mass(self.twin[i]) / total for i in drawn.tolist()]
        np.testing.assert_allclose(found, expected, rtol=1e-12)

    @invariant()
    def equal(self) -> None:
        live = [self.twin[i] for i in range(self.first, self.count)]
        assert self.sampler.live_priorities(self.first, self.count).tolist() == live
        assert self.sampler.max_priority == self.largest

    def teardown(self) -> None:
        if hasattr(self, "sampler"):
            self.sampler.check(self.first, self.count)


def test_random_operations_agree_with_a_dictionary_of_priorities() -> None:
    run_machine(SamplerAndTwin, settings=settings(stateful_step_count=20))
