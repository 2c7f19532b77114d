"""Notes: small values under names, in the commits of the rows that they tell of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pytest
from common import columns
from noted import committed, stored
from others import Other, shared
from refused import writes_refused

import diskreplay
from diskreplay import (
    ArgumentError,
    PrioritizedReplayBuffer,
    ReadOnlyError,
    ReplayBuffer,
    StorageError,
    verify,
)

KINDS: list[Any] = [ReplayBuffer, PrioritizedReplayBuffer]


@pytest.mark.parametrize("kind", KINDS)
def test_notes_wait_for_the_commit_of_the_rows(kind: Any, path: Path) -> None:
    with kind(100, path=path, commit_interval=1e9) as buffer:
        buffer.set_note("b", [1, {"x": None}])
        buffer.set_note("a", b"raw")
        buffer.extend(**columns(0, 5))
        buffer.set_note("b", 2)
        assert list(buffer.notes().items()) == [("a", b"raw"), ("b", 2)]
        assert committed(buffer) == {}
        buffer.flush()
        assert committed(buffer) == {"a": b"raw", "b": 2}
        buffer.delete_note("a")
        assert buffer.notes() == {"b": 2} == buffer.stats()["notes"]
        with pytest.raises(ArgumentError, match=r"no note 'a' \(found 'b'\): notes\(\) lists them"):
            buffer.delete_note("a")
    assert stored(path) == {"b": 2}
    with diskreplay.open(path) as buffer:
        assert (buffer.notes(), buffer.stats()["notes_bytes"]) == ({"b": 2}, 4096)
        buffer.check()
    assert verify(path) == []


def test_a_reader_sees_notes_and_rows_of_one_commit(path: Path, other: Other) -> None:
    other.open(100)
    with diskreplay.open(path, access="read") as reader:
        other.extend(0, 5)
        other.set_note("a", 5)
        assert (reader.notes(), len(reader)) == ({}, 0)
        other.flush()
        assert (reader.notes(), len(reader)) == ({"a": 5}, 5)
        for call in (lambda: reader.set_note("a", 1), lambda: reader.delete_note("a")):
            with pytest.raises(ReadOnlyError):
                call()
    other.close()


def test_a_commit_of_a_note_alone_is_a_commit(path: Path) -> None:
    with ReplayBuffer(10, path=path, commit_interval=0) as buffer:
        buffer.set_note("a", 1)
        assert (committed(buffer), buffer.stats()["commits"]) == ({"a": 1}, 1)
        buffer.delete_note("a")
        assert (committed(buffer), buffer.stats()["commits"]) == ({}, 2)
    with shared(path.with_name("s"), 10) as together:
        together.set_note("a", 1)
        together.flush()
        assert (together.stats()["commits"], together.notes()) == (1, {"a": 1})


def test_a_note_is_as_it_was_when_it_was_set(path: Path) -> None:
    with ReplayBuffer(10, path=path) as buffer:
        data = {"means": [1.0]}
        buffer.set_note("a", data)
        data["means"].append(2.0)
        assert buffer.notes() == {"a": {"means": [1.0]}}
    assert stored(path) == {"a": {"means": [1.0]}}


def test_shared_writers_see_the_commits_of_each_other_and_the_last_wins(
    path: Path, other: Other
) -> None:
    other.open(100, access="shared")
    with shared(path, 100) as buffer:
        buffer.set_note("a", "mine")
        assert buffer.notes() == {}  # as the rows that wait
        buffer.flush()
        other.set_note("a", "theirs")
        other.set_note("b", 1)
        assert buffer.notes() == {"a": "mine"} == other.notes()
        other.flush()
        assert buffer.notes() == {"a": "theirs", "b": 1} == other.notes()
        buffer.delete_note("b")
        buffer.set_note("c", 3)
        other.delete_note("b")
        other.flush()
        buffer.flush()
        assert buffer.notes() == {"a": "theirs", "c": 3}
    other.close()
    assert verify(path) == []


def test_an_interrupted_commit_of_a_shared_writer_puts_its_notes_once(
    path: Path, other: Other, monkeypatch: pytest.MonkeyPatch
) -> None:
    other.open(100, access="shared")
    with shared(path, 100) as buffer:
        buffer.set_note("a", "mine")
        store = buffer._guard.replica.store
        commit = store.commit

        def interrupted(*arguments: Any) -> Any:
            commit(*arguments)
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(store, "commit", interrupted)
            with pytest.raises(KeyboardInterrupt):
                buffer.flush()
        other.set_note("a", "theirs")
        other.flush()
        buffer.set_note("b", 1)
        buffer.flush()
        assert buffer.notes() == {"a": "theirs", "b": 1}
    other.close()


@pytest.mark.parametrize("access", ["exclusive", "shared"])
def test_a_refused_commit_keeps_notes_with_the_rows(access: str, path: Path) -> None:
    with PrioritizedReplayBuffer(100, path=path, access=access, commit_interval=1e9) as buffer:
        buffer.set_note("a", 1)
        buffer.flush()
        buffer.extend(**columns(0, 5))
        buffer.set_note("a", 2)
        with writes_refused(), pytest.raises(StorageError):
            buffer.flush()
        assert committed(buffer) == {"a": 1}
        buffer.flush()
        assert (committed(buffer), len(buffer)) == ({"a": 2}, 5)


def test_a_refused_call_that_commits_takes_its_note_back(path: Path) -> None:
    with ReplayBuffer(100, path=path, commit_interval=0) as buffer:
        buffer.set_note("a", 1)
        with writes_refused(), pytest.raises(StorageError):
            buffer.set_note("a", 2)
        assert buffer.notes() == {"a": 1}


def test_many_notes_do_not_wait_in_memory(path: Path) -> None:
    with ReplayBuffer(100, path=path, commit_interval=1e9) as buffer:
        for number in range(40):
            buffer.set_note(f"note {number}", b"x" * 60_000)
        assert buffer.stats()["commits"] == 2
        assert len(buffer.notes()) == 40
    assert len(stored(path)) == 40


def test_many_notes_that_cannot_be_committed_are_refused(path: Path) -> None:
    with ReplayBuffer(100, path=path, commit_interval=1e9) as buffer:
        number = 0
        with writes_refused():
            while number < 40:
                before = buffer.notes()
                try:
                    buffer.set_note(f"note {number}", b"x" * 60_000)
                except StorageError:
                    break
                number += 1
            assert 10 < number < 20
            assert buffer.notes() == before
            with pytest.raises(StorageError):
                buffer.set_note("last", b"x" * 60_000)
            buffer.set_note("small", 1)
        buffer.set_note("last", b"x" * 60_000)
        assert committed(buffer) == buffer.notes()
    assert len(stored(path)) == number + 2


def test_many_notes_of_rows_do_not_wait_in_memory(path: Path) -> None:
    with ReplayBuffer(100, path=path, commit_interval=1e9) as buffer:
        for number in range(40):
            buffer.extend(**columns(number, 1), with_notes={f"note {number}": b"x" * 60_000})
            assert len(committed(buffer)) in (0, 18, 36)
        assert buffer.stats()["commits"] == 2
    assert len(stored(path)) == 40


def test_a_note_after_a_failed_commit_is_in_the_commit_of_the_rows(path: Path) -> None:
    with ReplayBuffer(100, path=path, commit_interval=1e9) as buffer:
        buffer.extend(**columns(0, 5))
        buffer._guard.commit_failed = True  # as a commit by time leaves it
        with writes_refused(), pytest.raises(StorageError):
            buffer.set_note("rows", 5)
        assert buffer.notes() == {}
        buffer.set_note("rows", 5)
        assert committed(buffer) == {"rows": 5}


# Marks, copies and rewritings


@pytest.mark.parametrize("kind", KINDS)
def test_a_rewind_brings_the_notes_of_the_mark_back(kind: Any, path: Path) -> None:
    with kind(100, path=path) as buffer:
        buffer.mark("none")
        buffer.extend(**columns(0, 5))
        buffer.set_note("a", 1)
        buffer.set_note("gone", "x")
        buffer.mark("some")
        buffer.delete_note("gone")
        buffer.set_note("a", 2)
        buffer.set_note("b", 3)
        buffer.mark("last")
        buffer.set_note("c", 4)  # not committed
        buffer.rewind("last")
        assert buffer.notes() == {"a": 2, "b": 3}
        buffer.rewind("some")
        assert (buffer.notes(), len(buffer)) == ({"a": 1, "gone": "x"}, 5)
    assert verify(path) == []
    with diskreplay.open(path) as buffer:
        assert buffer.notes() == {"a": 1, "gone": "x"}
        buffer.rewind("none")
        assert (buffer.notes(), len(buffer)) == ({}, 0)
    assert verify(path) == []


@pytest.mark.parametrize("kind", KINDS)
def test_copies_and_rewritings_keep_notes(kind: Any, path: Path, tmp_path: Path) -> None:
    notes = {"a": {"means": [0.5, None]}, "été": b"\0" * 5000}
    with kind(100, path=path) as buffer:
        buffer.extend(**columns(0, 30))
        for name, data in notes.items():
            buffer.set_note(name, data)
        buffer.save(tmp_path / "saved")
        with kind(100, path=tmp_path / "loaded") as other:
            other.set_note("own", 1)
            other.load(tmp_path / "saved")
            assert other.notes() == notes
    diskreplay.compact(path)
    assert stored(path) == notes
    diskreplay.resize(path, 20)
    assert stored(path) == notes
    for new in ("prioritized", "uniform") if kind is ReplayBuffer else ("uniform", "prioritized"):
        diskreplay.convert(path, new)
        assert stored(path) == notes
    diskreplay.transform(path, tmp_path / "changed", lambda rows: {"reward": rows["reward"] * 2})
    diskreplay.repair(path, tmp_path / "repaired")
    for name in ("b", "saved", "loaded", "changed", "repaired"):
        assert stored(tmp_path / name) == notes, name
        assert verify(tmp_path / name) == []
    diskreplay.merge([path, tmp_path / "saved"], tmp_path / "merged")
    assert stored(tmp_path / "merged") == {}  # those of several stores might contradict each other


def test_a_refused_load_changes_no_note(path: Path, tmp_path: Path) -> None:
    with ReplayBuffer(100, path=tmp_path / "saved") as saved:
        saved.extend(**columns(0, 30))
        saved.set_note("theirs", 2)
    with ReplayBuffer(100, path=path) as buffer:
        buffer.set_note("own", 1)
        buffer.flush()
        with writes_refused(), pytest.raises(StorageError):
            buffer.load(tmp_path / "saved")
        assert buffer.notes() == {"own": 1} == committed(buffer)


# What is refused, and older stores


@pytest.mark.parametrize("name", ["", "a\nb", "x" * 201, 3, None, b"a"])
def test_bad_names_are_refused(name: Any) -> None:
    buffer = ReplayBuffer(10)
    with pytest.raises(ArgumentError, match="name of a note must be printable text"):
        buffer.set_note(name, 1)
    assert buffer.notes() == {}


@pytest.mark.parametrize("data", [(1, 2), {1: 2}, np.float32(1), 2**64, "\ud800", b"x" * 66_000])
def test_data_that_would_come_back_changed_is_refused(data: Any) -> None:
    buffer = ReplayBuffer(10)
    for value in (data, [data], {"a": data}):
        with pytest.raises(ArgumentError, match="data of a note"):
            buffer.set_note("a", value)
    assert buffer.notes() == {}
    buffer.set_note("a" * 200, b"x" * 65_000)


def test_a_store_of_an_older_version_gets_notes_with_the_first(path: Path, other: Other) -> None:
    other.open(100)
    other.extend(0, 20)
    other.mark("old")
    other.close()
    with lmdb.open(str(path), max_dbs=9, map_size=1 << 30) as env:
        database = env.open_db(b"notes", create=False)
        with env.begin(write=True) as txn:
            txn.drop(database, delete=True)
    other.open(100)
    with diskreplay.open(path, access="read") as reader:
        assert (reader.notes(), other.notes(), reader.stats()["notes"]) == ({}, {}, {})
        other.rewind("old")
        with pytest.raises(RuntimeError, match="no note 'a'"):
            other.delete_note("a")
        other.set_note("a", 1)
        other.delete_note("a")
        other.flush()
        other.set_note("a", 2)
        other.flush()
        assert reader.notes() == {"a": 2}
        other.rewind("old")
        assert reader.notes() == {}
    other.close()
    assert verify(path) == []
