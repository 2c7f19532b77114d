"""Commits to a log that fail or are cleared, with other processes that write in between."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from common import run_python
from logs import log_of
from refused import writes_refused

import diskreplay
from diskreplay import ReplayBuffer, StorageError

NOISE = np.random.default_rng(0).integers(0, 256, (40, 4000), dtype=np.uint8)


def push_noise(path: Path) -> None:
    """Push and commit the rows of NOISE, in another process."""
    run_python(
        f"""
        import numpy as np
        import diskreplay
        noise = np.random.default_rng(0).integers(0, 256, (40, 4000), dtype=np.uint8)
        with diskreplay.open({str(path)!r}, access="shared") as buffer:
            for frame in noise:
                buffer.push(frame, 0, 1.0, frame, False)
        """
    )


@pytest.mark.parametrize("on_damage", ["raise", "skip"])
def test_the_layout_of_a_failed_commit_is_forgotten(on_damage: str, tmp_path: Path) -> None:
    """Other entries decide how many share a value, if another process commits first."""
    pytest.importorskip("zstandard")
    path, black = tmp_path / "b", np.zeros(4000, np.uint8)
    settings = {"codec": "zstd", "window_bytes": 0, "commit_interval": 1e9}
    with ReplayBuffer(100, path=path, access="shared", on_damage=on_damage, **settings) as buffer:
        buffer.push(black, 0, 0.0, black, False)
        with writes_refused(), pytest.raises(StorageError):
            buffer.flush()
        push_noise(path)
        np.testing.assert_array_equal(buffer.get(range(40)).states, NOISE)
        assert buffer.sample(40).rewards.sum() == 40
        assert buffer.stats()["damaged"] == 0
        buffer.flush()
        np.testing.assert_array_equal(buffer.get([40]).states, [black])
    assert diskreplay.verify(path) == []


@pytest.mark.parametrize("access", ["exclusive", "shared"])
@pytest.mark.parametrize("before", [0, 5])
def test_a_failed_commit_is_tried_again(access: str, before: int, tmp_path: Path) -> None:
    path = tmp_path / "b"
    with ReplayBuffer(
        100, path=path, access=access, observations="log", window_bytes=0, commit_interval=1e9
    ) as buffer:
        for frame in NOISE[:before]:
            buffer.push(frame, 0, 0.0, frame, False)
        buffer.flush()
        for frame in NOISE[before:]:
            buffer.push(frame, 0, 0.0, frame, False)
        for _ in range(2):
            with writes_refused(), pytest.raises(StorageError):
                buffer.flush()
        buffer.flush()
        np.testing.assert_array_equal(buffer.get(range(40)).states, NOISE)
    assert log_of(path)[:2] == (0, 40)
    assert diskreplay.verify(path) == []


def test_frames_that_another_process_has_cleared_are_stored_anew(tmp_path: Path) -> None:
    path, frames = tmp_path / "b", NOISE[:20]
    code = """
        import sys, diskreplay
        with diskreplay.open(sys.argv[1], access="shared") as buffer:
            buffer.clear()
    """
    with ReplayBuffer(100, path=path, access="shared", observations="log") as buffer:
        for _ in range(2):
            run_python(code, path)
            for frame in frames:
                buffer.push(frame, 0, 0.0, frame, False)
            buffer.flush()
            ids = np.arange(buffer.first, buffer.count)
            np.testing.assert_array_equal(buffer.get(ids).states, frames)
    assert log_of(path)[:2] == (20, 40)
    assert diskreplay.verify(path) == []
