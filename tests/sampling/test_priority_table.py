"""Priorities: their values, the largest so far, and random operations against a dictionary."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from hypothesis.stateful import run_state_machine_as_test as run_machine
from sampling import mass, new_priorities, stage, tree_bytes, written

from diskreplay import PriorityError
from diskreplay.live_range import LiveRange
from diskreplay.sampling import checked_priorities
from diskreplay.sampling.prioritized import PrioritizedSampler

NAN = float("nan")
LARGEST_FLOAT32 = float(np.finfo(np.float32).max)


def test_new_write_ids_get_the_largest_priority_so_far_or_one() -> None:
    small, live = new_priorities(4), LiveRange(4, 0, 3)
    stage(small, 0, [0.25, 0.5])
    small.stage(2, 1, None)
    assert small.live_values(live).tolist() == [0.25, 0.5, 0.5]
    target, live = new_priorities(4), LiveRange(4, 0, 2)
    assert (target.largest, target.default) == (None, 1.0)
    target.stage(0, 2, None)
    assert target.largest == 1.0
    assert target.live_values(live).tolist() == [1.0, 1.0]
    for priority in (5.0, 0.5):
        assert target.update(np.array([0]), np.array([priority], np.float32), live) == 1
    target.stage(2, 1, None)
    stage(target, 3, [7.0])
    stage(target, 4, [0.25])
    target.stage(5, 1, None)
    assert target.live_values(live.until(6)).tolist() == [5.0, 7.0, 0.25, 7.0]
    target.check(live.until(6))
    target.raise_largest(8.0)
    target.raise_largest(7.5)
    assert (target.largest, target.default) == (8.0, 8.0)


def test_clear_forgets_priorities_and_the_largest() -> None:
    target = new_priorities(10)
    stage(target, 0, [3.0] * 8)
    target.leave_out(np.array([1, 5]), LiveRange(10, 0, 8))
    target.clear(8)
    assert target.largest is None
    target.check(LiveRange(10, 8, 8))
    target.stage(8, 3, None)
    live = LiveRange(10, 8, 11)
    assert target.live_values(live).tolist() == [1.0, 1.0, 1.0]
    found = target.tree.masses(range(10)).tolist()
    assert found == [mass(1.0)] + [0.0] * 7 + [mass(1.0)] * 2
    assert not target._left_out
    target.check(live)


def test_priorities_become_float32() -> None:
    for given in ([1, 2], [True, False], [0.1, 0.0], np.array([1, 2], "u1"), np.ones(2, ">f8")):
        found = checked_priorities(given, 2)
        assert found.dtype == np.float32
        assert found.tolist() == np.asarray(given, np.float32).tolist()
    for largest in ([LARGEST_FLOAT32], np.array([65_504.0], np.float16)):
        assert checked_priorities(largest, 1).tolist() == [float(largest[0])]
    assert checked_priorities([], 0).tolist() == []


def test_bad_priorities_are_refused() -> None:
    for bad in (-1.0, -1e-45, NAN, float("inf"), -float("inf"), 3.5e38, 1e300):
        message = r"must be finite and not negative, at most 3.403e\+38 \(found .*absolute TD error"
        with pytest.raises(PriorityError, match=message):
            checked_priorities([1.0, bad, 2.0], 3)
    for kind in (np.float16, np.float32):
        with pytest.raises(PriorityError, match="finite and not negative"):
            checked_priorities(np.array([1.0, np.inf], kind), 2)
    for shape, given in [(r"\(2,\)", [1.0, 2.0]), (r"\(3, 1\)", [[1.0]] * 3), (r"\(\)", 1.0)]:
        with pytest.raises(PriorityError, match=rf"expected 3 .* \(3,\) \(found shape {shape}"):
            checked_priorities(given, 3)
    for other in (["1"], [None], [1j], [{}]):
        with pytest.raises(PriorityError, match="expected 1 priorities"):
            checked_priorities(other, 1)


@pytest.mark.parametrize("stored", [None, 0.5, 3.0])
@pytest.mark.parametrize("new", [[], [NAN], [0.25, NAN, 2.0], [0.25, 0.5, 2.0], [7.0, NAN, NAN]])
@pytest.mark.parametrize("highest", [NAN, 5.0])
def test_priorities_are_merged_into_those_of_a_store(
    stored: float | None, new: list[float], highest: float
) -> None:
    target, live = written(1500, 1400, seed=1)
    blocks = dict(target.dirty_blocks(live))
    untouched = (target.largest, tree_bytes(target.tree), blocks)
    write_ids = np.array([1399, 1400, 1399][: len(new)], np.int64)
    priorities = np.array(new, np.float32)

    def read(numbers: list[int]) -> Mapping[int, bytes]:
        return {number: blocks[number] for number in numbers}

    found, changed = target.after_update(
        stored, read, live, write_ids, priorities, np.append(priorities, np.float32(highest))
    )
    known = [p for p in [*new, highest, stored] if p is not None and p == p]
    largest = max(known) if known else 1.0 if new else None
    assert found == largest
    expected = target.values.copy()
    for write_id, priority in zip(write_ids, new, strict=True):
        expected[write_id] = priority if priority == priority else largest
    assert changed == ({1: expected[1000:].astype("<f4").tobytes()} if new else {})
    assert (target.largest, tree_bytes(target.tree), dict(target.dirty_blocks(live))) == untouched


# Random operations, commits and reopenings, against a dictionary


class PrioritiesAndTwin(RuleBasedStateMachine):
    # `own` is a writer's, `reader` follows its commits.
    @initialize(capacity=st.sampled_from([1, 2, 7, 64, 999, 1000, 1001, 2500, 9000]))
    def start(self, capacity: int) -> None:
        self.own, self.reader = new_priorities(capacity), new_priorities(capacity)
        self.live = self.committed = LiveRange(capacity, 0, 0)
        self.twin: dict[int, float] = {}
        self.largest: float | None = None
        self.left_out: set[int] = set()
        self.stored: dict[int, bytes] = {}
        self.stored_twin: dict[int, float] = {}

    def raise_largest(self, priorities: list[float]) -> None:
        self.largest = max([*priorities, -1.0 if self.largest is None else self.largest])

    @rule(
        n=st.integers(1, 40) | st.integers(900, 1200),
        given=st.none() | st.integers(0, 99),
        is_refused=st.booleans(),
    )
    def push(self, n: int, given: int | None, is_refused: bool) -> None:
        default = 1.0 if self.largest is None else self.largest
        new = [default if given is None else ((given + i) * 37 % 101) / 8 for i in range(n)]
        if given is None:
            self.own.stage(self.live.count, n, None)
        else:
            stage(self.own, self.live.count, new)
        self.raise_largest(new)
        if not is_refused:
            self.twin.update(enumerate(new, self.live.count))
            self.live = self.live.until(self.live.count + n)

    @rule(pairs=st.lists(st.tuples(st.floats(-0.5, 1.1), st.integers(0, 99)), max_size=30))
    def update(self, pairs: list[tuple[float, int]]) -> None:
        ids = [self.live.first + int(place * self.live.size) for place, _ in pairs]
        new = checked_priorities([p / 4 for _, p in pairs], len(pairs))
        live = [pair for pair in zip(ids, new.tolist(), strict=True) if pair[0] in self.ids()]
        assert self.own.update(np.array(ids, np.int64), new, self.live) == len(live)
        self.twin.update(live)
        if live:
            self.raise_largest([p for _, p in live])

    @precondition(lambda self: self.live.size)
    @rule(places=st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=5))
    def leave_out(self, places: list[float]) -> None:
        ids = [self.live.first + int(place * self.live.size) for place in places]
        self.own.leave_out(np.array(ids), self.live)
        self.left_out.update(ids)

    @rule()
    def clear(self) -> None:
        self.own.clear(self.live.count)
        self.live, self.largest = self.live.since(self.live.count), None

    @rule(works=st.booleans(), reopen=st.booleans())
    def commit(self, works: bool, reopen: bool) -> None:
        blocks = self.own.dirty_blocks(self.live)
        if not works:
            return
        self.own.mark_committed(blocks)
        self.stored.update(blocks)
        self.stored_twin = dict(self.twin)
        if self.committed.start != self.live.start:
            self.reader.clear(self.live.first)
            blocks = {number: self.stored[number] for number in self.live.blocks()}
        self.reader.load(blocks, self.live)
        self.committed = self.live
        if reopen:
            self.own, self.left_out = new_priorities(self.live.capacity), set()
            self.own.load({n: self.stored[n] for n in self.live.blocks()}, self.live)
            self.own.largest = self.largest

    @rule(seed=st.integers(0, 99))
    def draw(self, seed: int) -> None:
        masses = {i: mass(self.twin[i]) for i in self.ids() if i not in self.left_out}
        if masses:
            generator = np.random.default_rng(seed)
            drawn, found = PrioritizedSampler(self.own).draw(20, self.live, generator)
            expected = [masses[i] / sum(masses.values()) for i in drawn.tolist()]
            np.testing.assert_allclose(found, expected, rtol=1e-12)

    @rule()
    def compare(self) -> None:
        assert self.own.largest == self.largest
        assert self.own.live_values(self.live).tolist() == [self.twin[i] for i in self.ids()]
        expected = [self.stored_twin[i] for i in range(self.committed.first, self.committed.count)]
        assert self.reader.live_values(self.committed).tolist() == expected
        self.own.check(self.live)
        self.reader.check(self.committed)

    def ids(self) -> range:
        return range(self.live.first, self.live.count)

    def teardown(self) -> None:
        if hasattr(self, "own"):
            self.compare()


def test_random_operations_agree_with_a_dictionary_of_priorities() -> None:
    run_machine(PrioritiesAndTwin, settings=settings(stateful_step_count=20))
