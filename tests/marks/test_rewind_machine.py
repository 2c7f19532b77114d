"""A buffer with marks against a twin that copies its whole store at each mark."""

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
from diskreplay import MismatchError, PrioritizedReplayBuffer, ReplayBuffer, verify

NAMES = st.sampled_from("abc")


class MarksAgainstCopies(RuleBasedStateMachine):
    """Two buffers with one seed; for a rewind the twin opens the copy that it made at the mark."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        self.copies: dict[
            str, tuple[Path, int, int]
        ] = {}  # with the number of the next row, and first
        self.order: list[str] = []  # of the marks
        self.made = self.pushed = 0
        self.given = 0  # write ids that were committed, ever

    @initialize(
        kind=st.sampled_from([ReplayBuffer, PrioritizedReplayBuffer]),
        capacity=st.sampled_from([1, 7, 30, 2300]),
        keep_rows=st.sampled_from([0, 1, 20, 1500]),
        log=st.booleans(),
        window_bytes=st.sampled_from([0, 1 << 20]),
    )
    def start(self, kind: Any, capacity: int, keep_rows: int, log: bool, window_bytes: int) -> None:
        self.slots, self.scale = capacity + keep_rows, 1 + capacity // 40
        self.kept = {
            "window_bytes": window_bytes,
            "commit_interval": 1e9,
            "durability": "process",
        }
        where = "log" if log else "record"
        self.buffer, self.twin = (
            kind(capacity, seed=5, path=self.directory / name, keep_rows=keep_rows,
                 observations=where,
                 **self.kept)
            for name in ("buffer", "twin")
        )  # fmt: skip

    def both(self) -> tuple[Any, Any]:
        return self.buffer, self.twin

    def committed(self) -> None:
        self.given = max(self.given, self.buffer.count)

    @rule(n=st.integers(1, 25))
    def extend(self, n: int) -> None:
        n *= self.scale
        for buffer in self.both():
            notes = {"rows": self.pushed + n}
            buffer.extend(**columns(self.pushed, n), env=np.arange(n) % 3, with_notes=notes)
        self.pushed += n
        if n > 1000:  # may have been committed
            self.flush()

    @rule(env=st.integers(0, 2), truncated=st.booleans())
    def push(self, env: int, truncated: bool) -> None:
        for buffer in self.both():
            buffer.push(**row(self.pushed), env=env, truncated=truncated)
        self.pushed += 1

    @rule()
    def flush(self) -> None:
        self.committed()
        for buffer in self.both():
            buffer.flush()

    @rule()
    def clear(self) -> None:
        for buffer in self.both():
            buffer.clear()

    @rule(prefetch=st.integers(0, 3), n=st.integers(1, 3))
    def sample(self, prefetch: int, n: int) -> None:
        if not len(self.twin):
            return
        size = min(8, len(self.twin))
        with self.buffer.batches(size, prefetch) as found, self.twin.batches(size) as expected:
            for _ in range(n):
                one, other = next(found), next(expected)
                for array, wanted in zip(one, other, strict=True):
                    np.testing.assert_array_equal(array, wanted)
                numbers_of(one)
        if isinstance(self.twin, PrioritizedReplayBuffer):
            ids = np.append(one.indices, 0)
            priorities = np.abs(np.sin(ids + self.pushed)) * 3
            for buffer in self.both():
                buffer.update_priorities(ids, priorities)

    @rule(name=NAMES, data=st.none() | st.dictionaries(st.text(), st.integers(-5, 5)))
    def mark(self, name: str, data: Any) -> None:
        self.committed()
        self.buffer.mark(name, data)
        if name in self.order:
            self.order.remove(name)
        self.order.append(name)
        place = self.directory / f"copy-{self.made}"
        self.made += 1
        self.twin.save(place)
        self.copies[name] = place, self.pushed, self.twin.first
        mark = self.buffer.marks()[-1]
        assert (mark.name, mark.data, mark.count) == (name, data, self.twin.count)

    @rule(name=NAMES, data=st.none() | st.integers(-5, 5))
    def set_note(self, name: str, data: Any) -> None:
        for buffer in self.both():
            buffer.set_note(name, data)

    @precondition(lambda self: self.buffer.notes())
    @rule()
    def delete_note(self) -> None:
        name = next(iter(self.buffer.notes()))
        for buffer in self.both():
            buffer.delete_note(name)

    @precondition(lambda self: self.order)
    @rule(which=st.integers(0, 2))
    def delete(self, which: int) -> None:
        self.committed()
        self.twin.flush()
        self.buffer.delete_mark(self.order.pop(which % len(self.order)))

    @precondition(lambda self: self.order)
    @rule(which=st.integers(0, 2))
    def rewind(self, which: int) -> None:
        name = self.order[which % len(self.order)]
        place, pushed, first = self.copies[name]
        mark = next(mark for mark in self.buffer.marks() if mark.name == name)
        if first < min(mark.count, self.given - self.slots):
            with pytest.raises(MismatchError, match=f"write ids {first} to"):
                self.buffer.rewind(name)
            return
        assert self.buffer.rewind(name) == 0
        del self.order[self.order.index(name) + 1 :]
        self.twin.close()
        twin = self.directory / f"twin-{self.made}"
        self.made += 1
        shutil.copytree(place, twin)
        self.twin = diskreplay.open(twin, **self.kept)
        self.pushed = pushed

    @rule()
    def reopen(self) -> None:
        self.committed()
        paths = [buffer.path for buffer in self.both()]
        for buffer in self.both():
            buffer.close()
        self.buffer, self.twin = (diskreplay.open(path, **self.kept) for path in paths)

    @invariant()
    def is_equal(self) -> None:
        if not hasattr(self, "twin"):
            return
        buffer, twin = self.both()
        assert (buffer.first, buffer.count) == (twin.first, twin.count)
        assert [mark.name for mark in buffer.marks()] == self.order
        assert [*buffer.notes().items()] == [*twin.notes().items()]
        ids = np.arange(twin.first, twin.count)
        if len(ids):
            for array, expected in zip(buffer.get(ids), twin.get(ids), strict=True):
                np.testing.assert_array_equal(array, expected)
        one, other = buffer.stats(), twin.stats()
        names = {"frame", "max_priority", "stale_updates", "size"} & other.keys()
        assert {name: one[name] for name in names} == {name: other[name] for name in names}
        if isinstance(twin, PrioritizedReplayBuffer):
            assert buffer.priorities(ids).tolist() == twin.priorities(ids).tolist()
            assert buffer.total_mass == twin.total_mass
        assert links_of(buffer) == links_of(twin)

    def teardown(self) -> None:
        if hasattr(self, "twin"):
            self.buffer.check()
            self.buffer.close()
            assert verify(self.buffer.path) == []
            self.twin.close()
        shutil.rmtree(self.directory)


def links_of(buffer: Any) -> list[int]:
    replica = buffer._guard.replica
    found: list[int] = replica.links.live_values(replica.live).tolist()
    return found


def test_a_rewind_equals_a_copy_that_was_made_at_the_mark(long: bool) -> None:
    n = 1000 if long else 20
    run_state_machine_as_test(
        MarksAgainstCopies,
        settings=settings(max_examples=n, stateful_step_count=20, deadline=None),
    )
