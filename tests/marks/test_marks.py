"""Marks: their names and data, what is kept for them, and what tells of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pytest
from common import columns
from others import Other, shared

import diskreplay
from diskreplay import (
    ArgumentError,
    PrioritizedReplayBuffer,
    ReadOnlyError,
    ReplayBuffer,
    verify,
)


def test_later_marks_are_gone_and_earlier_ones_stay(tmp_path: Path) -> None:
    with PrioritizedReplayBuffer(3000, path=tmp_path / "s") as buffer:
        wanted = {}
        for number, name in enumerate("abcd"):
            buffer.extend(**columns(500 * number, 500))
            buffer.update_priorities(range(buffer.count), np.full(buffer.count, number + 0.5))
            buffer.mark(name, number)
            wanted[name] = buffer.priorities(range(buffer.count)).tolist()
        assert [mark.data for mark in buffer.marks()] == [0, 1, 2, 3]
        buffer.rewind("c")
        assert [mark.name for mark in buffer.marks()] == ["a", "b", "c"]
        with pytest.raises(ArgumentError, match=r"no mark 'd' \(found 'a', 'b', 'c'\)"):
            buffer.rewind("d")
        buffer.update_priorities([0], [99.0])
        buffer.delete_mark("b")
        for name in "ca":
            buffer.rewind(name)
            assert buffer.priorities(range(buffer.count)).tolist() == wanted[name]
        with pytest.raises(ArgumentError, match=r"no mark 'c' \(found 'a'\)"):
            buffer.delete_mark("c")
        for call in (buffer.delete_mark, buffer.rewind, buffer.delete_note):
            with pytest.raises(ArgumentError, match=r"has no (mark|note)"):
                call(np.arange(2))  # type: ignore[arg-type]
        store = buffer._guard.replica.store
        with store.snapshot() as snapshot:
            assert snapshot.entries("kept_blocks") == 0
    assert verify(tmp_path / "s") == []


def test_a_deleted_mark_leaves_nothing(tmp_path: Path) -> None:
    with PrioritizedReplayBuffer(3000, path=tmp_path / "s") as buffer:
        buffer.extend(**columns(0, 2500))
        buffer.mark("a")
        buffer.update_priorities([5, 2300], [2.0, 3.0])
        buffer.mark("a")  # in place of the first
        buffer.update_priorities([5], [4.0])
        buffer.flush()
        store = buffer._guard.replica.store
        with store.snapshot() as snapshot:
            assert snapshot.names("kept_blocks") == ["priorities 0000000000000001 0000000000000000"]
        [mark] = buffer.marks()
        assert buffer.stats()["marks"] == [mark.to_plain()]
        assert buffer.stats()["marks_bytes"] > 0
        buffer.delete_mark("a")
        with store.snapshot() as snapshot:
            assert snapshot.names("kept_blocks") == snapshot.names("marks") == []
        assert (buffer.stats()["marks"], buffer.stats()["marks_bytes"]) == ([], 0)
        buffer.update_priorities([5], [4.5])
        buffer.flush()
        with store.snapshot() as snapshot:
            assert snapshot.names("kept_blocks") == []


def test_shared_writers_mark_and_only_an_exclusive_one_rewinds(
    tmp_path: Path, other: Other
) -> None:
    other.open(100, access="shared")
    with shared(tmp_path / "b", 100) as buffer:
        buffer.extend(**columns(0, 30), priorities=np.arange(30))
        buffer.mark("mine", {"a": [1, 2.5, None, b"x"]})
        other.update([3], [77.0])
        other.extend(30, 5)
        other.mark("theirs")
        assert [(mark.name, mark.count) for mark in buffer.marks()] == [
            ("mine", 30),
            ("theirs", 35),
        ]
        with pytest.raises(ReadOnlyError, match=r"access='shared'.*exclusive"):
            buffer.rewind("mine")
        with pytest.raises(RuntimeError, match="ReadOnlyError"):
            other.rewind("mine")
        buffer.update_priorities([3, 31], [5.0, 6.0])
        buffer.flush()
    other.close()
    with diskreplay.open(tmp_path / "b", access="read") as reader:
        assert reader.marks()[0].data == {"a": [1, 2.5, None, b"x"]}
        for call in (lambda: reader.rewind("mine"), lambda: reader.mark("x")):
            with pytest.raises(ReadOnlyError):
                call()
    with diskreplay.open(tmp_path / "b") as buffer:
        buffer.rewind("theirs")
        assert buffer.priorities([3, 31]).tolist() == [77.0, 77.0]
        buffer.rewind("mine")
        assert buffer.priorities(range(30)).tolist() == list(range(30))
        assert buffer.max_priority == 29
    assert verify(tmp_path / "b") == []


def test_the_runs_tell_of_the_transitions_that_are_left(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with ReplayBuffer(500, path=path) as buffer:
        buffer.extend(**columns(0, 40))
        buffer.mark("a")
        buffer.extend(**columns(40, 40))
    with diskreplay.open(path) as buffer:
        buffer.extend(**columns(80, 40))
    with diskreplay.open(path) as buffer:
        buffer.rewind("a")
        runs = buffer.stats()["runs"]
        assert [(run["first"], run["end"], run["rows"]) for run in runs] == [
            (0, 40, 40), (40, 40, 0), (40, 40, 0),
        ]  # fmt: skip
        buffer.extend(**columns(40, 5))
        buffer.flush()
        runs = buffer.stats()["runs"]
        assert [run["live"] for run in runs] == [(40, 40), (0, 0), (5, 5)]
    assert verify(path) == []


def test_a_store_of_an_older_version_gets_marks_with_the_first(
    tmp_path: Path, other: Other
) -> None:
    other.open(1500)
    other.extend(0, 1200, np.arange(1200).tolist())
    other.close()
    with lmdb.open(str(tmp_path / "b"), max_dbs=9, map_size=1 << 30) as env:
        for name in (b"marks", b"kept_blocks"):
            database = env.open_db(name, create=False)
            with env.begin(write=True) as txn:
                txn.drop(database, delete=True)
    other.open(1500)
    with diskreplay.open(tmp_path / "b", access="read") as reader:
        assert reader.marks() == []
        other.mark("a")
        assert [mark.name for mark in reader.marks()] == ["a"]
        other.update([3, 1100], [7.0, 8.0])
        other.flush()
        assert reader.get([3]).rewards.tolist() == [3 / 8]
        assert reader.priorities([3, 1100]).tolist() == [7.0, 8.0]  # type: ignore[union-attr]
        other.rewind("a")
        assert reader.priorities([3, 1100]).tolist() == [3.0, 1100.0]  # type: ignore[union-attr]
    other.close()
    assert verify(tmp_path / "b") == []


@pytest.mark.parametrize("name", ["", "a\nb", "x" * 201, 3, None, b"a", "é" * 101])
def test_bad_names_are_refused(name: Any) -> None:
    buffer = ReplayBuffer(10)
    with pytest.raises(ArgumentError, match="name of a mark"):
        buffer.mark(name)
    assert buffer.marks() == []


@pytest.mark.parametrize(
    "data",
    [
        (1, 2),
        {1: 2},
        np.float32(1),
        {"a": {3}},
        2**64,
        -(2**63) - 1,
        "\ud800",
        "x" * 9000,
        object(),
    ],
)
def test_data_that_would_come_back_changed_is_refused(data: Any) -> None:
    buffer = ReplayBuffer(10)
    nested: Any = []
    for _ in range(40):
        nested = [nested]
    for value in (data, [data], {"a": data}, nested):
        with pytest.raises(ArgumentError, match="data of a mark"):
            buffer.mark("a", value)
    assert buffer.marks() == []


def test_the_state_of_a_generator_is_refused_with_the_way_out() -> None:
    buffer, state = ReplayBuffer(10), np.random.default_rng(0).bit_generator.state
    wanted = r"less than 2\*\*64 \(found [0-9]+\): give larger ones as text, .*json.dumps"
    with pytest.raises(ArgumentError, match=wanted):
        buffer.mark("a", state)
    with pytest.raises(ArgumentError, match="32 levels deep and 8192 bytes in all"):
        buffer.mark("a", {1, 2})
    buffer.mark("a", json.dumps(state))
    assert json.loads(buffer.marks()[0].data) == state


@pytest.mark.parametrize(
    "data", [None, True, -(2**63), 2**64 - 1, 1.5, "é", b"\0", [], {"": [{"a": None}]}, "x" * 8000]
)
def test_plain_data_comes_back(data: Any) -> None:
    buffer = ReplayBuffer(10)
    buffer.mark("été " + "x" * 190, data)
    [mark] = buffer.marks()
    assert (mark.data, type(mark.data), mark.name) == (data, type(data), "été " + "x" * 190)


def test_other_words_and_names_are_refused() -> None:
    buffer = ReplayBuffer(10)
    with pytest.raises(ArgumentError, match="missing"):
        buffer.rewind("a", missing="maybe")
    for call in (buffer.rewind, buffer.delete_mark):
        with pytest.raises(ArgumentError, match=r"no mark 'a' \(found none\)"):
            call("a")
    buffer.push([0.0], 0, 0.0, [0.0], False)
    with pytest.raises(ArgumentError):
        buffer.rewind("a")
    assert buffer.count == 1  # what waits is still there
