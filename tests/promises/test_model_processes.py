"""Buffers in several processes against a model: opened, used and killed, at random."""

from __future__ import annotations

import shutil
import tempfile
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
from others import Other

PROCESSES = 3
priorities = st.floats(0, 1000, width=32)
ACCESS = st.sampled_from(["shared", "shared", "exclusive", "read"])


@dataclass
class State:
    """What is committed, or what an exclusive writer will commit: rows are [number, priority]."""

    capacity: int
    rows: dict[int, list[Any]] = field(default_factory=dict)
    count: int = 0
    largest: float | None = None
    frame: int = 0

    def add(self, number: int, priority: float | None) -> None:
        self.raise_largest(priority)
        self.rows[self.count] = [number, self.largest]
        if priority is not None:
            self.rows[self.count][1] = priority
        self.count += 1
        self.rows.pop(self.count - self.capacity - 1, None)

    def raise_largest(self, priority: float | None) -> None:
        if priority is not None:
            self.largest = max(priority, self.largest or 0.0)
        elif self.largest is None:
            self.largest = 1.0

    def update(self, write_id: int, priority: float) -> None:
        if write_id in self.rows:
            self.rows[write_id][1] = priority
            self.raise_largest(priority)


@dataclass
class Opening:
    """What one process has: `own` where it is exclusive, else what it will say at its commit."""

    access: str
    own: State
    pushed: list[tuple[int, float | None]] = field(default_factory=list)
    updates: list[tuple[int, float]] = field(default_factory=list)
    draws: int = 0
    waiting: int = 0  # rows of an exclusive writer


