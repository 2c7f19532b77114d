"""The progress= of all that takes long: rows that are done, and all rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from common import columns

import diskreplay

ROWS = 90_000
CALLS: dict[str, Any] = {
    "verify": lambda path, out, progress: diskreplay.verify(path, progress=progress),
    "repair": lambda path, out, progress: diskreplay.repair(path, out, progress=progress),
    "compact": lambda path, out, progress: diskreplay.compact(path, progress=progress),
    "resize": lambda path, out, progress: diskreplay.resize(path, 95_000, progress=progress),
    "convert": lambda path, out, progress: diskreplay.convert(
        path, "prioritized", progress=progress
    ),
    "merge": lambda path, out, progress: diskreplay.merge([path], out, progress=progress),
    "transform": lambda path, out, progress: diskreplay.transform(
        path, out, lambda rows: {"reward": rows["reward"] * 2}, progress=progress
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_progress_counts_rows_up_to_all_of_them(name: str, tmp_path: Path) -> None:
    with diskreplay.ReplayBuffer(100_000, path=tmp_path / "a") as buffer:
        buffer.extend(**columns(0, ROWS))
    steps: list[tuple[int, int]] = []
    CALLS[name](tmp_path / "a", tmp_path / "out", lambda *step: steps.append(step))
    done = [done for done, _ in steps]
    assert len(set(done)) > 1
    assert done == sorted(done)
    assert steps[-1] == (ROWS, ROWS)
    assert all(0 <= total <= ROWS + 1000 for _, total in steps)


@pytest.mark.parametrize("name", CALLS)
def test_an_exception_of_progress_stops_the_call_and_changes_nothing(
    name: str, tmp_path: Path
) -> None:
    with diskreplay.ReplayBuffer(100, path=tmp_path / "a") as buffer:
        buffer.extend(**columns(0, 90))

    def stop(_: int, __: int) -> None:
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        CALLS[name](tmp_path / "a", tmp_path / "out", stop)
    assert [place.name for place in tmp_path.iterdir()] == ["a"]
    assert diskreplay.verify(tmp_path / "a") == []
    with diskreplay.open(tmp_path / "a") as buffer:
        assert (buffer.capacity, len(buffer)) == (100, 90)
        assert isinstance(buffer, diskreplay.ReplayBuffer)
