"""Batches with Frames, put together, are those of `sample`, of every Replay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from replays import CAPACITY, Exclusive
from stacked import frames_in, whole

from diskreplay import ArgumentError


def as_bytes(batch: Any) -> list[bytes]:
    return [batch.indices.tobytes(), *(column.tobytes() for column in batch)][:6]


@pytest.mark.parametrize(("prefetch", "readers"), [(0, 0), (2, 0), (2, 1)])
@pytest.mark.parametrize("reuse", [False, True])
def test_batches_with_frames_are_those_of_sample(
    replay: Exclusive, prefetch: int, readers: int, reuse: bool, tmp_path: Path
) -> None:
    with replay.filled(tmp_path / "twin") as twin:
        wanted = [as_bytes(twin.sample(8)) for _ in range(9)]
    with replay.filled(tmp_path / "b") as buffer:
        logged = [buffer.schema.fields[place].name for place in buffer.schema.logged]
        found = []
        with buffer.batches(8, prefetch, readers, reuse=reuse, frames=True) as batches:
            for _, batch in zip(range(8), batches, strict=False):
                found.append(as_bytes(whole(batch)))
                assert len(frames_in(batch)) == len(logged)
        found.append(as_bytes(buffer.sample(8)))
        assert found == wanted
        assert not frames_in(buffer.sample(8))


def test_wrong_words_for_frames_are_refused(replay: Exclusive, tmp_path: Path) -> None:
    with replay.filled(tmp_path / "b") as buffer:
        for bad in (1, "yes", None):
            with pytest.raises(ArgumentError, match="frames must be True or False"):
                buffer.batches(CAPACITY, frames=bad)
