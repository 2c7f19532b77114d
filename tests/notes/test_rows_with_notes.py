"""Rows that come with their notes: both, or neither, are in the commit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from common import columns
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
