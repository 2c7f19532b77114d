"""Damaged notes: they are told with the way out, and can be deleted and replaced."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from changed_values import put, values
from common import columns
from noted import stored

import diskreplay
from diskreplay import DamageError, ReplayBuffer, verify
from diskreplay.records.seals import seal, unseal

CALLS: dict[str, Callable[[Any], Any]] = {
    "delete": lambda buffer: buffer.delete_note("b"),
    "replace": lambda buffer: buffer.set_note("b", 7),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("raw", [b"", b"\x93", seal("a", 2), seal("b", 2)[:-1] + b"\x05"])
def test_a_damaged_note_is_told_and_can_be_removed(raw: bytes, call: str, path: Path) -> None:
    with ReplayBuffer(10, path=path) as buffer:
        buffer.extend(**columns(0, 5))
        buffer.set_note("a", 1)
        buffer.set_note("b", 2)
    put(path, "notes", {b"b": raw})
    way_out = r"note 'b'.*: delete_note\('b'\) of a buffer removes it"
    with pytest.raises(AssertionError, match=way_out):
        assert verify(path) == []
    diskreplay.repair(path, path.with_name("repaired"))
    assert stored(path.with_name("repaired")) == {"a": 1}
    with pytest.raises(DamageError, match=way_out):
        diskreplay.compact(path)
    with diskreplay.open(path) as buffer:
        assert len(buffer.sample(3).rewards) == 3
        for look in (buffer.notes, buffer.stats, buffer.check, lambda: buffer.mark("m")):
            with pytest.raises(DamageError, match=way_out):
                look()
        CALLS[call](buffer)
        buffer.flush()
        assert buffer.notes() == ({"a": 1} if call == "delete" else {"a": 1, "b": 7})
        buffer.check()
    assert verify(path) == []


@pytest.mark.parametrize(
    "notes",
    [[], 7, {"": seal("", 1)}, {"a": 3}, {"a": seal("b", 1)}, {"x" * 600: b""}, {b"a": b""}],
)
def test_damaged_notes_of_a_mark_damage_the_mark(notes: Any, path: Path) -> None:
    with ReplayBuffer(10, path=path) as buffer:
        buffer.set_note("a", 1)
        buffer.mark("m")
    content = unseal(values(path, "marks")[b"m"], "m", "m")
    assert content["notes"] == {"a": seal("a", 1)}
    put(path, "marks", {b"m": seal("m", {**content, "notes": notes})})
    way_out = r"mark 'm' is damaged: .*note.*delete_mark\('m'\) of a buffer removes it"
    with pytest.raises(AssertionError, match=way_out):
        assert verify(path) == []
    with diskreplay.open(path) as buffer:
        with pytest.raises(DamageError, match=way_out):
            buffer.rewind("m")
        buffer.delete_mark("m")
    assert verify(path) == []
