"""The task that a worker gets, and the transitions that all systems are fed.

This module, `bench.timing` and `bench.workers` also run in the virtual environments of the peers:
they import numpy (1 or 2) and the standard library only.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Row = tuple[Array, int, float, Array, bool]  # state, action, reward, next_state, done

BLOCK = 1000  # transitions that are made, and extended, at once
PIXEL_BLOCK = 50  # the same for pixels, which are 56 kB each
PIXELS = (84, 84, 4)


@dataclass(frozen=True)
class Task:
    """What a worker measures; each benchmark reads the fields that concern it."""

    path: str = ""  # a directory for what is stored
    rows: int = 1_000_000  # the capacity; buffers are full
    width: int = 60  # float32 numbers in a state; 0 stands for pixels
    batch: int = 256
    seconds: float = 0.4  # of a round of batches
    count: int = 20_000  # transitions of a round of pushes
    prioritized: bool = True
    alpha: float = 0.6
    beta: float = 0.4
    seed: int = 1
    window_bytes: int = 2 << 30
    durability: str = "system"
    per_second: int = 1000  # pushes, where they are paced
    access: str = "exclusive"
    every: int = 0  # one step after so many of those pushes; 0 is none
    recorded: str = ""  # a directory of recorded steps, which are the transitions; else random ones
    layout: str = "pairs"  # how diskreplay stores them
    n_step: int = 3
    sequences: int = 16  # of a batch of sequences
    length: int = 64  # of each of them
    clients: int = 1  # that push at the same time, `count` each

    @property
    def row_bytes(self) -> int:
        """Bytes of a transition: two states, an int64 action, a float32 reward and done."""
        return 2 * self.state_bytes + 16

    @property
    def state_bytes(self) -> int:
        """Bytes of a state."""
        return 4 * self.width if self.width else int(np.prod(PIXELS))

    @property
    def block(self) -> int:
        """How many transitions are made, and extended, at once."""
        return BLOCK if self.width else PIXEL_BLOCK


def columns(task: Task, first: int, n: int) -> list[Array]:
    """Return states, actions, rewards, next states and dones of n transitions from number `first`.

    They follow from the seed and the number of their block alone, so that each system gets the
    same, and no state is made of zeros or compresses well. Recorded steps begin anew at their end,
    and every other time as mirror images, so that nothing is what it was a lap ago.
    """
    if task.recorded:
        return _recorded(task.recorded, first, n)
    parts = [
        _block(task, number)
        for number in range(first // task.block, (first + n - 1) // task.block + 1)
    ]
    skip = first % task.block
    return [np.concatenate(column)[skip : skip + n] for column in zip(*parts, strict=True)]


def _block(task: Task, number: int) -> list[Array]:
    rng = np.random.default_rng([task.seed, number])
    n = task.block
    if task.width:
        states, next_states = rng.random((2, n, task.width), np.float32)
    else:
        states, next_states = rng.integers(0, 256, (2, n, *PIXELS), np.uint8)
    actions = rng.integers(0, 18, n)
    rewards = rng.standard_normal(n, np.float32)
    dones = (rng.random(n, np.float32) < 0.01).astype(np.float32)
    return [states, actions, rewards, next_states, dones]


@functools.cache
def _files(place: str) -> list[Array]:
    names = ("frames", "states", "next_states", "actions", "rewards", "dones")
    return [np.load(f"{place}/{name}.npy", mmap_mode="r") for name in names]


def _recorded(place: str, first: int, n: int) -> list[Array]:
    frames, *others = _files(place)
    laps, steps = np.divmod(np.arange(first, first + n), len(others[0]))
    states, next_states, actions, rewards, dones = (column[steps] for column in others)
    pair = [frames[states], frames[next_states]]
    for column in pair:
        column[laps % 2 == 1] = column[laps % 2 == 1, ..., ::-1]
    return [pair[0], actions, rewards, pair[1], dones]


def blocks(task: Task, first: int = 0, rows: int | None = None) -> Iterator[list[Array]]:
    """Yield columns of `rows` transitions in blocks; by default as many as the buffer holds."""
    end = first + (task.rows if rows is None else rows)
    for start in range(first, end, task.block):
        yield columns(task, start, min(task.block, end - start))


def singles(task: Task, first: int, n: int) -> list[Row]:
    """Return n transitions one by one, with numbers of Python where environments give those."""
    states, actions, rewards, next_states, dones = columns(task, first, n)
    ended = (dones > 0).tolist()
    return list(zip(states, actions.tolist(), rewards.tolist(), next_states, ended, strict=True))
