"""Kept rows: slots beyond the capacity change where rows are, and nothing that a caller sees."""

from __future__ import annotations

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
    rule,
    run_state_machine_as_test,
)

import diskreplay
from diskreplay import (
    ArgumentError,
    DamageError,
    MismatchError,
    NotLiveError,
    PrioritizedReplayBuffer,
    ReplayBuffer,
    verify,
)
from diskreplay.buffer.expected_fields import ExpectedFields
from diskreplay.buffer.rows import Rows
from diskreplay.records import features, layout_of
from diskreplay.store import Identity, Store


class KeptRowsAgainstTwin(RuleBasedStateMachine):
    """A prioritized buffer with kept rows, and one without: the same calls, any order."""

    access = "exclusive"

    @initialize(capacity=st.integers(1, 30), keep_rows=st.integers(1, 40), log=st.booleans())
    def start(self, capacity: int, keep_rows: int, log: bool) -> None:
        self.pushed = 0
        where = "log" if log else "record"
        self.kept, self.twin = (
            PrioritizedReplayBuffer(
                capacity, seed=1, keep_rows=n, observations=where, commit_interval=1e9,
                window_bytes=0,
            )
            for n in (keep_rows, 0)
        )  # fmt: skip

    @rule(n=st.integers(1, 75), priority=st.floats(0, 9))
    def extend(self, n: int, priority: float) -> None:
        for buffer in (self.kept, self.twin):
            buffer.extend(**columns(self.pushed, n), priorities=np.full(n, priority))
        self.pushed += n

    @rule()
    def push(self) -> None:
        for buffer in (self.kept, self.twin):
            buffer.push(**row(self.pushed))
        self.pushed += 1

    @rule(back=st.integers(0, 80), priority=st.floats(0, 9))
    def update(self, back: int, priority: float) -> None:
        ids = [max(0, self.pushed - back)]
        found = {b.update_priorities(ids, [priority]) for b in (self.kept, self.twin)}
        assert len(found) == 1

    @rule()
    def flush(self) -> None:
        self.kept.flush()
        self.twin.flush()

    @rule()
    def clear(self) -> None:
        self.kept.clear()
        self.twin.clear()

    @rule()
    def sample(self) -> None:
        if len(self.twin):
            batch = self.kept.sample(len(self.twin))
            assert numbers_of(batch).tolist() == batch.indices.tolist()
            assert set(batch.indices) <= set(range(self.kept.first, self.kept.count))
            np.testing.assert_allclose(self.kept.total_mass, self.twin.total_mass)

    @invariant()
    def is_equal(self) -> None:
        if not hasattr(self, "twin"):
            return
        kept, twin = self.kept, self.twin
        assert (kept.first, kept.count, len(kept)) == (twin.first, twin.count, len(twin))
        if len(kept):
            ids = np.arange(kept.first, kept.count)
            assert numbers_of(kept.get(ids)).tolist() == ids.tolist()
            assert kept.priorities(ids).tolist() == twin.priorities(ids).tolist()
        if kept.first:
            with pytest.raises(NotLiveError):
                kept.get([kept.first - 1])

    def teardown(self) -> None:
        if hasattr(self, "twin"):
            self.kept.check()
            self.kept.flush()
            self.kept.save(self.kept.path / ".." / f"saved-{self.kept.path.name}")
            saved = self.kept.path.parent / f"saved-{self.kept.path.name}"
            self.kept.close()
            self.twin.close()
            assert verify(saved) == []
            with diskreplay.open(saved) as buffer:
                ids = np.arange(buffer.first, buffer.count)
                assert not len(ids) or numbers_of(buffer.get(ids)).tolist() == ids.tolist()
                buffer.check()


