"""Damaged marks: they are told with the way out, and can be deleted and replaced."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from changed_values import put, values
from common import columns

import diskreplay
from diskreplay import ArgumentError, DamageError, PrioritizedReplayBuffer, verify
from diskreplay.records.seals import seal, unseal

ROWS = 2500  # three blocks


def marked(path: Path) -> dict[str, list[float]]:
    """Make a store with the marks a, b and c, and changes of one block or two after each.

    Return the priorities as of each.
    """
    wanted = {}
    with PrioritizedReplayBuffer(ROWS, path=path) as buffer:
        buffer.extend(**columns(0, ROWS))
        for number, name in enumerate("abc"):
            buffer.mark(name, number)
            wanted[name] = buffer.priorities(range(ROWS)).tolist()
            changed = [5, 1005] if name == "b" else [5, 2005]
            buffer.update_priorities(changed, np.full(2, number + 2.0))
            buffer.flush()
    return wanted


def flipped(raw: bytes) -> bytes:
    return raw[:30] + bytes([raw[30] ^ 1]) + raw[31:]


def without_number(raw: bytes) -> bytes:
    return seal("b", {**unseal(raw, "b", "b"), "number": -1})


def without_state(raw: bytes) -> bytes:
    return seal("b", {**unseal(raw, "b", "b"), "state": None})


DAMAGE: list[Callable[[bytes], bytes]] = [flipped, without_number, without_state, lambda _: b""]
CALLS: dict[str, Callable[[Any], Any]] = {
    "delete": lambda buffer: buffer.delete_mark("b"),
    "replace": lambda buffer: buffer.mark("b", "again"),
}


def kept(path: Path) -> set[str]:
    return {key.decode() for key in values(path, "kept_blocks")}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_mark_can_be_removed(
    damage: Callable[[bytes], bytes], call: str, tmp_path: Path
) -> None:
    path = tmp_path / "s"
    wanted = marked(path)
    put(path, "marks", {b"b": damage(values(path, "marks")[b"b"])})
    [fault] = verify(path)
    way_out = "delete_mark('b') of a buffer removes it"
    assert "mark 'b'" in fault
    assert fault.endswith(way_out)
    with diskreplay.open(path) as buffer:
        now = buffer.priorities(range(ROWS)).tolist()  # type: ignore[union-attr]
        for look in (buffer.marks, buffer.stats, lambda: buffer.rewind("a"), buffer.check):
            with pytest.raises(DamageError, match="mark 'b'.*" + re.escape(way_out)):
                look()
        CALLS[call](buffer)
        names = [mark.name for mark in buffer.marks()]
        assert names == ["a", "c"] if call == "delete" else ["a", "c", "b"]
        buffer.check()
        again = {"b": now} if call == "replace" else {}
        for name, priorities in {**again, "c": wanted["c"], "a": wanted["a"]}.items():
            buffer.update_priorities([7, 1007, 2007], [50.0] * 3)  # type: ignore[union-attr]
            buffer.rewind(name)
            assert buffer.priorities(range(ROWS)).tolist() == priorities  # type: ignore[union-attr]
        buffer.delete_mark("a")
    assert kept(path) == set()
    assert verify(path) == []


def test_a_sound_mark_can_be_deleted_beside_damaged_ones(tmp_path: Path) -> None:
    path = tmp_path / "s"
    wanted = marked(path)
    marks = values(path, "marks")
    put(path, "marks", {b"b": flipped(marks[b"b"]), b"\xff": marks[b"c"]})
    before = kept(path)
    with diskreplay.open(path) as buffer:
        buffer.delete_mark("c")
        buffer.update_priorities([9], [70.0])  # type: ignore[union-attr]
        buffer.flush()
        with pytest.raises(ArgumentError, match=r"no mark 'c' \(found 'a', 'b', '\\udcff'\)"):
            buffer.delete_mark("c")
        buffer.delete_mark("b")
    assert kept(path) == before
    [fault] = verify(path)
    assert fault.endswith(r"delete_mark('\udcff') of a buffer removes it")
    with diskreplay.open(path) as buffer:
        buffer.delete_mark("\udcff")
        assert [mark.name for mark in buffer.marks()] == ["a"]
        buffer.rewind("a")
        assert buffer.priorities(range(ROWS)).tolist() == wanted["a"]  # type: ignore[union-attr]
    assert verify(path) == []


def test_a_damaged_kept_block_is_never_put_back_after_its_mark_is_deleted(tmp_path: Path) -> None:
    path = tmp_path / "s"
    wanted = marked(path)
    name = f"priorities {1:016x} {1:016x}"  # kept for b alone, so it is that of a, too
    put(path, "kept_blocks", {name.encode(): flipped(values(path, "kept_blocks")[name.encode()])})
    with diskreplay.open(path) as buffer:
        buffer.delete_mark("b")
        with pytest.raises(DamageError, match=r"kept block 'priorities 0{16} 0{15}1' .*missing"):
            buffer.rewind("a")
        buffer.rewind("c")
        assert buffer.priorities(range(ROWS)).tolist() == wanted["c"]  # type: ignore[union-attr]
    assert any("kept block" in fault for fault in verify(path))
    with diskreplay.open(path) as buffer:
        buffer.delete_mark("a")
    assert verify(path) == []


@pytest.mark.parametrize("content", [0.5, 2**40, [], "x"])
def test_a_kept_block_that_holds_no_bytes_is_damaged(content: Any, tmp_path: Path) -> None:
    path = tmp_path / "s"
    marked(path)
    name = f"priorities {1:016x} {1:016x}"
    put(path, "kept_blocks", {name.encode(): seal(name, content)})
    told = f"kept block '{name}'.* is damaged: it holds no bytes"
    [fault] = verify(path)
    assert re.search(told, fault)
    with diskreplay.open(path) as buffer, pytest.raises(DamageError, match=told):
        buffer.rewind("b")


def test_repair_and_compact_leave_damaged_marks_out(tmp_path: Path) -> None:
    marked(tmp_path / "s")
    put(tmp_path / "s", "marks", {b"b": b"x"})
    found = diskreplay.repair(tmp_path / "s", tmp_path / "r")
    assert (found.copied, found.lost, len(found.faults)) == (ROWS, 0, 1)
    diskreplay.compact(tmp_path / "s")
    for path in (tmp_path / "s", tmp_path / "r"):
        assert verify(path) == []
        with diskreplay.open(path) as buffer:
            assert buffer.marks() == []
