"""The kinds of Replay that the contract holds for; a new kind is one more factory in these lists.

A test takes a factory as `replay` (any), `writer` (it can push), `prioritized` (any that has
priorities) or `prioritized_writer`, and never asks for its kind: methods say what differs.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from common import columns
from numpy.typing import NDArray
from others import Other

import diskreplay
from diskreplay import PrioritizedReplayBuffer, RateLimited, ReplayBuffer

CAPACITY = 60
COUNT = 80  # of a filled replay, which has lost the first of its transitions
LIVE = range(COUNT - CAPACITY, COUNT)


def name_of(factory: Exclusive) -> str:
    return factory.name


def priorities_of(numbers: Any) -> NDArray[Any]:
    """Return the priorities that transitions are pushed with, by their numbers."""
    return np.asarray(numbers) % 7


@dataclass(frozen=True)
class Uniform:
    """Draws with equal probability, and takes no priorities."""

    kind: Any = ReplayBuffer
    more_stats: frozenset[str] = frozenset()

    def given(self, priorities: Any) -> dict[str, Any]:
        """Return the arguments by which `extend` is told priorities."""
        return {}

    def masses(
        self, priorities: Any, alpha: float = 0.6, epsilon: float = 1e-6
    ) -> NDArray[np.float64]:
        """Return the masses of transitions of these priorities."""
        return np.ones(len(priorities))


@dataclass(frozen=True)
class Prioritized:
    """Draws in proportion to the masses."""

    kind: Any = PrioritizedReplayBuffer
    more_stats: frozenset[str] = frozenset(
        (
            "alpha", "beta", "beta_start", "beta_end", "beta_frames", "epsilon", "frame",
            "priority_min", "priority_mean", "priority_max", "max_priority",
        )
    )  # fmt: skip

    def given(self, priorities: Any) -> dict[str, Any]:
        """Return the arguments by which `extend` is told priorities."""
        return {"priorities": priorities}

    def masses(
        self, priorities: Any, alpha: float = 0.6, epsilon: float = 1e-6
    ) -> NDArray[np.float64]:
        """Return the masses of transitions of these priorities."""
        return (np.asarray(priorities, np.float64) + epsilon) ** alpha


@dataclass(frozen=True)
class Exclusive:
    """A buffer that writes alone: a push is visible at once."""

    name: str
    draws: Uniform | Prioritized
    layout: dict[str, Any] = field(default_factory=dict)  # arguments that change no batch

    access = "exclusive"
    skipped: ClassVar[tuple[str, ...]] = ()  # tests that do not hold for the kind

    def make(self, path: Path, capacity: int = CAPACITY, **settings: Any) -> Any:
        """Return a new replay, or one that goes on with what is at the path."""
        settings = {"commit_interval": 1e9, **self.layout, **settings}
        return self.draws.kind(capacity, path=path, access=self.access, **settings)

    def open(self, path: Path, **settings: Any) -> Any:
        """Return a replay that goes on with what is at the path, as that says."""
        return diskreplay.open(path, access=self.access, commit_interval=1e9, **settings)

    @contextlib.contextmanager
    def filled(self, path: Path, seed: int = 5, **settings: Any) -> Iterator[Any]:
        """Give a replay to which COUNT transitions were pushed, with their numbers as x."""
        with self.make(path, seed=seed, **settings) as replay:
            given = self.draws.given(priorities_of(range(COUNT)))
            replay.extend(**columns(0, COUNT), x=np.arange(COUNT), **given)
            self.settle(replay)
            yield replay

    def settle(self, replay: Any) -> None:
        """Make what was pushed and updated visible to the replay itself."""

    def capacity_near(self, capacity: int) -> int:
        """Return a capacity that this kind can have."""
        return capacity

    def ids(self, first: int, n: int) -> list[int]:
        """Return what `push` and `extend` return for n transitions from a write id on."""
        return list(range(first, first + n))

    def load(self, replay: Any, path: Path) -> None:
        """Replace the contents by those of a saved store, if this kind does so."""
        replay.load(path)


class Shared(Exclusive):
    """A buffer that writes beside others: a push is visible and has a write id once committed."""

    access = "shared"

    def settle(self, replay: Any) -> None:
        """Commit."""
        replay.flush()

    def ids(self, first: int, n: int) -> list[int]:
        """Return n times -1, as no write id is given before the commit."""
        return [-1] * n

    def load(self, replay: Any, path: Path) -> None:
        """Replace nothing: others work with the contents."""


class Read(Exclusive):
    """A buffer that follows what a process beside it has committed."""

    @contextlib.contextmanager
    def filled(self, path: Path, seed: int = 5, **settings: Any) -> Iterator[Any]:
        """Give a reader beside the writer, in a process of its own, that pushed."""
        with Other(path) as writer:
            writer.open(CAPACITY, kind=self.draws.kind.__name__, seed=seed, **self.layout)
            given = self.draws.given(priorities_of(range(COUNT)))
            writer.extend(0, COUNT, x=np.arange(COUNT), **given)
            writer.flush()
            with diskreplay.open(path, access="read", seed=seed, **settings) as replay:
                yield replay


class OverShards(Shared):
    """A replay over two shards of Ray: rows go round, so write ids are those of one buffer."""

    opened: ClassVar[dict[Path, dict[str, Any]]] = {}  # the arguments by path
    # Tests of the one store at a path; tests/adapters/test_ray_shards.py has their counterparts.
    skipped: ClassVar[tuple[str, ...]] = (
        "test_stats_is_plain_and_tells_the_same_as_the_rest",
        "test_a_saved_copy_holds_the_same",
        "test_reopening_goes_on",
        "test_flush_makes_a_commit_that_all_can_read",
        "test_of_two_openings_in_one_process_the_second_is_refused",
    )

    def capacity_near(self, capacity: int) -> int:
        """Return the next multiple of the number of shards."""
        return capacity + capacity % 2

    def make(self, path: Path, capacity: int = CAPACITY, **settings: Any) -> Any:
        """Return a new replay, or one that goes on with what is at the path."""
        settings = {"commit_interval": 1e9, **self.layout, **settings}
        self.opened[path] = self.opened[path.parent] = {"capacity": capacity, **settings}
        return self.draws.kind(2, directory=path, spread="rows", **self.opened[path])

    def open(self, path: Path, **settings: Any) -> Any:
        """Return a replay with the arguments that the path, or one beside it, was made with."""
        known = self.opened.get(path, self.opened.get(path.parent, {}))
        return self.draws.kind(2, directory=path, spread="rows", **{**known, **settings})


class Limited(Exclusive):
    """A buffer within a limiter that counts, and lets everything through."""

    def make(self, path: Path, capacity: int = CAPACITY, **settings: Any) -> Any:
        """Return a new replay, or one that goes on with what is at the path."""
        return self._limited(super().make(path, capacity, **settings))

    def open(self, path: Path, **settings: Any) -> Any:
        """Return a replay that goes on with what is at the path, as that says."""
        return self._limited(super().open(path, **settings))

    def _limited(self, replay: Any) -> Any:
        return RateLimited(replay, min_size=0, samples_per_insert=2.0, tolerance=1e12, timeout=0)


LIMITER = frozenset(["rate_limiter"])


class Remote(Shared):
    """A client of a server, with an exclusive buffer behind it."""

    access = "exclusive"

    def make(self, path: Path, capacity: int = CAPACITY, **settings: Any) -> Any:
        """Return a client of a new buffer, or of one that goes on with what is at the path."""
        return self._served(super().make(path, capacity, **settings))

    def open(self, path: Path, **settings: Any) -> Any:
        """Return a client of a buffer that goes on with what is at the path, as that says."""
        return self._served(super().open(path, **settings))

    def _served(self, buffer: Any) -> Any:
        from served import served

        return served(buffer)


LOG = {"observations": "log"}
UNIFORM_WRITERS = [
    Exclusive("uniform", Uniform()),
    Shared("shared uniform", Uniform()),
    Exclusive("uniform with a log", Uniform(), LOG),
    Limited("limited uniform", Uniform(more_stats=LIMITER)),
]
PRIORITIZED_WRITERS = [
    Exclusive("prioritized", Prioritized()),
    Shared("shared prioritized", Prioritized()),
    Shared("shared prioritized with a log", Prioritized(), LOG),
    Limited("limited prioritized", Prioritized(more_stats=Prioritized.more_stats | LIMITER)),
]
PRIORITIZED = [
    *PRIORITIZED_WRITERS,
    Read("read prioritized", Prioritized()),
    Read("read prioritized with a log", Prioritized(), LOG),
]
if all(map(importlib.util.find_spec, ("pyarrow", "prometheus_client"))):
    clients = frozenset({"clients"})
    UNIFORM_WRITERS.append(Remote("remote uniform", Uniform(more_stats=clients)))
    remote = Prioritized(more_stats=Prioritized.more_stats | clients)
    PRIORITIZED_WRITERS.append(Remote("remote prioritized", remote))
    PRIORITIZED.append(PRIORITIZED_WRITERS[-1])
    PRIORITIZED.append(Remote("remote prioritized with a log", remote, LOG))
if os.environ.get("DISKREPLAY_TEST_RAY"):  # asked for, as its processes take seconds to start
    from sharded import PrioritizedSharded, Sharded

    own = {"n_shards", "shards", "away", "outages", "waiting_rows", "missed_updates"}
    UNIFORM_WRITERS.append(OverShards("sharded uniform", Uniform(Sharded, frozenset(own))))
    more = Prioritized.more_stats | own
    sharded = OverShards("sharded prioritized", Prioritized(PrioritizedSharded, more))
    PRIORITIZED_WRITERS.append(sharded)
    PRIORITIZED.append(sharded)
WRITERS = [*UNIFORM_WRITERS, *PRIORITIZED_WRITERS]
REPLAYS = [*UNIFORM_WRITERS, Read("read uniform", Uniform()), *PRIORITIZED]
