"""Recent: recent transitions are drawn more often than old ones."""

from __future__ import annotations

from dataclasses import dataclass
from math import log

import numpy as np

from diskreplay.aliases import Floats, Ints
from diskreplay.live_range import LiveRange
from diskreplay.sampling.distribution import Distribution, DrawBasis
from diskreplay.sampling.drawable import Drawable
from diskreplay.sampling.prioritized import strata
from diskreplay.validation import real_number

_BELOW_ONE = float(np.nextafter(1.0, 0.0))


@dataclass(frozen=True)
class Recent(Distribution):
    """Draw a transition half as often for each `half_life` of transitions written after it.

    P(i) is in proportion to 0.5 ** (age / half_life), with age 0 for the newest, 1 for the one
    before it, and so on. Batches are stratified, with replacement. A prioritized buffer keeps its
    priorities, and these draws do not follow them. Cost: O(n).

    Emphasis on recent experience: Wang & Ross, Boosting Soft Actor-Critic: Emphasizing Recent
    Experience without Forgetting the Past, 2019. They draw uniformly from a window that shrinks
    over the updates of an episode; here all live transitions can be drawn, and the store keeps
    nothing more.

    >>> from diskreplay import samplers
    >>> buffer = ReplayBuffer(capacity=100, sampler=samplers.Recent(half_life=1))
    >>> ids = buffer.extend([[0.0]] * 2, [0] * 2, [1.0] * 2, [[0.0]] * 2, [False] * 2)
    >>> indices, probabilities = buffer.draw(2)
    >>> np.allclose(probabilities, (1 + indices) / 3)
    True

    half_life:  in transitions, at least 1e-6
    """

    half_life: float

    def __post_init__(self) -> None:
        checked = real_number("half_life", self.half_life, low=1e-6, high=2.0**62)
        object.__setattr__(self, "half_life", checked)

    def sampler(self, basis: DrawBasis) -> RecentSampler:
        """Return a sampler."""
        return RecentSampler(self.half_life)


class RecentSampler:
    """Draws write ids with a probability that halves with each `half_life` of age."""

    replaces = True

    def __init__(self, half_life: float) -> None:
        self._decay = log(2.0) / half_life  # for each write id
        self._newest = -np.expm1(-self._decay)  # the mass of the newest that can be drawn
        self._drawable = Drawable()

    def draw(self, n: int, live: LiveRange, generator: np.random.Generator) -> tuple[Ints, Floats]:
        """Return n write ids, one from each of n equal shares of the total, and their P(i).

        Raises SampleError if none can be drawn.
        """
        ranges = self._drawable.at_least(1, live)
        firsts, ends = ranges.firsts[::-1], ranges.ends[::-1]  # from the newest on
        masses = self._masses(firsts, ends)
        sums = masses.cumsum()
        values = strata(n, generator) * (sums[-1] / n)
        last = np.count_nonzero(masses) - 1  # the oldest may be too small for a float64
        at = np.minimum(sums.searchsorted(values, side="right"), last)
        rests = (values - (sums - masses)[at]) / masses[at]  # [0, 1] of the range
        # The share of the mass of a range that is in its newest k write ids is
        # (1 - exp(-k * decay)) / (1 - exp(-size * decay)).
        sizes = (ends - firsts)[at]
        inside = np.clip(rests, 0.0, _BELOW_ONE) * np.expm1(-self._decay * sizes)
        places = np.minimum(np.log1p(inside) / -self._decay, sizes - 1).astype(np.int64)
        write_ids = ends[at] - 1 - places
        ages = ends[0] - 1 - write_ids
        return write_ids, self._newest * np.exp(-self._decay * ages) / sums[-1]

    def total_mass(self, live: LiveRange) -> float:
        """Return the sum of the masses; the newest transition that can be drawn has 1.0."""
        ranges = self._drawable.of(live)
        return float(self._masses(ranges.firsts[::-1], ranges.ends[::-1]).sum() / self._newest)

    def leave_out(self, write_ids: Ints, live: LiveRange) -> None:
        """Draw these write ids no more."""
        self._drawable.leave_out(write_ids)

    def readmit(self) -> None:
        """Draw all write ids again."""
        self._drawable.readmit()

    def _masses(self, firsts: Ints, ends: Ints) -> Floats:
        """Return the masses of ranges [first, end), the newest first."""
        ages = ends[:1] - ends
        masses: Floats = -np.exp(-self._decay * ages) * np.expm1(-self._decay * (ends - firsts))
        return masses
