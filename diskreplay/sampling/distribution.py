"""Distribution: which transitions a buffer draws, and how often; Sampler: the draws of one buffer.

Each distribution is a frozen dataclass, in one file with its sampler.
"""

from __future__ import annotations

import abc
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from diskreplay.aliases import Floats, Ints
from diskreplay.errors import ArgumentError
from diskreplay.live_range import LiveRange
from diskreplay.sampling.draw_counts import DrawCounts
from diskreplay.sampling.priorities import Priorities
from diskreplay.sampling.prioritized import PrioritySettings
from diskreplay.sampling.random_stream import DrawGenerator
from diskreplay.wording import shown


class Sampler(Protocol):
    """Draws write ids of a live range, without reading transitions."""

    @property
    def replaces(self) -> bool:
        """Whether a batch may hold a write id twice; if not, each has a mass of 1.0."""

    def draw(self, n: int, live: LiveRange, generator: DrawGenerator) -> tuple[Ints, Floats]:
        """Return n write ids and the probability of each."""

    def total_mass(self, live: LiveRange) -> float:
        """Return the sum of the masses."""

    def leave_out(self, write_ids: Ints, live: LiveRange) -> None:
        """Draw these write ids no more."""

    def readmit(self) -> None:
        """Draw all write ids again: those left out were given to other transitions."""


class KnownRuns(Protocol):
    """Tells which write ids are known to be of a run."""

    def of(self, numbers: Iterable[int]) -> list[tuple[int, int]]:
        """Return the ranges [first, end) of some runs, ascending."""


@dataclass
class DrawBasis:
    """The parts of a buffer that its draws may follow.

    priorities:  None in a uniform buffer
    runs:        set at each load, for a distribution that needs it
    counts:      in the buffer of a lone writer, for a distribution that needs them
    """

    priorities: Priorities | None = None
    runs: KnownRuns | None = None
    counts: DrawCounts | None = None

    def priorities_for(self, distribution: Distribution) -> Priorities:
        """Return the priorities, or raise ArgumentError for a distribution that needs them."""
        if self.priorities is None:
            raise ArgumentError(f"{distribution} needs a PrioritizedReplayBuffer")
        return self.priorities


class Distribution(abc.ABC):
    """A distribution of draws, chosen when a buffer is opened; it may be shared by buffers."""

    needs_priorities = False
    needs_runs = False
    needs_counts = False

    def counts(self, slots: int) -> DrawCounts | None:
        """Return a new table of the draws of each slot, for a distribution that needs it."""
        return None

    def table(self, slots: int, settings: PrioritySettings) -> Priorities:
        """Return a new table of priorities for draws with this distribution."""
        return Priorities(slots, alpha=settings.alpha, epsilon=settings.epsilon)

    @abc.abstractmethod
    def sampler(self, basis: DrawBasis) -> Sampler:
        """Return a sampler of a buffer."""


def checked_distribution(value: Any) -> Distribution | None:
    """Return a distribution, or None, or raise ArgumentError for anything else."""
    if value is None or isinstance(value, Distribution):
        return value
    raise ArgumentError(
        "sampler must be one of diskreplay.samplers, such as diskreplay.samplers.Newest(10_000), "
        f"or None (found {shown(value)})"
    )
