"""Buffers of transitions with states of any size in bytes, and two extra fields."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np

from diskreplay import DamageError, PrioritizedReplayBuffer
from diskreplay.records import Codec, new_grouping

CAPACITY, COUNT = 150, 200
# Bytes of a state: rows that are joined; large rows, three in a value; large rows, each a value.
SMALL, GROUPED, ALONE = 3, 3000, 4050
WIDTHS = [SMALL, GROUPED, ALONE]


def columns(width: int, first: int, n: int) -> dict[str, Any]:
    """The transitions of the numbers first, first + 1, ..., as the arguments of `extend`."""
    return columns_of(width, np.arange(first, first + n))


def columns_of(width: int, numbers: Any) -> dict[str, Any]:
    """The transitions of some numbers."""
    states = ((numbers[:, None] * 7 + np.arange(width)) % 251).astype(np.uint8)
    return {
        "states": states, "actions": numbers, "rewards": numbers / 8, "next_states": states + 1,
        "dones": numbers % 5 == 4, "mask": states % 3 == 0, "log_prob": numbers / 4,
    }  # fmt: skip


def check(batch: Any) -> None:
    """Compare a batch with the transitions of its write ids."""
    for name, column in columns_of(batch.states.shape[1], batch.indices).items():
        np.testing.assert_array_equal(getattr(batch, name), column)


def filled(kind: Any, path: Path, width: int, **settings: Any) -> Any:
    """Return a new buffer to which COUNT transitions were added, the last not committed."""
    buffer = kind(CAPACITY, path=path, seed=3, **{"commit_interval": 1e9, **settings})
    for first, end in ((0, COUNT - 20), (COUNT - 20, COUNT)):
        numbers = np.arange(first, end)
        more = {"priorities": numbers % 7 + 0.5} if kind is PrioritizedReplayBuffer else {}
        buffer.flush()
        buffer.extend(**columns(width, first, end - first), **more)
    return buffer


def record_bytes(buffer: Any) -> int:
    """Return the size of a record of a buffer."""
    return Codec(buffer.schema).record_bytes


def records_per_value(buffer: Any) -> int:
    """Return how many records of a new store of a buffer's schema share a value."""
    return new_grouping(buffer.schema).per_value


def first_sound(buffer: Any, n: int) -> Any:
    """Return the first batch without a damaged record."""
    while True:
        with contextlib.suppress(DamageError):
            return buffer.sample(n)
