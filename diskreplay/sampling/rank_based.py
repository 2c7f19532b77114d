"""RankBased: draws by the rank of a priority among all, not by its size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diskreplay.aliases import Floats, Ints
from diskreplay.errors import SampleError
from diskreplay.live_range import LiveRange
from diskreplay.sampling.distribution import Distribution, DrawBasis, Sampler
from diskreplay.sampling.priorities import Priorities
from diskreplay.sampling.prioritized import PrioritySettings, strata
from diskreplay.sampling.rank_tree import RankTree
from diskreplay.validation import real_number

_FIRST = 1024  # ranks whose shares are added up one by one


@dataclass(frozen=True)
class RankBased(Distribution):
    """Draw in proportion to 1 / rank ** alpha, where the largest priority has rank 1.

    Outliers do not matter: a priority of 1e9 is drawn no more often than one of 2.0, if both are
    the largest. Source: Schaul et al., Prioritized Experience Replay, ICLR 2016, section 3.3.
    Batches are stratified, with replacement, from n segments of equal probability, as there. Needs
    a PrioritizedReplayBuffer, whose own alpha is not used.

    Priorities that agree in the exponent and the first five bits of a float (they differ by 1/32 at
    most) are a tie, and share the probability of their ranks evenly, as new transitions do, which
    all have the largest priority. So are all below 2 ** -32, and all above 2 ** 32. The paper's
    sorted array, which is renewed now and then, would make draws depend on when that was: these
    follow from the priorities at the draw alone. Cost: O(n log capacity), about six times that of
    the draws by size, and up to 6 bytes a slot.

    >>> from diskreplay import samplers
    >>> buffer = PrioritizedReplayBuffer(capacity=8, sampler=samplers.RankBased(alpha=1.0))
    >>> ids = buffer.extend([[0.0]] * 2, [0] * 2, [1.0] * 2, [[0.0]] * 2, [0] * 2, [1e9, 5.0])
    >>> indices, probabilities = buffer.draw(2)
    >>> np.allclose(probabilities, np.where(indices == 0, 2 / 3, 1 / 3))
    True

    alpha:  in [0, 10]; 0 draws uniformly. The paper takes 0.7
    """

    alpha: float = 0.7
    needs_priorities = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "alpha", real_number("alpha", self.alpha, low=0.0, high=10.0))

    def table(self, slots: int, settings: PrioritySettings) -> Priorities:
        """Return a table of priorities with the tree of the ranks."""
        return Priorities(slots, alpha=1.0, epsilon=settings.epsilon, tree=RankTree)

    def sampler(self, basis: DrawBasis) -> Sampler:
        """Return a sampler of a prioritized buffer."""
        return RankBasedSampler(basis.priorities_for(self), self.alpha)


class RankBasedSampler:
    """Draws write ids with a probability that falls with their rank."""

    replaces = True

    def __init__(self, priorities: Priorities, alpha: float) -> None:
        self._priorities = priorities
        self._alpha = alpha
        # Of the ranks above each, added up from the smallest on: so small differences are exact.
        masses = np.arange(1.0, _FIRST + 1) ** -alpha
        self._rest: Floats = np.append(masses[::-1].cumsum()[::-1], 0.0)

    def draw(self, n: int, live: LiveRange, generator: np.random.Generator) -> tuple[Ints, Floats]:
        """Return n write ids, one from each of n segments of equal probability, and their P(i)."""
        tree = self._tree(live)
        classes, sizes, masses = self._classes(tree)
        if not classes.size:
            raise SampleError("nothing to draw: no transition that can be drawn is live")
        ends = masses.cumsum()
        values = strata(n, generator) * (ends[-1] / n)
        at = np.minimum(ends.searchsorted(values, side="right"), ends.size - 1)
        places = (values - (ends - masses)[at]) / masses[at] * sizes[at]
        places = np.clip(places.astype(np.int64), 0, sizes[at] - 1)
        slots = tree.find_in_classes(classes[at], places)
        return live.newest_ids(slots), (masses / sizes)[at] / ends[-1]

    def total_mass(self, live: LiveRange) -> float:
        """Return the sum of the masses, 1 / rank ** alpha."""
        return float(self._classes(self._tree(live))[2].sum())

    def leave_out(self, write_ids: Ints, live: LiveRange) -> None:
        """Draw these write ids no more."""
        self._priorities.leave_out(write_ids, live)

    def readmit(self) -> None:
        """Do nothing: the table of priorities, which knows what is left out, is cleared."""

    def _tree(self, live: LiveRange) -> RankTree:
        self._priorities.settle(live)
        tree = self._priorities.tree
        if not isinstance(tree, RankTree):
            raise TypeError("the table of priorities was made without ranks")
        return tree

    def _classes(self, tree: RankTree) -> tuple[Ints, Ints, Floats]:
        """Return the classes in use, largest first, their sizes, and the sums of their masses."""
        sizes = tree.class_sizes()
        classes = np.flatnonzero(sizes)[::-1]
        sizes = sizes[classes]
        ends = sizes.cumsum()
        return classes, sizes, self._masses(ends - sizes, ends)

    def _masses(self, begins: Ints, ends: Ints) -> Floats:
        """Return the sums of the masses of the ranks above `begins`, up to `ends`."""
        few = self._rest[np.minimum(begins, _FIRST)] - self._rest[np.minimum(ends, _FIRST)]
        # The sum of many is an integral with two corrections (Euler and Maclaurin): as exact as the
        # others from rank 1024 on.
        low, high = np.maximum(begins, _FIRST).astype(float), np.maximum(ends, _FIRST).astype(float)
        rest, ratio = 1.0 - self._alpha, np.log1p((high - low) / low)
        area = ratio if rest == 0.0 else low**rest * np.expm1(rest * ratio) / rest
        at_low, at_high = low**-self._alpha, high**-self._alpha
        slope = self._alpha * (at_low / low - at_high / high)
        found: Floats = few + area + (at_high - at_low) / 2.0 + slope / 12.0
        return found
