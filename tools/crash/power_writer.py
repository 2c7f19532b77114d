"""The writers that crash.power records.

Each is a process: python -m crash.power_writer DIRECTORY DURABILITY NAME SEED.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import diskreplay
from crash.rows import Buffer, extend, fingerprint, logged, numbers_from, rows_for


@dataclass(frozen=True)
class Plan:
    """What a writer writes."""

    kind: type[diskreplay.ReplayBuffer] | type[diskreplay.PrioritizedReplayBuffer]
    capacity: int
    width: int
    commits: int
    rows: int  # of a commit, at most
    clears: bool = False
    window_bytes: int = 1 << 20
    is_logged: bool = False  # states are in the observation log


PLANS = {
    "small rows": Plan(diskreplay.ReplayBuffer, 10_000, 3, 25, 200),
    "a ring that wraps": Plan(diskreplay.ReplayBuffer, 150, 30, 40, 60, clears=True),
    "rows that share values": Plan(diskreplay.ReplayBuffer, 90, 252, 30, 20),
    "large rows": Plan(diskreplay.ReplayBuffer, 25, 2000, 25, 6),
    "remembered places": Plan(diskreplay.PrioritizedReplayBuffer, 300, 252, 25, 40, window_bytes=0),
    "priorities": Plan(diskreplay.PrioritizedReplayBuffer, 3000, 5, 40, 150),
    "observations in the log": Plan(
        diskreplay.PrioritizedReplayBuffer, 200, 120, 30, 40, clears=True, is_logged=True
    ),
    "larger than the window": Plan(
        diskreplay.PrioritizedReplayBuffer, 300, 40, 25, 100, window_bytes=10_000
    ),
}


def write(buffer: Buffer, plan: Plan, rng: np.random.Generator, acknowledged: int) -> None:
    """Write as the plan says, and acknowledge each commit when it has returned."""
    for _ in range(plan.commits):
        extend(buffer, int(rng.integers(1, plan.rows + 1)), plan.width)
        numbers = numbers_from(0, buffer.count, int(rng.integers(0, 3)))
        for row in rows_for(buffer, numbers, plan.width):
            buffer.push(*row)
        if isinstance(buffer, diskreplay.PrioritizedReplayBuffer):
            indices = buffer.sample(min(32, len(buffer))).indices
            buffer.update_priorities(indices, rng.random(len(indices)) * 3)
        if plan.clears and rng.random() < 0.05:
            buffer.clear()
        buffer.flush()
        os.write(acknowledged, json.dumps(fingerprint(buffer)).encode())


def main(directory: str, durability: str, name: str, seed: str) -> None:
    """Write a store in a directory."""
    plan = PLANS[name]
    acknowledged = os.open(Path(directory) / "acknowledged", os.O_WRONLY | os.O_CREAT)
    with plan.kind(
        plan.capacity,
        seed=1,
        path=Path(directory) / "store",
        durability=durability,
        commit_interval=float("inf"),
        window_bytes=plan.window_bytes,
        **(logged(plan.width) if plan.is_logged else {}),
    ) as buffer:
        os.write(acknowledged, json.dumps(fingerprint(buffer)).encode())
        write(buffer, plan, np.random.default_rng(int(seed)), acknowledged)


if __name__ == "__main__":
    main(*sys.argv[1:])
