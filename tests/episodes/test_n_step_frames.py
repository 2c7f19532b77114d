"""n-step returns with Frames: put together, they are the states that `sample` gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stacked import SIDE, content, frames_in, stored

from diskreplay import PrioritizedReplayBuffer, ReplayBuffer

N, SIZE = 80, 16


@pytest.mark.parametrize("kind", [ReplayBuffer, PrioritizedReplayBuffer])
@pytest.mark.parametrize("side", [8, SIDE], ids=["small", "large"])
@pytest.mark.parametrize(("prefetch", "readers"), [(0, 0), (2, 0), (2, 1)])
def test_they_are_the_states_of_sample(
    kind: Any, side: int, prefetch: int, readers: int, tmp_path: Path
) -> None:
    arguments = {"pending": 20, "side": side, "kind": kind}
    with (
        stored(tmp_path / "a", N, **arguments) as buffer,
        stored(tmp_path / "b", N, **arguments) as twin,
        buffer.batches(SIZE, prefetch, readers, reuse=True, frames=True, n_step=3) as batches,
    ):
        for _ in range(12):
            batch = next(batches)
            assert batch._fields[-1] == "discounts"
            assert len(frames_in(batch)) == 2
            assert content(batch) == content(twin.sample(SIZE, n_step=3))


def test_each_committed_frame_is_there_once() -> None:
    with stored(None, N) as buffer:
        batch = next(buffer.batches(N, frames=True, n_step=3))
        assert np.shares_memory(batch.states.frames, batch.next_states.frames)
        found = batch.states.frames[np.unique(np.append(batch.states.rows, batch.next_states.rows))]
        assert len(np.unique(found.reshape(len(found), -1), axis=0)) == len(found) == N + 4


@pytest.mark.parametrize("window_bytes", [0, 1 << 24])
def test_large_rows_in_records_and_in_the_log_are_the_same(
    window_bytes: int, tmp_path: Path
) -> None:
    settings = {"pending": 10, "kind": ReplayBuffer, "window_bytes": window_bytes}
    with (
        stored(tmp_path / "a", N, **settings) as log,
        stored(tmp_path / "b", N, frame_axis=None, **settings) as record,
    ):
        assert record.schema.logged == ()
        for _ in range(10):
            assert content(log.sample(30, n_step=3)) == content(record.sample(30, n_step=3))
