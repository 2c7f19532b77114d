"""Every Replay that can be written to against a twin in memory: any calls, in any order."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import common
import nested_rows
import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from nested_rows import assert_same, each
from replays import PRIORITIZED_WRITERS, UNIFORM_WRITERS, Exclusive, name_of

import diskreplay
from diskreplay.records.grouping import grouping_for

priorities = st.floats(0, 1000, width=32)


class ReplayAgainstTwin(RuleBasedStateMachine):
    """The twin: a list of [write id, number, priority], oldest first, cut to the capacity."""

    def __init__(self, factory: Exclusive, rows: Any) -> None:
        super().__init__()
        self.factory, self.of = factory, rows
        self.directory = Path(tempfile.mkdtemp())
        self.rows: list[list[Any]] = []
        self.next_id = self.next_number = self.saves = self.frame = 0
        self.largest: float | None = None
        self.batches: dict[int, Any] = {}  # by size, to be used again

    @initialize(capacity=st.integers(1, 40), window_bytes=st.sampled_from([0, 1 << 20]))
    def start(self, capacity: int, window_bytes: int) -> None:
        self.capacity = self.factory.capacity_near(capacity)
        self.settings = {"window_bytes": window_bytes}
        self.replay = self.make()

    def masses(self, kept: list[float]) -> Any:
        return self.factory.draws.masses(kept)

    def make(self) -> Any:
        return self.factory.make(self.directory / "b", self.capacity, seed=1, **self.settings)

    def add(self, ids: list[int], given: list[float] | None = None) -> None:
        assert ids == self.factory.ids(self.next_id, len(ids))
        self.factory.settle(self.replay)
        new = given or [1.0 if self.largest is None else self.largest] * len(ids)
        for priority in new:
            self.rows.append([self.next_id, self.next_number, priority])
            self.next_id += 1
            self.next_number += 1
        self.raise_largest(new)
        self.rows = self.rows[-self.capacity :]

    def raise_largest(self, new: list[float]) -> None:
        self.largest = max([*new, *([] if self.largest is None else [self.largest])], default=None)

    @rule()
    def push(self) -> None:
        self.add([self.replay.push(**self.of.row(self.next_number))])

    @rule(n=st.integers(0, 100))
    def extend(self, n: int) -> None:
        self.add(self.replay.extend(**self.of.columns(self.next_number, n)).tolist())

    @rule(bad=st.sampled_from([float("nan"), float("inf")]), n=st.integers(0, 100))
    def refused(self, bad: float, n: int) -> None:
        with pytest.raises(diskreplay.SchemaError):
            self.replay.push(**{**self.of.row(self.next_number), "reward": bad})
        given = self.of.columns(self.next_number, n + 1)
        given["rewards"][n] = bad
        with pytest.raises(diskreplay.SchemaError):
            self.replay.extend(**given)

    def is_right(self, write_ids: Any, batch: Any) -> None:
        numbers = {write_id: number for write_id, number, _ in self.rows}
        assert self.of.numbers_of(batch).tolist() == [numbers[i] for i in write_ids]

    @precondition(lambda self: self.rows)
    @rule(data=st.data())
    def sample(self, data: st.DataObject) -> None:
        sizes = [n for n in self.batches if n <= len(self.rows)] or [1]
        n = data.draw(st.integers(1, len(self.rows)) | st.sampled_from(sizes))
        batch = self.batches[n] = self.replay.sample(n, out=self.batches.get(n))
        self.frame += 1
        self.is_right(batch.indices.tolist(), batch)

    @precondition(lambda self: self.rows)
    @rule(data=st.data())
    def draw(self, data: st.DataObject) -> None:
        indices, found = self.replay.draw(data.draw(st.integers(1, len(self.rows))))
        self.frame += 1
        masses = self.masses([priority for _, _, priority in self.rows])
        expected = masses[indices - self.rows[0][0]] / masses.sum()
        np.testing.assert_allclose(found, expected, rtol=1e-6)

    @precondition(lambda self: self.rows)
    @rule(data=st.data())
    def look_up(self, data: st.DataObject) -> None:
        ids = data.draw(st.lists(st.sampled_from(self.rows), min_size=4, max_size=4))
        ids = np.array([write_id for write_id, _, _ in ids]).reshape(2, 2)
        fields = data.draw(st.lists(st.sampled_from(["reward", "state", "done"]), min_size=1))
        found = self.replay.get(ids, fields=fields)
        whole = self.replay.get(ids.reshape(-1))
        self.is_right(ids.reshape(-1).tolist(), whole)
        for name in fields:
            one = each(found[name], lambda column: column[1, 1])
            assert_same(one, each(getattr(whole, f"{name}s"), lambda column: column[3]))

    @rule()
    def flush(self) -> None:
        self.replay.flush()

    @rule()
    def clear(self) -> None:
        self.replay.clear()
        self.rows = []
        self.largest = None

    @rule(as_the_store_says=st.booleans())
    def reopen(self, as_the_store_says: bool) -> None:
        self.replay.close()
        if as_the_store_says:
            self.replay = self.factory.open(self.directory / "b", **self.settings)
        else:
            self.replay = self.make()

    @rule()
    def save_and_load(self) -> None:
        self.saves += 1
        place = self.directory / f"saved-{self.saves}"
        self.replay.save(place)
        with self.factory.open(place) as copy:
            self.compare(copy)
            before = copy.count
        self.factory.load(self.replay, place)
        after = self.replay.count
        assert after >= before
        assert (after - before) % self.capacity == 0
        for one in self.rows:
            one[0] += after - before
        self.next_id = after

    @precondition(lambda self: hasattr(self, "replay"))
    @invariant()
    def agrees(self) -> None:
        self.compare(self.replay)
        self.replay.check()

    def compare(self, replay: Any) -> None:
        write_ids = [write_id for write_id, _, _ in self.rows]
        numbers = [number for _, number, _ in self.rows]
        assert (len(replay), replay.count) == (len(numbers), self.next_id)
        assert replay.first == (write_ids[0] if write_ids else self.next_id)
        assert [int(e.reward * 8) for e in replay] == numbers
        if replay.schema is not None:
            assert self.of.numbers_of(replay.get(write_ids)).tolist() == numbers
        masses = self.masses([priority for _, _, priority in self.rows])
        assert replay.total_mass == pytest.approx(masses.sum())

    def teardown(self) -> None:
        if hasattr(self, "replay"):
            self.replay.close()
        shutil.rmtree(self.directory)


class PrioritizedReplayAgainstTwin(ReplayAgainstTwin):
    """The same with priorities that are given, updated, and weighed."""

    @initialize(
        capacity=st.integers(1, 40),
        window_bytes=st.sampled_from([0, 1 << 20]),
        alpha=st.sampled_from([0.0, 0.6, 1.0]),
    )
    def start(self, capacity: int, window_bytes: int, alpha: float) -> None:  # type: ignore[override]
        self.alpha = alpha
        super().start(capacity, window_bytes)

    def make(self) -> Any:
        return self.factory.make(
            self.directory / "b", self.capacity, seed=1, alpha=self.alpha, **self.settings
        )

    def masses(self, kept: list[float]) -> Any:
        return self.factory.draws.masses(kept, self.alpha)

    @rule(priority=priorities)
    def push_with_priority(self, priority: float) -> None:
        given = self.replay.push(**self.of.row(self.next_number), priority=priority)
        self.add([given], [priority])

    @rule(given=st.lists(priorities, max_size=100))
    def extend_with_priorities(self, given: list[float]) -> None:
        more = self.of.columns(self.next_number, len(given))
        self.add(self.replay.extend(**more, priorities=given).tolist(), given)

    @rule(bad=st.sampled_from([-1.0, float("nan"), float("inf")]))
    def refused_priority(self, bad: float) -> None:
        with pytest.raises(diskreplay.PriorityError):
            self.replay.extend(**self.of.columns(self.next_number, 2), priorities=[1.0, bad])

    @rule(data=st.data())
    def update(self, data: st.DataObject) -> None:
        ids = data.draw(st.lists(st.integers(max(0, self.next_id - 60), self.next_id + 3)))
        new = data.draw(st.lists(priorities, min_size=len(ids), max_size=len(ids)))
        live = {one[0]: one for one in self.rows}
        applied = [(i, p) for i, p in zip(ids, new, strict=True) if i in live]
        assert self.replay.update_priorities(ids, new) == len(applied)
        self.factory.settle(self.replay)
        for write_id, priority in applied:
            live[write_id][2] = priority
        self.raise_largest([priority for _, priority in applied])

    def is_right(self, write_ids: Any, batch: Any) -> None:
        super().is_right(write_ids, batch)
        if "weights" in batch._fields:
            kept = {write_id: priority for write_id, _, priority in self.rows}
            masses = self.masses([kept[i] for i in write_ids])
            expected = masses ** -(0.4 + 0.6 * (self.frame - 1) / 100_000)
            np.testing.assert_allclose(batch.weights, expected / expected.max(), rtol=1e-4)

    def compare(self, replay: Any) -> None:
        super().compare(replay)
        kept = [priority for _, _, priority in self.rows]
        assert replay.priorities([write_id for write_id, _, _ in self.rows]).tolist() == kept
        assert replay.max_priority == (1.0 if self.largest is None else self.largest)
        stats = replay.stats()
        ends = (min(kept), max(kept)) if kept else (None, None)
        assert (stats["priority_min"], stats["priority_max"]) == ends
        assert replay.frame == self.frame


def wide(payload: int) -> SimpleNamespace:
    """Rows with a field more, so that a transition has this payload; else as those of `common`."""

    def pixels(numbers: Any) -> Any:
        return ((np.asarray(numbers)[:, None] * 7 + np.arange(payload - 40)) % 251).astype(np.uint8)

    def columns(first: int, n: int) -> dict[str, Any]:
        return common.columns(first, n) | {"pixels": pixels(np.arange(first, first + n))}

    def row(number: int) -> dict[str, Any]:
        return common.row(number) | {"pixels": pixels([number])[0]}

    def numbers_of(batch: Any) -> Any:
        numbers = common.numbers_of(batch)
        np.testing.assert_array_equal(batch.pixels, pixels(numbers))
        return numbers

    return SimpleNamespace(columns=columns, row=row, numbers_of=numbers_of)


def run(machine: Any, factory: Exclusive, rows: Any, long: bool) -> None:
    run_state_machine_as_test(
        lambda: machine(factory, rows),
        settings=settings(
            deadline=None,
            derandomize=not long,
            max_examples=300 if long else 12,
            stateful_step_count=60 if long else 25,
        ),
    )


@pytest.mark.parametrize("factory", UNIFORM_WRITERS, ids=name_of)
def test_a_replay_against_its_twin(factory: Exclusive, long: bool) -> None:
    run(ReplayAgainstTwin, factory, common, long)


def test_a_prioritized_replay_against_its_twin(prioritized_writer: Exclusive, long: bool) -> None:
    run(PrioritizedReplayAgainstTwin, prioritized_writer, common, long)


@pytest.mark.parametrize("factory", [*UNIFORM_WRITERS[1:], PRIORITIZED_WRITERS[0]], ids=name_of)
def test_nested_fields_against_the_twin(factory: Exclusive, long: bool) -> None:
    machine = ReplayAgainstTwin if factory in UNIFORM_WRITERS else PrioritizedReplayAgainstTwin
    run(machine, factory, nested_rows, long)


@pytest.mark.parametrize("payload", [130, 980, 2030, 3056, 9032])
def test_records_that_share_a_value_against_the_twin(payload: int, long: bool) -> None:
    assert grouping_for(payload + 28).per_value > 1
    run(PrioritizedReplayAgainstTwin, PRIORITIZED_WRITERS[0], wide(payload), long)