class ProcessesAgainstModel(RuleBasedStateMachine):
    """All calls of one process are compared with what the model says that it must see."""

    def __init__(self) -> None:
        super().__init__()
        self.path = Path(tempfile.mkdtemp()) / "b"
        self.others: list[Other] = [Other(self.path) for _ in range(PROCESSES)]
        self.openings: list[Opening | None] = [None] * PROCESSES
        self.number = 0

    @initialize(
        capacity=st.integers(1, 30),
        window_bytes=st.sampled_from([0, 1 << 20]),
        observations=st.sampled_from(["record", "log"]),
        words=st.lists(ACCESS, min_size=PROCESSES, max_size=PROCESSES),
    )
    def start(self, capacity: int, window_bytes: int, observations: str, words: list[str]) -> None:
        self.settings = {
            "alpha": 1.0, "window_bytes": window_bytes, "observations": observations,
        }  # fmt: skip
        self.stored = State(capacity)
        self.others[0].open(capacity, access="exclusive", **self.settings)
        self.others[0].close()
        for i, access in enumerate(words):
            self.open_one(i, access)

    def view(self, i: int) -> State:
        """What process i sees now."""
        opening = self.openings[i]
        assert opening is not None
        if opening.access == "exclusive":
            return opening.own
        seen = deepcopy(self.stored)
        for write_id, priority in opening.updates:
            seen.update(write_id, priority)
            seen.raise_largest(priority)
        seen.frame += opening.draws
        return seen

    def commit(self, i: int) -> None:
        opening = self.openings[i]
        assert opening is not None
        if opening.access == "exclusive":
            self.stored = deepcopy(opening.own)
            opening.waiting = 0
        elif opening.access == "shared":
            oldest = self.stored.count + len(opening.pushed) - self.stored.capacity
            last = {w: p for w, p in opening.updates if w >= oldest}  # none evicted by its own rows
            for write_id, priority in last.items():
                self.stored.update(write_id, priority)
            # A new row gets the largest as of the commit, also of what was evicted meanwhile.
            for _, given in opening.pushed + opening.updates:
                self.stored.raise_largest(given)
            for number, given in opening.pushed:
                self.stored.add(number, given)
            self.stored.frame += opening.draws
            opening.pushed, opening.updates, opening.draws = [], [], 0

    def ready(self, *words: str) -> list[int]:
        return [i for i, o in enumerate(self.openings) if o is not None and o.access in words]

    def opened(self, data: st.DataObject, *words: str) -> int:
        return data.draw(st.sampled_from(self.ready(*words)))

    @precondition(lambda self: None in self.openings)
    @rule(data=st.data(), access=ACCESS)
    def open(self, data: st.DataObject, access: str) -> None:
        closed = [i for i, opening in enumerate(self.openings) if opening is None]
        self.open_one(data.draw(st.sampled_from(closed)), access)

    def open_one(self, i: int, access: str) -> None:
        held = {o.access for o in self.openings if o is not None} - {"read"}
        allowed = not held or access == "read" or held == {access} == {"shared"}
        arguments = (self.stored.capacity,)
        if allowed:
            size = self.others[i].open(*arguments, access=access, **self.settings)
            assert size == len(self.stored.rows)
            self.openings[i] = Opening(access, deepcopy(self.stored))
        else:
            with pytest.raises(RuntimeError, match="LockedError"):
                self.others[i].open(*arguments, access=access, **self.settings)

    @precondition(lambda self: self.ready("exclusive", "shared"))
    @rule(data=st.data(), n=st.integers(1, 40))
    def push(self, data: st.DataObject, n: int) -> None:
        i = self.opened(data, "exclusive", "shared")
        given = data.draw(st.none() | st.lists(priorities, min_size=n, max_size=n))
        opening = self.openings[i]
        assert opening is not None
        if opening.access == "shared" and len(opening.pushed) + n > self.stored.capacity:
            self.commit(i)  # to make room, and at once where there is none for so many
            opening.pushed += [(self.number + k, given and given[k]) for k in range(n)]
            if n > self.stored.capacity:
                self.commit(i)
        else:
            if opening.access == "exclusive":
                if opening.waiting and opening.waiting + n > self.stored.capacity:
                    self.commit(i)  # to make room
                if n > self.stored.capacity:
                    self.commit(i)
                opening.waiting += n
            for k in range(n):
                one = (self.number + k, given[k] if given else None)
                if opening.access == "exclusive":
                    opening.own.add(*one)
                else:
                    opening.pushed.append(one)
            if opening.access == "exclusive" and n > self.stored.capacity:
                self.commit(i)
        arguments = [self.number, n, *([given] if given else [])]
        self.number += n
        assert self.others[i].extend(*arguments) == n

    @precondition(lambda self: self.ready("exclusive", "shared"))
    @rule(data=st.data())
    def update(self, data: st.DataObject) -> None:
        i = self.opened(data, "exclusive", "shared")
        seen = self.view(i)
        ids = data.draw(st.lists(st.integers(max(0, seen.count - 35), seen.count + 2), min_size=1))
        new = data.draw(st.lists(priorities, min_size=len(ids), max_size=len(ids)))
        live = [(w, p) for w, p in zip(ids, new, strict=True) if w in seen.rows]
        assert self.others[i].update(ids, new) == len(live)
        opening = self.openings[i]
        assert opening is not None
        if opening.access == "exclusive":
            for write_id, priority in live:
                opening.own.update(write_id, priority)
        else:
            opening.updates += live

    @precondition(lambda self: any(self.openings))
    @rule(data=st.data())
    def sample(self, data: st.DataObject) -> None:
        i = self.opened(data, "exclusive", "shared", "read")
        if not self.view(i).rows:
            return
        seen, opening = self.view(i), self.openings[i]
        assert opening is not None
        n = data.draw(st.integers(1, len(seen.rows)))
        drawn = self.others[i].sample(n)
        assert set(drawn) <= {number for number, _ in seen.rows.values()}
        if opening.access == "exclusive":
            opening.own.frame += 1
        elif opening.access == "shared":
            opening.draws += 1

    @precondition(lambda self: any(self.openings))
    @rule(data=st.data())
    def flush(self, data: st.DataObject) -> None:
        i = self.opened(data, "exclusive", "shared", "read")
        self.others[i].flush()
        self.commit(i)

    @precondition(lambda self: any(self.openings))
    @rule(data=st.data(), how=st.sampled_from(["kill", "close"]))
    def end(self, data: st.DataObject, how: str) -> None:
        i = self.opened(data, "exclusive", "shared", "read")
        if how == "kill":
            self.others[i].kill()
            self.others[i] = Other(self.path)
        else:
            self.others[i].close()
            self.commit(i)
        self.openings[i] = None

    @invariant()
    def all_see_what_they_must(self) -> None:
        for i in self.ready("exclusive", "shared", "read"):
            seen, found = self.view(i), self.others[i].state()
            assert found["count"] == seen.count
            assert found["numbers"] == [number for number, _ in seen.rows.values()]
            assert found["priorities"] == [priority for _, priority in seen.rows.values()]
            assert found["frame"] == seen.frame
            assert found["max_priority"] == (1.0 if seen.largest is None else seen.largest)

    def teardown(self) -> None:
        for other in self.others:
            other.kill()
        shutil.rmtree(self.path.parent)


def test_processes_against_the_model(long: bool) -> None:
    run_state_machine_as_test(
        ProcessesAgainstModel,
        settings=settings(
            deadline=None,
            derandomize=not long,
            max_examples=300 if long else 30,
            stateful_step_count=50 if long else 25,
        ),
    )
