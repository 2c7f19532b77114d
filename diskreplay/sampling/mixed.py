"""Mixed: prioritized draws, with a share of uniform ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diskreplay.aliases import Floats, Ints
from diskreplay.live_range import LiveRange
from diskreplay.sampling.distribution import Distribution, DrawBasis
from diskreplay.sampling.drawable import Drawable
from diskreplay.sampling.priorities import Priorities
from diskreplay.sampling.prioritized import strata
from diskreplay.validation import real_number


@dataclass(frozen=True)
class Mixed(Distribution):
    """Draw a share of each batch uniformly, and the rest by priority.

    P(i) = uniform / size + (1 - uniform) * mass_i / total: no transition is drawn less often than
    `uniform` of its uniform share, however small its priority. Batches are stratified, with
    replacement. Needs a PrioritizedReplayBuffer. Cost: O(n log capacity).

    >>> from diskreplay import samplers
    >>> buffer = PrioritizedReplayBuffer(capacity=8, alpha=1.0, sampler=samplers.Mixed(0.5))
    >>> ids = buffer.extend([[0.0]] * 2, [0] * 2, [1.0] * 2, [[0.0]] * 2, [0] * 2, [3.0, 0.0])
    >>> indices, probabilities = buffer.draw(2)
    >>> np.allclose(probabilities, np.where(indices == 0, 0.75, 0.25))
    True

    uniform:  the share of the uniform draws, in [0, 1]
    """

    uniform: float
    needs_priorities = True

    def __post_init__(self) -> None:
        checked = real_number("uniform", self.uniform, low=0.0, high=1.0)
        object.__setattr__(self, "uniform", checked)

    def sampler(self, basis: DrawBasis) -> MixedSampler:
        """Return a sampler of a prioritized buffer."""
        return MixedSampler(basis.priorities_for(self), self.uniform)


class MixedSampler:
    """Draws write ids by priority, and a share of them uniformly."""

    replaces = True

    def __init__(self, priorities: Priorities, uniform: float) -> None:
        self._priorities = priorities
        self._uniform = uniform
        self._drawable = Drawable()

    def draw(self, n: int, live: LiveRange, generator: np.random.Generator) -> tuple[Ints, Floats]:
        """Return n write ids, one from each of n equal shares of the mixture, and their P(i).

        Raises SampleError if none can be drawn.
        """
        self._priorities.settle(live)
        ranges = self._drawable.at_least(1, live)
        tree = self._priorities.tree
        # The first shares are those of the uniform draws, the others of those by priority.
        shares = strata(n, generator) / n
        at = n if self._uniform == 1.0 else int(shares.searchsorted(self._uniform))
        ranks = (shares[:at] / self._uniform * ranges.size).astype(np.int64)
        values = (shares[at:] - self._uniform) / (1.0 - self._uniform) * tree.total_priority
        slots, masses = tree.find(values)
        uniform_ids = ranges.ids(np.minimum(ranks, ranges.size - 1))
        write_ids = np.concatenate([uniform_ids, live.newest_ids(slots)])
        masses = np.concatenate([tree.masses(live.slots(uniform_ids)), masses])
        masses *= (1.0 - self._uniform) / tree.total_priority
        return write_ids, masses + self._uniform / ranges.size

    def total_mass(self, live: LiveRange) -> float:
        """Return the sum of the masses, as without the share of uniform draws."""
        self._priorities.settle(live)
        return self._priorities.tree.total_priority

    def leave_out(self, write_ids: Ints, live: LiveRange) -> None:
        """Draw these write ids no more."""
        self._drawable.leave_out(write_ids)
        self._priorities.leave_out(write_ids, live)

    def readmit(self) -> None:
        """Draw all write ids again; the table of priorities is cleared by itself."""
        self._drawable.readmit()
