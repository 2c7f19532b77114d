"""The whole buffer against a model in memory: every call, in any order, as a state machine."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from common import columns, numbers_of, row
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

import diskreplay
from diskreplay import PrioritizedReplayBuffer

priorities = st.floats(0, 1000, width=32)


class BufferAgainstModel(RuleBasedStateMachine):
    """The model: a list of (write id, number, priority), oldest first, cut to the capacity."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        self.saves = 0

    @initialize(
        capacity=st.integers(1, 40),
        window_bytes=st.sampled_from([0, 1 << 20]),
        alpha=st.sampled_from([0.0, 0.6, 1.0]),
    )
    def start(self, capacity: int, window_bytes: int, alpha: float) -> None:
        self.arguments: dict[str, Any] = {
            "alpha": alpha,
            "seed": 1,
            "path": self.directory / "b",
            "commit_interval": float("inf"),
            "window_bytes": window_bytes,
        }
        self.capacity = capacity
        self.buffer = PrioritizedReplayBuffer(capacity, **self.arguments)
        self.rows: list[tuple[int, int, float]] = []
        self.next_id = self.next_number = self.frame = 0
        self.largest: float | None = None

    def add(self, ids: list[int], given: list[float] | None) -> None:
        assert ids == list(range(self.next_id, self.next_id + len(ids)))
        for place, write_id in enumerate(ids):
            if given is None:
                priority = 1.0 if self.largest is None else self.largest
            else:
                priority = given[place]
            self.rows.append((write_id, self.next_number, priority))
            self.next_id += 1
            self.next_number += 1
        new = [1.0 if self.largest is None else self.largest] if given is None else given
        if ids:
            self.largest = max(new if self.largest is None else [self.largest, *new])
        self.rows = self.rows[-self.capacity :]

    @rule(priority=st.none() | priorities)
    def push(self, priority: float | None) -> None:
        write_id = self.buffer.push(**row(self.next_number), priority=priority)
        self.add([write_id], None if priority is None else [priority])

    @rule(n=st.integers(0, 100), data=st.data())
    def extend(self, n: int, data: st.DataObject) -> None:
        given = data.draw(st.none() | st.lists(priorities, min_size=n, max_size=n))
        ids = self.buffer.extend(**columns(self.next_number, n), priorities=given)
        self.add(ids.tolist(), given)

    @rule(data=st.data())
    def refused(self, data: st.DataObject) -> None:
        bad = data.draw(st.sampled_from([-1.0, float("nan"), float("inf")]))
        with pytest.raises(diskreplay.PriorityError):
            self.buffer.extend(**columns(self.next_number, 2), priorities=[1.0, bad])
        with pytest.raises(diskreplay.SchemaError):
            self.buffer.push(**{**row(self.next_number), "reward": bad * float("nan")})

    @rule(data=st.data())
    def update(self, data: st.DataObject) -> None:
        ids = data.draw(st.lists(st.integers(max(0, self.next_id - 60), self.next_id + 3)))
        new = data.draw(st.lists(priorities, min_size=len(ids), max_size=len(ids)))
        live = {write_id for write_id, _, _ in self.rows}
        applied = {i: p for i, p in zip(ids, new, strict=True) if i in live}
        assert self.buffer.update_priorities(ids, new) == sum(i in live for i in ids)
        self.rows = [(i, number, applied.get(i, p)) for i, number, p in self.rows]
        taken = [p for i, p in zip(ids, new, strict=True) if i in live]
        if taken:
            self.largest = max([*taken, *([] if self.largest is None else [self.largest])])

    @precondition(lambda self: self.rows)
    @rule(data=st.data())
    def sample(self, data: st.DataObject) -> None:
        n = data.draw(st.integers(1, len(self.rows)))
        batch = self.buffer.sample(n)
        self.frame += 1
        by_id = {write_id: (number, priority) for write_id, number, priority in self.rows}
        assert numbers_of(batch).tolist() == [by_id[i][0] for i in batch.indices.tolist()]
        mass = np.array([by_id[i][1] + 1e-6 for i in batch.indices.tolist()])
        relative = mass ** -(self.arguments["alpha"] * self.beta_at(self.frame - 1))
        np.testing.assert_allclose(batch.weights, relative / relative.max(), rtol=1e-4)

    @precondition(lambda self: self.rows)
    @rule(data=st.data())
    def draw(self, data: st.DataObject) -> None:
        indices, found = self.buffer.draw(data.draw(st.integers(1, len(self.rows))))
        self.frame += 1
        masses = {i: (p + 1e-6) ** self.arguments["alpha"] for i, _, p in self.rows}
        expected = np.array([masses[i] for i in indices.tolist()]) / sum(masses.values())
        np.testing.assert_allclose(found, expected, rtol=1e-6)
        assert self.buffer.total_mass == pytest.approx(sum(masses.values()))

    @precondition(lambda self: self.rows)
    @rule(data=st.data())
    def look_up(self, data: st.DataObject) -> None:
        rows = data.draw(st.lists(st.sampled_from(self.rows), min_size=4, max_size=4))
        ids = np.array([write_id for write_id, _, _ in rows]).reshape(2, 2)
        fields = data.draw(st.lists(st.sampled_from(["reward", "state", "done"]), min_size=1))
        found = self.buffer.get(ids, fields=fields)
        whole = self.buffer.get(ids.reshape(-1))
        assert numbers_of(whole).tolist() == [number for _, number, _ in rows]
        for name in fields:
            np.testing.assert_array_equal(found[name][1, 1], getattr(whole, f"{name}s")[3])
        assert self.buffer.priorities(ids).reshape(-1).tolist() == [p for _, _, p in rows]

    def beta_at(self, frame: int) -> float:
        return 0.4 + 0.6 * min(1.0, frame / 100_000)

    @rule()
    def flush(self) -> None:
        self.buffer.flush()

    @rule()
    def clear(self) -> None:
        self.buffer.clear()
        self.rows = []
        self.largest = None

    @rule(by_open=st.booleans())
    def reopen(self, by_open: bool) -> None:
        self.buffer.close()
        if by_open:
            settings_of_run = {"window_bytes": self.arguments["window_bytes"]}
            found = diskreplay.open(self.directory / "b", **settings_of_run)
            assert isinstance(found, PrioritizedReplayBuffer)
            self.buffer = found
        else:
            self.buffer = PrioritizedReplayBuffer(self.capacity, **self.arguments)

    @rule()
    def save_and_load(self) -> None:
        self.saves += 1
        place = self.directory / f"saved-{self.saves}"
        self.buffer.save(place)
        with diskreplay.open(place) as copy:
            self.compare(copy)
            before = copy.stats()["count"]
        self.buffer.load(place)
        after = self.buffer.stats()["count"]
        assert after >= before
        assert (after - before) % self.capacity == 0
        self.rows = [(i + after - before, number, p) for i, number, p in self.rows]
        self.next_id = after

    @precondition(lambda self: hasattr(self, "buffer"))
    @invariant()
    def agrees(self) -> None:
        self.compare(self.buffer)
        self.buffer.check()

    def compare(self, buffer: Any) -> None:
        assert len(buffer) == len(self.rows)
        assert [int(e.reward * 8) for e in buffer] == [number for _, number, _ in self.rows]
        if buffer.schema is not None:
            batch = buffer.get([write_id for write_id, _, _ in self.rows])
            assert numbers_of(batch).tolist() == [number for _, number, _ in self.rows]
        assert buffer.max_priority == (1.0 if self.largest is None else self.largest)
        assert buffer.frame == self.frame
        assert buffer.first == (self.rows[0][0] if self.rows else buffer.count)
        stats = buffer.stats()
        if self.rows:
            found = [p for _, _, p in self.rows]
            assert (stats["priority_min"], stats["priority_max"]) == (min(found), max(found))
        total = buffer._sampler._tree.total_priority
        if buffer._sampler._settled_to == stats["count"]:
            mass = [(p + 1e-6) ** self.arguments["alpha"] for _, _, p in self.rows]
            assert total == pytest.approx(sum(mass))

    def teardown(self) -> None:
        if hasattr(self, "buffer"):
            self.buffer.close()
        shutil.rmtree(self.directory)


def test_the_buffer_against_the_model(long: bool) -> None:
    run_state_machine_as_test(
        BufferAgainstModel,
        settings=settings(
            deadline=None,
            derandomize=not long,
            max_examples=500 if long else 40,
            stateful_step_count=60 if long else 25,
        ),
    )
