"""Transitions of stacked frames, as one environment gives them, and batches with their Frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diskreplay import Frames, PrioritizedReplayBuffer

STACK = 4
SIDE = 40  # of a frame; its transitions are large rows


def frames(first: int, n: int, side: int = SIDE) -> NDArray[np.uint8]:
    """Return n frames from a number on, which no codec makes small."""
    return np.concatenate(
        [
            np.random.default_rng(number).integers(0, 256, (1, side, side), np.uint8)
            for number in range(first, first + n)
        ]
    )


def columns(first: int, n: int, axis: int = 0, side: int = SIDE) -> dict[str, Any]:
    """Return n transitions as arguments of `extend`: a state begins with its number's frame."""
    whole = frames(first, n + STACK, side)
    places = np.arange(n)[:, None] + np.arange(STACK)
    numbers = np.arange(first, first + n)
    states, next_states = (
        np.ascontiguousarray(np.moveaxis(whole[found], 1, 1 + axis if axis >= 0 else axis))
        for found in (places, places + 1)
    )
    return {
        "states": states, "actions": numbers % 5, "rewards": numbers / 8,
        "next_states": next_states, "dones": numbers % 7 == 6,
    }  # fmt: skip


def stored(
    path: Path | None, n: int = 80, *, pending: int = 0, kind: Any = PrioritizedReplayBuffer,
    axis: int = 0, side: int = SIDE, **settings: Any,
) -> Any:  # fmt: skip
    """Return a new buffer with n transitions, the last `pending` of them not committed."""
    settings = {"frame_axis": axis, "commit_interval": 1e9, "seed": 3, **settings}
    buffer = kind(2 * n, path=path, **settings)
    buffer.extend(**columns(0, n - pending, axis, side))
    buffer.flush()
    if pending:
        buffer.extend(**columns(n - pending, pending, axis, side))
    return buffer


def whole(value: Any) -> Any:
    """Return a batch, or an element of one, with the arrays that its Frames stand for."""
    if isinstance(value, Frames):
        return value.whole()
    if isinstance(value, dict):
        return {key: whole(part) for key, part in value.items()}
    if hasattr(value, "_fields"):
        found = value._make(map(whole, value))
        vars(found).update(vars(value))
        return found
    return tuple(map(whole, value)) if isinstance(value, tuple) else value


def content(batch: Any) -> bytes:
    """Return all that is in a batch, put together."""
    return batch.indices.tobytes() + b"".join(column.tobytes() for column in whole(batch))


def frames_in(value: Any) -> list[Frames]:
    """Return the Frames of a batch."""
    if isinstance(value, dict | tuple):
        parts = value.values() if isinstance(value, dict) else value
        return [found for part in parts for found in frames_in(part)]
    return [value] if isinstance(value, Frames) else []
