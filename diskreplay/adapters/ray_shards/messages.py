"""What replays and shards tell each other: settings, facts, groups of rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import diskreplay

KINDS: dict[str, Any] = {
    "uniform": diskreplay.ReplayBuffer,
    "prioritized": diskreplay.PrioritizedReplayBuffer,
}


class ShardAwayError(diskreplay.StorageError):
    """A shard is not there: its process ended, or its store is not where it was."""


class Settings(NamedTuple):
    """What a shard is opened with."""

    directory: str
    number: int
    n_shards: int
    capacity: int  # of the whole
    kind: str
    seed: int
    options: dict[str, Any]  # further arguments of the buffer

    @property
    def path(self) -> Path:
        """The directory of the store of the shard, on the node where it runs."""
        return Path(self.directory) / f"shard-{self.number}"

    @property
    def layout(self) -> dict[str, Any]:
        """The facts that a store must have been made with."""
        names = ("number", "n_shards", "capacity", "kind")
        return {name: getattr(self, name) for name in names}


class Facts(NamedTuple):
    """The state of a shard, which comes with each answer; write ids are its own."""

    size: int
    first: int
    written: int  # ever
    mass: float
    largest: float | None  # the largest priority so far; None before the first one
    frame: int  # the draws of the whole that the shard knows of
    seed: str  # of the whole, which may have more than 64 bits


class Group(NamedTuple):
    """Rows of one client, in the order of their pushes."""

    schema: list[Any]  # plain, as other schemas cannot be pickled
    columns: dict[str, Any]  # as the arguments of `extend`
    truncateds: NDArray[np.bool_] | None
    envs: NDArray[np.int64] | None  # None where they came without env=
    ended: tuple[int, ...] = ()  # the envs whose episodes end before them; -1 for rows without
