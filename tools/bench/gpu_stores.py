"""The stores of pixels that a learner is fed from: pairs of stacks, and the observation log."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np

import diskreplay
from bench.rows import PIXEL_BLOCK, Array, Task, blocks

STACK, SIDE = 4, 84
# By the names of their feeds: the codec of each log that this machine can have.
LOGS = {"log": None, **({"log, lz4": "lz4"} if find_spec("lz4") else {})}


def filled(path: str, rows: int) -> list[Array]:
    """Fill a store of pairs of stacks at a path, and return its columns in memory."""
    columns: list[Array] = []
    first = 0
    with diskreplay.PrioritizedReplayBuffer(
        rows, seed=1, path=path, durability="process"
    ) as buffer:
        for part in blocks(Task(rows=rows, width=0)):
            if not columns:
                columns = [np.empty((rows, *column.shape[1:]), column.dtype) for column in part]
            for column, values in zip(columns, part, strict=True):
                column[first : first + len(values)] = values
            buffer.extend(*part)
            first += len(part[0])
    return columns


def fill_log(path: str, rows: int, codec: str | None) -> None:
    """Fill a store at a path with one environment's stacks, whose frames are in a log."""
    with diskreplay.PrioritizedReplayBuffer(
        rows, seed=1, path=path, durability="process", frame_axis=0, codec=codec
    ) as buffer:
        for first in range(0, rows, PIXEL_BLOCK):
            n = min(PIXEL_BLOCK, rows - first)
            shown = np.stack([frame(number) for number in range(first, first + n + STACK)])
            stacks = shown[np.arange(n + 1)[:, None] + np.arange(STACK)]
            numbers = np.arange(first, first + n)
            buffer.extend(
                stacks[:-1], numbers % 18, numbers / rows, stacks[1:], numbers % 100 == 99
            )


def frame(number: int) -> Array:
    """Return a frame that compresses as those of games do: bands of one colour, and some noise."""
    rng = np.random.default_rng([1, number])
    found = np.repeat(np.arange(SIDE, dtype=np.uint8) // 12 * 20, SIDE).reshape(SIDE, SIDE)
    top, left = rng.integers(0, SIDE - 15, 2)
    found[top : top + 15, left : left + 15] = rng.integers(0, 256, (15, 15), np.uint8)
    return found
