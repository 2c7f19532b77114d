"""Make the stores of an old version: `PYTHONPATH=CHECKOUT python make.py OUT.tar.xz`.

CHECKOUT is a checkout of the commit that OUT is named after; the stores of a commit are made once,
and kept as bytes. What is in them is what `rows` says, so that a test can compare every row.
"""

from __future__ import annotations

import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


class Old(NamedTuple):
    """One of the stores: its payload, and what was done to it in two runs."""

    kind: str
    payload: int
    capacity: int
    cleared_at: int  # the count at the clear between the runs, 0 for none
    count: int

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.payload}"

    @property
    def live(self) -> range:
        return range(max(self.cleared_at, self.count - self.capacity), self.count)


OLD = [
    Old("uniform", 3056, 23, 0, 60),  # more than two laps; the last group of five has three
    Old("prioritized", 3056, 31, 20, 29),  # nothing but what is left of a clear in its first slots
    Old("prioritized", 496, 50, 0, 71),
    Old("uniform", 496, 1000, 0, 7),  # less than a group of 15
    Old("uniform", 980, 41, 30, 55),  # a clear, and over the end of the ring
    Old("uniform", 944, 20, 0, 31),
    Old("prioritized", 48, 70, 20, 110),
    Old("uniform", 48, 8, 0, 8),
    Old("uniform", 2030, 5, 0, 3),  # fewer slots than a group of seven would have
    Old("prioritized", 130, 60, 0, 0),  # a schema, and no row
]


def fields(payload: int) -> dict[str, Any]:
    half = (payload - 16) // 2
    return {
        "state": ("uint8", (half,)),
        "action": "int64",
        "reward": "float32",
        "next_state": ("uint8", (payload - 16 - half,)),
        "done": "float32",
    }


def rows(first: int, n: int, payload: int) -> dict[str, Any]:
    """Transitions that are told from all others by their number, as arguments of `extend`."""
    numbers = np.arange(first, first + n)
    pixels = ((numbers[:, None] * 31 + np.arange(payload - 16) // 8) % 251).astype(np.uint8)
    half = (payload - 16) // 2
    return {
        "states": pixels[:, :half],
        "actions": numbers,
        "rewards": numbers % 1000,
        "next_states": pixels[:, half:],
        "dones": numbers % 2,
    }


def priorities(first: int, n: int) -> Any:
    return np.arange(first, first + n, dtype=np.float32) / 8


def make(old: Old, path: Path) -> None:
    """Two runs, with commits of a few rows each."""
    import diskreplay

    is_prioritized = old.kind == "prioritized"
    kind = diskreplay.PrioritizedReplayBuffer if is_prioritized else diskreplay.ReplayBuffer
    half = old.cleared_at or old.count // 2
    for end in (half, old.count):
        with kind(old.capacity, path=path, schema=fields(old.payload), seed=1) as buffer:
            if not old.count:
                buffer.clear()  # or there would be no commit
            if end > half and old.cleared_at:
                buffer.clear()
            while buffer.count < end:
                first = buffer.count
                n = min(end - first, max(4, old.count // 4))
                more = {"priorities": priorities(first, n)} if is_prioritized else {}
                buffer.extend(**rows(first, n, old.payload), **more)
                buffer.flush()
            if len(buffer) >= 4:
                buffer.sample(4)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place, tarfile.open(sys.argv[1], "w:xz") as archive:
        for old in OLD:
            make(old, Path(place) / old.name)
            archive.add(Path(place) / old.name, old.name)
