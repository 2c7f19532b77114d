"""Marks and rewinds that are killed, interrupted, or meet damage or a disk that refuses."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from changed_values import put, values
from common import columns, numbers_of
from interrupted import interrupted_at
from kills import at_each_step, child_of, was_killed
from refused import writes_refused

import diskreplay
from diskreplay import DamageError, PrioritizedReplayBuffer, StorageError, verify
from diskreplay.records.seals import seal, unseal

CAPACITY, KEPT = 1500, 700  # three blocks


def marked(path: Path, log: bool = False) -> None:
    """Make a store with the marks a, b and c, and changes after each."""
    where = "log" if log else "record"
    with PrioritizedReplayBuffer(
        CAPACITY, path=path, seed=1, keep_rows=KEPT, observations=where, durability="process"
    ) as buffer:
        for number, name in enumerate("abc"):
            buffer.extend(**columns(buffer.count, 600))
            buffer.sample(4)
            buffer.update_priorities(
                range(buffer.count - 300, buffer.count), np.full(300, number + 2)
            )
            buffer.mark(name)
        buffer.extend(**columns(buffer.count, 100))
        buffer.update_priorities(range(CAPACITY), np.full(CAPACITY, 9))


def state_of(buffer: Any) -> tuple[Any, ...]:
    """All that a rewind changes, after a look whether it fits together."""
    buffer.check()
    ids = np.arange(buffer.first, buffer.count)
    assert numbers_of(buffer.get(ids)).tolist() == ids.tolist()
    priorities = buffer.priorities(ids)
    marks = tuple(mark.name for mark in buffer.marks())
    draws = buffer._guard.replica.draws
    return buffer.count, buffer.frame, draws, buffer.max_priority, priorities.tobytes(), marks


def stored_state(path: Path) -> tuple[Any, ...]:
    assert verify(path) == []
    with diskreplay.open(path) as buffer:
        return state_of(buffer)


CALLS: dict[str, Callable[[Any], Any]] = {
    "rewind": lambda buffer: buffer.rewind("b"),
    "mark": lambda buffer: buffer.mark("b", {"again": True}),
    "delete": lambda buffer: buffer.delete_mark("b"),
}


def outcomes(name: str, place: Path, log: bool) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """The states before and after a call."""
    marked(place / "original", log)
    shutil.copytree(place / "original", place / "done")
    with diskreplay.open(place / "done") as buffer:
        CALLS[name](buffer)
    before, after = stored_state(place / "original"), stored_state(place / "done")
    assert before != after
    return before, after


@pytest.mark.parametrize("name", CALLS)
def test_a_kill_at_any_step_leaves_the_state_before_or_after(name: str, tmp_path: Path) -> None:
    before, after = outcomes(name, tmp_path, log=name == "rewind")
    path, found = tmp_path / "b", []
    shutil.copytree(tmp_path / "original", path)

    def work() -> None:
        buffer = diskreplay.open(path)
        CALLS[name](buffer)

    for _ in at_each_step(work):
        found.append(stored_state(path))
        assert found[-1] in (before, after)
        shutil.rmtree(path)
        shutil.copytree(tmp_path / "original", path)
    assert len(found) > 5
    assert stored_state(path) == after


@pytest.mark.parametrize("name", CALLS)
def test_a_kill_at_any_line_leaves_the_state_before_or_after(
    name: str, tmp_path: Path, long: bool
) -> None:
    before, after = outcomes(name, tmp_path, log=True)
    path, found = tmp_path / "b", []
    line, is_done = 1, False
    while not is_done:
        shutil.copytree(tmp_path / "original", path)

        def work(line: int = line) -> None:
            buffer = diskreplay.open(path)
            if interrupted_at(line, lambda: CALLS[name](buffer)):
                os.kill(os.getpid(), signal.SIGKILL)

        is_done = not was_killed(child_of(work))
        found.append(stored_state(path))
        assert found[-1] in (before, after)
        shutil.rmtree(path)
        line += 7 if long else 293
    assert before in found
    assert found[-1] == after


@pytest.mark.parametrize("name", CALLS)
def test_an_interrupt_at_any_line_leaves_the_state_before_or_after(
    name: str, tmp_path: Path, long: bool
) -> None:
    marked(tmp_path / "b")
    with diskreplay.open(tmp_path / "b", commit_interval=1e9, durability="process") as buffer:
        assert isinstance(buffer, PrioritizedReplayBuffer)
        buffer.extend(**columns(buffer.count, 7))  # waits for a commit
        line, is_done = 1, False
        while not is_done:
            before = state_of(buffer)
            marks = [(mark.name, mark.time) for mark in buffer.marks()]
            is_done = not interrupted_at(line, lambda: CALLS[name](buffer))
            after = state_of(buffer)
            if name == "rewind":
                assert after[0] in (before[0], 1200)
                if after != before:
                    assert after[5] == ("a", "b")
                    buffer.extend(**columns(1200, 600))
                    buffer.mark("c")
                    buffer.extend(**columns(1800, 9))
            else:
                assert after[:5] == before[:5]
                if [(mark.name, mark.time) for mark in buffer.marks()] != marks:
                    buffer.rewind(after[5][-1])
                    if name == "delete":
                        assert "b" not in after[5]
                        buffer.mark("b")
            line += 7 if long else 71
        buffer.check()
    assert verify(tmp_path / "b") == []


def test_a_disk_that_refuses_leaves_all_as_it_was(tmp_path: Path) -> None:
    marked(tmp_path / "b")
    with diskreplay.open(tmp_path / "b", commit_interval=1e9) as buffer:
        buffer.extend(**columns(buffer.count, 7))
        before = state_of(buffer)
        for call in CALLS.values():
            with writes_refused(), pytest.raises(StorageError):
                call(buffer)
            assert state_of(buffer) == before
        buffer.rewind("b")
        assert state_of(buffer)[0] == 1200


def kept(path: Path) -> dict[bytes, bytes]:
    return values(path, "kept_blocks")


@pytest.mark.parametrize("inner", [False, True])
def test_a_damaged_kept_block_is_found_and_never_put_back(inner: bool, tmp_path: Path) -> None:
    path = tmp_path / "b"
    marked(path)
    key = b"priorities %016x %016x" % (1, 1)
    name = key.decode()
    raw = bytearray(kept(path)[key])
    raw[2000] ^= 1
    if inner:  # with a whole seal around it
        content = bytearray(unseal(kept(path)[key], name, name))
        content[2000] ^= 1
        raw = bytearray(seal(name, bytes(content)))
    before = stored_state(path)
    put(path, "kept_blocks", {key: bytes(raw)})
    [fault] = verify(path)
    assert f"kept block '{name}'" in fault
    assert "damaged" in fault
    with diskreplay.open(path) as buffer:
        if not inner:
            with pytest.raises(DamageError, match=name):
                buffer.check()
        with pytest.raises(DamageError, match=name):
            buffer.rewind("b")
        assert buffer.count == before[0]
        buffer.rewind("a")  # the blocks of mark a are its own
    assert verify(path) == []


def test_lost_and_odd_values_are_faults(tmp_path: Path) -> None:
    original = tmp_path / "original"
    marked(original, log=True)

    def faults(database: str, changes: dict[bytes, bytes | None]) -> list[str]:
        path = tmp_path / "b"
        shutil.copytree(original, path)
        put(path, database, changes)
        found = verify(path)
        shutil.rmtree(path)
        return found

    key = b"priorities %016x %016x" % (2, 1)
    mark = values(original, "marks")[b"c"]
    assert any("does not agree with the marks" in f for f in faults("marks", {b"c": None}))
    assert any("is of no mark" in f for f in faults("marks", {b"b": None}))
    assert any("the mark 'c' is damaged" in f for f in faults("marks", {b"c": mark[:-1] + b"x"}))
    # Moved to another name: its seal says so.
    assert any("the mark 'd' is damaged" in f for f in faults("marks", {b"d": mark}))
    plain = unseal(mark, "c", "c")
    plain["state"]["count"] = 5000
    assert any("is beyond the state" in f for f in faults("marks", {b"c": seal("c", plain)}))
    assert any("names no block" in f for f in faults("kept_blocks", {b"x": seal("x", None)}))
    odd = seal(key.decode(), seal(1, b"\xff" * 4000))
    assert any("not a priority" in f for f in faults("kept_blocks", {key: odd}))
    # Without the copy the block of now counts, which verify cannot tell from one that is right.
    assert faults("kept_blocks", {key: None}) == []
    # The records that the marks need: the last 1500 of the 2200 are not all that is there.
    assert faults("transitions", {}) == []
    records = values(original, "transitions")
    least = min(records)
    found = faults("transitions", {least: None})
    assert any("missing" in fault for fault in found)


def test_a_rewind_to_lost_blocks_or_records_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "b"
    marked(path)
    lost = {"priorities": ("priorities", "kept_blocks"), "transitions": ("transitions",)}
    for wanted, databases in lost.items():
        found = {database: values(path, database) for database in databases}
        with diskreplay.open(path) as buffer:
            before = buffer.count
            with buffer._guard.replica.store.transaction() as txn:
                for database in databases:
                    for key in found[database]:
                        txn._txn.delete(key, db=txn._databases[database])
            message = {"priorities": "block 0 .* is missing", "transitions": "0 groups of records"}
            with pytest.raises(DamageError, match=message[wanted]):
                buffer.rewind("a")
            assert buffer._guard.replica.count == before
        for database in databases:
            put(path, database, {**found[database]})
    assert stored_state(path)[0] == before
