"""`open`: a buffer of an existing store, with the kind and the settings of the store."""

from __future__ import annotations

from typing import Any

from diskreplay.aliases import PathLike
from diskreplay.buffer.assembly import open_stored
from diskreplay.buffer.prioritized_replay_buffer import PrioritizedReplayBuffer
from diskreplay.buffer.replay_buffer import ReplayBuffer
from diskreplay.errors import ArgumentError
from diskreplay.validation import whole_number


def open(
    path: PathLike, *, seed: int | None = None, **overrides: Any
) -> ReplayBuffer | PrioritizedReplayBuffer:
    """Open an existing store, with its own kind, capacity, schema and settings.

    Raises NotAStoreError where there is no store: unlike the constructors, `open` makes none.

    >>> ReplayBuffer(capacity=10, path="runs/a").close()
    >>> open("runs/a").capacity
    10

    seed:       starts a new random stream; None goes on with the stored one
    overrides:  arguments of the constructor that may change from run to run: access, durability,
                commit_interval, window_bytes, on_damage, sampler, and alpha, beta_start, beta_end,
                beta_frames, epsilon
    """
    if fixed := overrides.keys() & {"capacity", "keep_rows", "path", "schema"}:
        raise ArgumentError(
            f"{min(fixed)} is the store's own (found {min(fixed)}=): leave it out, or use a "
            "constructor to check it"
        )
    if seed is not None:
        seed = whole_number("seed", seed, at_least=0)
    guard, options, priorities = open_stored(path, seed, overrides)
    if priorities is None:
        uniform = ReplayBuffer.__new__(ReplayBuffer)
        uniform._use(guard, options)
        return uniform
    prioritized = PrioritizedReplayBuffer.__new__(PrioritizedReplayBuffer)
    prioritized._use_prioritized(guard, options, priorities)
    return prioritized