def test_kept_rows_are_seen_by_no_caller(
    long: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    n = 1000 if long else 20
    run_state_machine_as_test(
        KeptRowsAgainstTwin,
        settings=settings(max_examples=n, stateful_step_count=25, deadline=None),
    )


def test_evicted_rows_stay_on_the_disk(tmp_path: Path) -> None:
    for keep_rows in (0, 7):
        path = tmp_path / f"{keep_rows}"
        with ReplayBuffer(10, path=path, keep_rows=keep_rows) as buffer:
            for first in range(0, 40, 4):
                buffer.extend(**columns(first, 4))
                buffer.flush()
        assert verify(path) == []
        store = Store(path)
        rows = Rows(store, 10, 0, ExpectedFields({}, all_given=False))
        with store.snapshot() as snapshot:
            rows.adopt_stored(snapshot)
            found = rows.fetch(np.arange(30 - keep_rows, 40), 40, snapshot)
            assert (found[2] * 8).tolist() == list(range(30 - keep_rows, 40))
            with pytest.raises(DamageError):
                rows.fetch(np.array([29 - keep_rows]), 40, snapshot)
        store.close()


def test_uniform_draws_do_not_depend_on_kept_rows() -> None:
    plain, kept = (ReplayBuffer(20, seed=4, keep_rows=n) for n in (0, 13))
    for first in range(0, 90, 9):
        for buffer in (plain, kept):
            buffer.extend(**columns(first, 9))
        one, other = plain.sample(9), kept.sample(9)
        assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_replicas_and_shared_writers_know_of_kept_rows(tmp_path: Path) -> None:
    with PrioritizedReplayBuffer(10, path=tmp_path / "s", keep_rows=5, access="shared") as buffer:
        for first in range(0, 60, 4):
            buffer.extend(**columns(first, 4), priorities=np.arange(4))
            buffer.flush()
            assert buffer.count == first + 4
            batch = buffer.sample(4)
            assert numbers_of(batch).tolist() == batch.indices.tolist()
            buffer.update_priorities(batch.indices, batch.rewards)
        buffer.check()
    with diskreplay.open(tmp_path / "s", access="read") as reader:
        assert (len(reader), reader.count) == (10, 60)
        reader.check()
        with reader.batches(4, 2, 1) as batches:
            for _ in range(3):
                batch = next(batches)
                assert numbers_of(batch).tolist() == batch.indices.tolist()
    assert verify(tmp_path / "s") == []


def test_a_store_keeps_its_number_and_older_versions_refuse_it(tmp_path: Path) -> None:
    for schema in (None, {"state": ("f4", (3,)), "action": "i8", "reward": "f4",
                          "next_state": ("f4", (3,)), "done": "f4"}):  # fmt: skip
        path = tmp_path / str(schema is None)
        ReplayBuffer(10, path=path, keep_rows=5, schema=schema).close()
        store = Store(path)
        assert (store.identity.keep_rows, store.identity.capacity) == (5, 10)
        with store.snapshot() as snapshot:
            assert layout_of(snapshot.meta("layout"), "it").features == (features.KEPT_ROWS,)
        store.close()
        with pytest.raises(MismatchError, match=r"keep_rows is 5 .* \(expected 0\).*resize"):
            ReplayBuffer(10, path=path)
        with diskreplay.open(path) as buffer:
            buffer.extend(**columns(0, 30))
        store = Store(path)
        with store.snapshot() as snapshot:
            found = layout_of(snapshot.meta("layout"), "it").features
            assert found == (features.KEPT_ROWS, features.LINKS)
        store.close()
        assert verify(path) == []


def test_an_identity_says_it_only_where_there_are_some() -> None:
    plain = Identity("uniform", 10, "u").to_plain()
    assert plain == {"kind": "uniform", "capacity": 10, "uuid": "u"}
    kept = Identity("uniform", 10, "u", 3)
    assert Identity.parse(kept.to_plain()) == kept
    for wrong in (-1, 2**40, "3", True, None, 2.0):
        with pytest.raises(DamageError, match="keep_rows"):
            Identity.parse({**plain, "keep_rows": wrong})


@pytest.mark.parametrize("keep_rows", [-1, 2**40, 1.5, "3", True])
def test_bad_numbers_are_refused(keep_rows: Any) -> None:
    with pytest.raises(ArgumentError, match="keep_rows"):
        ReplayBuffer(10, keep_rows=keep_rows)


@pytest.mark.parametrize("kind", [ReplayBuffer, PrioritizedReplayBuffer])
def test_resize_changes_the_number_and_copies_keep_it(kind: Any, tmp_path: Path) -> None:
    path = tmp_path / "s"
    with kind(10, path=path, keep_rows=5) as buffer:
        buffer.extend(**columns(0, 33))
        buffer.save(tmp_path / "saved")
    diskreplay.compact(path)
    other = "prioritized" if kind is ReplayBuffer else "uniform"
    diskreplay.convert(path, other)
    diskreplay.repair(path, tmp_path / "repaired")
    for place in (path, tmp_path / "saved", tmp_path / "repaired"):
        assert verify(place) == []
        with diskreplay.open(place) as buffer:
            ids = np.arange(buffer.first, buffer.count)
            assert numbers_of(buffer.get(ids)).tolist() == list(range(23, 33))
            buffer.extend(**columns(33, 4))
            assert buffer._guard.replica.identity.keep_rows == 5
    diskreplay.resize(path, 8)
    with diskreplay.open(path) as buffer:
        assert buffer._guard.replica.identity.keep_rows == 5
    for keep_rows in (0, 3):
        diskreplay.resize(path, 8, keep_rows=keep_rows)
        with diskreplay.open(path) as buffer:
            assert buffer._guard.replica.identity.keep_rows == keep_rows
            ids = np.arange(buffer.first, buffer.count)
            assert numbers_of(buffer.get(ids)).tolist() == ids.tolist()
            assert len(buffer) == 8
        assert verify(path) == []
    diskreplay.merge([path, tmp_path / "repaired"], tmp_path / "merged")
    assert len(diskreplay.open(tmp_path / "merged")) == 18


def test_load_moves_write_ids_by_whole_rings(tmp_path: Path) -> None:
    with PrioritizedReplayBuffer(10, path=tmp_path / "s", keep_rows=5, seed=1) as saved:
        saved.extend(**columns(0, 33))
        with PrioritizedReplayBuffer(10, keep_rows=5) as buffer:
            buffer.extend(**columns(100, 12))
            saved.flush()
            saved.save(tmp_path / "copy")
            buffer.load(tmp_path / "copy")
            assert (buffer.first - 23) % 15 == 0
            found, expected = buffer.sample(8), saved.sample(8)
            assert np.array_equal(found.rewards, expected.rewards)
            buffer.check()


def test_the_estimate_counts_kept_rows() -> None:
    fields: Any = {"state": ("float32", (60,)), "action": "int64", "reward": "float32",
                   "next_state": ("float32", (60,)), "done": "float32"}  # fmt: skip
    for where in ("record", "log"):
        one = diskreplay.estimate(fields, 100_000, keep_rows=50_000, observations=where)
        other = diskreplay.estimate(fields, 150_000, observations=where)
        assert one.records_disk_bytes == other.records_disk_bytes
        assert one.priorities_disk_bytes == other.priorities_disk_bytes
        assert one.side_table_bytes == other.side_table_bytes
        assert one.capacity == 100_000
    with pytest.raises(ArgumentError, match="keep_rows"):
        diskreplay.estimate(fields, 10, keep_rows=-1)
