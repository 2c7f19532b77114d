"""Rows that come with their notes: both, or neither, are in the commit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from common import columns, numbers_of, row
from interrupted import COMPUTING, interrupted_at
from noted import committed
from refused import writes_refused

from diskreplay import (
    ArgumentError,
    PrioritizedReplayBuffer,
    ReplayBuffer,
    SchemaError,
    StorageError,
)

KINDS: list[Any] = [ReplayBuffer, PrioritizedReplayBuffer]


def as_bytes(column: Any) -> Any:
    return {k: v.tobytes() for k, v in column.items()} if type(column) is dict else column.tobytes()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("access", ["exclusive", "shared"])
@pytest.mark.parametrize("n", [1, 5, 400])  # the last are more than can wait
def test_rows_come_with_their_notes(kind: Any, access: str, n: int, path: Path) -> None:
    arguments: Any = {"access": access, "window_bytes": 0, "path": path}
    with kind(300, commit_interval=1e9, **arguments) as buffer:
        buffer.extend(**columns(0, 5), with_notes={"rows": 5})
        buffer.extend(**columns(5, n), with_notes={"rows": 5 + n})
        assert committed(buffer) == ({} if n < 100 else {"rows": 5 + n})
        buffer.flush()
        assert (committed(buffer), buffer.count) == ({"rows": 5 + n}, 5 + n)
        buffer.extend(**columns(0, 0), with_notes={"none": 0})
        buffer.flush()
        assert committed(buffer) == {"none": 0, "rows": 5 + n}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("access", ["exclusive", "shared"])
@pytest.mark.parametrize("size", [10, 9_000_000])  # the last is more than can wait
def test_a_pushed_row_comes_with_its_notes(kind: Any, access: str, size: int, path: Path) -> None:
    arguments: Any = {"access": access, "window_bytes": 0, "path": path, "schema": {"text": str}}
    with kind(300, commit_interval=1e9, **arguments) as buffer:
        for number in range(3):
            text = "x" * size if number == 1 else ""
            write_id = buffer.push(**row(number), text=text, with_notes={"rows": number + 1})
            assert write_id == (number if access == "exclusive" else -1)
            if number == 1:
                assert committed(buffer) == ({} if size == 10 else {"rows": 2})
        buffer.flush()
        assert committed(buffer) == {"rows": 3}
        assert numbers_of(buffer.get(range(3))).tolist() == [0, 1, 2]
        with pytest.raises(SchemaError):
            buffer.push(**{**row(3), "reward": np.nan}, text="", with_notes={"rows": 4})
        with pytest.raises(ArgumentError, match="note"):
            buffer.push(**row(3), text="", with_notes={"rows": object()})
        buffer.flush()
        assert committed(buffer) == {"rows": buffer.count} == {"rows": 3}


def test_a_push_with_notes_is_as_one_without(path: Path) -> None:
    kinds = [{}, {"with_notes": {"a": 1}}]
    found = []
    for number, more in enumerate(kinds):
        with PrioritizedReplayBuffer(300, path=path / str(number), seed=1) as buffer:
            for i in range(20):
                one = {**row(i), "state": {"x": row(i)["state"]}}
                one["next_state"] = {"x": one["next_state"]}
                ends = i % 7 == 6
                buffer.push(**one, priority=i % 3, env=i % 2, truncated=ends, y=np.nan, **more)
            found.append(buffer.sample(16, n_step=3))
            assert buffer.notes() == more.get("with_notes", {})
    for one, other in zip(*found, strict=True):
        assert as_bytes(one) == as_bytes(other)


@pytest.mark.parametrize("access", ["exclusive", "shared"])
@pytest.mark.parametrize("n", [5, 400])
def test_refused_rows_leave_no_note(access: str, n: int, path: Path) -> None:
    arguments: Any = {"access": access, "window_bytes": 0, "path": path}
    with PrioritizedReplayBuffer(300, commit_interval=1e9, **arguments) as buffer:
        buffer.extend(**columns(0, 5), with_notes={"rows": 5})
        bad = {**columns(5, n), "rewards": np.full(n, np.nan)}
        with pytest.raises(SchemaError):
            buffer.extend(**bad, with_notes={"rows": 5 + n})
        for notes in ([], "rows", {3: 1}, {"rows": object()}):
            with pytest.raises(ArgumentError, match="note"):
                buffer.extend(**columns(5, n), with_notes=notes)
        if n > 100:
            with writes_refused(), pytest.raises(StorageError):
                buffer.extend(**columns(5, n), with_notes={"rows": 5 + n})
        buffer.flush()
        assert (committed(buffer), buffer.count) == ({"rows": 5}, 5)


@pytest.mark.parametrize("access", ["exclusive", "shared"])
@pytest.mark.parametrize("n", [5, 400])
def test_an_interrupt_at_any_line_leaves_rows_and_note_or_neither(
    access: str, n: int, path: Path
) -> None:
    arguments: Any = {"access": access, "window_bytes": 0, "path": path, "durability": "process"}
    with PrioritizedReplayBuffer(300, commit_interval=1e9, **arguments) as buffer:
        buffer.extend(**columns(0, 5), with_notes={"rows": 5})
        buffer.flush()
        line, was_interrupted, found = 1, True, set()
        while was_interrupted:
            rows = buffer.count
            was_interrupted = interrupted_at(
                line,
                lambda rows=rows: buffer.extend(  # type: ignore[misc]
                    **columns(rows, n), with_notes={"rows": rows + n}
                ),
                over=COMPUTING,
            )
            buffer.flush()
            assert committed(buffer) == {"rows": buffer.count}
            found.add(buffer.count - rows)
            line += 1 if n == 5 else 7
    assert found == {0, n}
