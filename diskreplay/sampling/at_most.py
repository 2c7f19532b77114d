"""AtMost: no transition is drawn more than a number of times."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diskreplay.aliases import Floats, Ints
from diskreplay.errors import SampleError
from diskreplay.live_range import LiveRange
from diskreplay.sampling.distribution import Distribution, DrawBasis, Sampler
from diskreplay.sampling.draw_counts import DrawCounts
from diskreplay.sampling.random_stream import DrawGenerator
from diskreplay.validation import whole_number
from diskreplay.wording import count_of


@dataclass(frozen=True)
class AtMost(Distribution):
    """Draw a transition at most `times` times, and then no more.

    Uniformly among the transitions that have draws left, without duplicates in a batch. Raises
    SampleError where fewer than a batch have. A prioritized buffer keeps its priorities, and these
    draws do not follow them. Cost: O(n log capacity), and 28 bytes a slot. Reverb calls the number
    max_times_sampled.

    The store keeps the counts, in the commit that keeps the number of the draw. So a killed run
    that goes on gets again, with the same draws, the batches after its last commit, and no
    transition is in more than `times` batches of the run that this makes. Needs
    access="exclusive": only a lone writer can count. Counting begins anew after an opening for
    writing without this sampler, and in the stores that repair, compact, resize, convert and merge
    make. A batch that is drawn ahead, and dropped, does not count; one that met a damaged record
    does. Of sequences the starts count, with pad=False all that were tried last.

    >>> from diskreplay import samplers
    >>> buffer = ReplayBuffer(capacity=100, sampler=samplers.AtMost(2))
    >>> ids = buffer.extend([[0.0]] * 3, [0] * 3, [1.0] * 3, [[0.0]] * 3, [False] * 3)
    >>> sorted(i for step in range(2) for i in buffer.sample(3).indices.tolist())
    [0, 0, 1, 1, 2, 2]
    >>> buffer.total_mass  # no transition has draws left
    0.0

    times:  at least 1
    """

    times: int
    needs_counts = True

    def __post_init__(self) -> None:
        times = whole_number("times", self.times, at_least=1, at_most=2**30)
        object.__setattr__(self, "times", times)

    def counts(self, slots: int) -> DrawCounts:
        """Return a new table of the draws of each slot."""
        return DrawCounts(slots, self.times)

    def sampler(self, basis: DrawBasis) -> Sampler:
        """Return a sampler of a buffer."""
        return AtMostSampler(self, basis.counts)


class AtMostSampler:
    """Draws write ids that have draws left."""

    replaces = False

    def __init__(self, distribution: AtMost, counts: DrawCounts | None) -> None:
        self._distribution = distribution
        self._counts = counts

    def draw(self, n: int, live: LiveRange, generator: DrawGenerator) -> tuple[Ints, Floats]:
        """Return n write ids and the probability of each, float64 (n,).

        Asked again in the same draw, for want of rows that can be used, it takes the n before back.

        Raises SampleError if fewer have draws left, and in a buffer that only reads.
        """
        counts = self._counts
        if counts is None:
            raise SampleError(
                f"the sampler {self._distribution} counts draws, which a buffer that only reads "
                "cannot keep: read with get(), or open the store with another sampler"
            )
        counts.take_back(generator.number, live)
        tree = counts.tree(live)
        left = int(tree.total_priority)
        if n > left:
            raise SampleError(
                f"cannot draw {count_of(n, 'transition')} of {live.size}: {left:,} have draws left "
                f"with the sampler {self._distribution}; push others, or draw fewer"
            )
        slots, _ = tree.find(generator.choice(left, n, replace=False) + 0.5)
        write_ids = live.newest_ids(slots)
        counts.take(generator.number, write_ids, live)
        probabilities = np.empty(n)
        probabilities.fill(1.0 / left)
        return write_ids, probabilities

    def total_mass(self, live: LiveRange) -> float:
        """Return the number of write ids that have draws left: each has a mass of 1.0."""
        return self._counts.tree(live).total_priority if self._counts else 0.0

    def leave_out(self, write_ids: Ints, live: LiveRange) -> None:
        """Draw these write ids no more."""
        if self._counts is not None:
            self._counts.leave_out(write_ids, live)

    def readmit(self) -> None:
        """Do nothing: the table of counts, which knows what is left out, is cleared."""
