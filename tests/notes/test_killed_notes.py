"""Rows and notes agree after a kill at any moment."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from common import columns
from kills import at_each_step, at_random

import diskreplay
from diskreplay import PrioritizedReplayBuffer, ReplayBuffer, verify

CAPACITY = 200


def opened(path: Path, access: str) -> Any:
    kind = PrioritizedReplayBuffer if access == "shared" else ReplayBuffer
    return kind(CAPACITY, path=path, access=access, commit_interval=1e9, durability="process")


def write(path: Path, access: str, steps: int) -> None:
    """Push rows with a note of how many there are, and commit now and then."""
    chance = random.Random(1)
    with opened(path, access) as buffer:
        count = buffer.count
        for _ in range(steps):
            n = chance.randrange(1, 9)
            buffer.extend(**columns(count, n))
            count += n
            buffer.set_note("count", {"count": count, "more": "x" * chance.randrange(3000)})
            if chance.random() < 0.4:
                buffer.flush()


def agreed(path: Path) -> int:
    """Check that rows and note are of one commit, and return the number of rows."""
    if not (path / "diskreplay.json").exists():
        return 0
    assert verify(path) == []
    with diskreplay.open(path, access="read") as reader:
        note: Any = reader.notes().get("count", {"count": 0})
        assert note["count"] == reader.count
        return reader.count


@pytest.mark.parametrize("access", ["exclusive", "shared"])
def test_rows_and_note_agree_after_a_kill_at_any_step(access: str, tmp_path: Path) -> None:
    path = tmp_path / "b"
    found = []
    for _ in at_each_step(lambda: write(path, access, 3)):
        found.append(agreed(path))
    assert len(set(found)) > 5


@pytest.mark.parametrize("access", ["exclusive", "shared"])
def test_rows_and_note_agree_after_a_kill_at_any_moment(
    access: str, tmp_path: Path, long: bool
) -> None:
    path = tmp_path / "b"
    rounds = 200 if long else 12
    moments = np.random.default_rng(2).uniform(0.02, 0.4, rounds).tolist()
    killed, found = 0, [0]
    for was_killed in at_random(lambda: write(path, access, 100_000), moments):
        killed += was_killed
        found.append(agreed(path))
        assert found[-1] >= found[-2]
    assert killed == rounds
    assert found[-1] > CAPACITY
