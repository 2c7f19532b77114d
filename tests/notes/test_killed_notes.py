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


def write(path: Path, access: str, steps: int, interval: float = 1e9) -> None:
    """Push rows with a note of how many there are, and commit now and then.

    interval:  after which another thread commits, between any two calls
    """
    chance = random.Random(1)
    kind = PrioritizedReplayBuffer if access == "shared" else ReplayBuffer
    arguments: Any = {"access": access, "commit_interval": interval, "durability": "process"}
    with kind(CAPACITY, path=path, **arguments) as buffer:
        count = buffer.count
        for _ in range(steps):
            n = chance.randrange(1, 9)
            count += n
            note = {"count": count, "more": "x" * chance.randrange(3000)}
            if interval < 1e9:
                buffer.extend(**columns(count - n, n), with_notes={"count": note})
            else:
                buffer.extend(**columns(count - n, n))
                buffer.set_note("count", note)
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


@pytest.mark.parametrize("interval", [0.0, 0.001, 1e9])
@pytest.mark.parametrize("access", ["exclusive", "shared"])
def test_rows_and_note_agree_after_a_kill_at_any_moment(
    access: str, interval: float, tmp_path: Path, long: bool
) -> None:
    path = tmp_path / "b"
    rounds = 200 if long else 5
    chance = np.random.default_rng(2)
    killed, found = 0, [0]
    while killed < rounds or found[-1] <= CAPACITY:
        moment = chance.uniform(0.02, 0.4) * max(1.0, killed / rounds)  # a busy machine needs more
        [was_killed] = at_random(lambda: write(path, access, 100_000, interval), [moment])
        assert was_killed
        killed += 1
        found.append(agreed(path))
        assert found[-1] >= found[-2]
