"""PrioritizedSampler: draw write ids in proportion to their masses; importance weights.

Source: Schaul et al., Prioritized Experience Replay, ICLR 2016.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from diskreplay.aliases import Floats, Ints
from diskreplay.errors import ArgumentError, SampleError
from diskreplay.live_range import LiveRange, slot_spans
from diskreplay.sampling.drawable import Restriction
from diskreplay.sampling.priorities import MAX_PRIORITY, Priorities
from diskreplay.sampling.sum_tree import SumTree
from diskreplay.sampling.tree_part import TreePart
from diskreplay.validation import real_number, real_numbers, whole_number

_WHY_ALPHA = ": 1 is full proportion; to draw the largest more often, give powers of priorities"
_WHY_EPSILON = ": with 0 a transition of priority 0 would never be drawn; give a small one"


@dataclass(frozen=True)
class PrioritySettings:
    """The numbers of a prioritized buffer that may change from run to run.

    Raises ArgumentError for a number out of its range.
    """

    alpha: float = 0.6
    beta_start: float = 0.4
    beta_end: float = 1.0
    beta_frames: int = 100_000
    epsilon: float = 1e-6

    def __post_init__(self) -> None:
        checked = {
            "alpha": real_number("alpha", self.alpha, low=0.0, high=1.0, why=_WHY_ALPHA),
            "beta_start": real_number("beta_start", self.beta_start, low=0.0, high=1.0),
            "beta_end": real_number("beta_end", self.beta_end, low=0.0, high=1.0),
            "beta_frames": whole_number("beta_frames", self.beta_frames, at_least=1, at_most=2**53),
            "epsilon": real_number(
                "epsilon", self.epsilon, low=0.0, high=MAX_PRIORITY, above=True, why=_WHY_EPSILON
            ),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    @classmethod
    def names(cls) -> list[str]:
        """Return the names of the settings."""
        return [field.name for field in fields(cls)]

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> PrioritySettings:
        """Return the settings that a mapping has, with defaults for missing ones."""
        return cls(**{name: settings[name] for name in cls.names() if name in settings})

    def to_plain(self) -> dict[str, Any]:
        """Return the settings by name."""
        return asdict(self)

    def beta(self, frame: int) -> float:
        """Return the exponent of the importance weights after `frame` batches."""
        progress = min(1.0, frame / self.beta_frames)
        return self.beta_start + progress * (self.beta_end - self.beta_start)


class PrioritizedSampler:
    """Draws write ids with probability `mass / total`, stratified, with replacement.

    restriction:  the total is then that of the live write ids which may be drawn
    """

    replaces = True

    def __init__(self, priorities: Priorities, restriction: Restriction | None = None) -> None:
        self._priorities = priorities
        self._restriction = restriction

    def draw(self, n: int, live: LiveRange, generator: np.random.Generator) -> tuple[Ints, Floats]:
        """Return n write ids, one from each of n equal shares of the total, and their P(i)."""
        tree = self._tree(live)
        total = tree.total_priority
        if self._restriction is not None and total <= 0.0:
            raise SampleError(
                f"nothing to draw: the sampler {self._restriction} may draw none of the live write "
                f"ids [{live.first}, {live.count}), or only damaged ones; open the buffer with "
                "another sampler"
            )
        slots, masses = tree.find(strata(n, generator) * (total / n))
        return live.newest_ids(slots), masses / total

    def total_mass(self, live: LiveRange) -> float:
        """Return the sum of the masses."""
        return self._tree(live).total_priority

    def leave_out(self, write_ids: Ints, live: LiveRange) -> None:
        """Draw these write ids no more."""
        self._priorities.leave_out(write_ids, live)

    def readmit(self) -> None:
        """Do nothing: the table of priorities, which knows what is left out, is cleared."""

    def _tree(self, live: LiveRange) -> SumTree | TreePart:
        self._priorities.settle(live)
        tree = self._priorities.tree
        if self._restriction is None:
            return tree
        ranges = self._restriction.ranges(live)
        return tree.part(span for ids in ranges for span in slot_spans(*ids, live.ring_slots))


def strata(n: int, generator: np.random.Generator) -> Floats:
    """Return one random number from each of [0, 1), [1, 2) ... [n - 1, n)."""
    return np.arange(n) + generator.random(n)


def importance_weights(probabilities: ArrayLike, size: int, beta: float) -> NDArray[np.float32]:
    """Return `(size * P(i)) ** -beta`, divided by the largest of the batch, float32 (n,).

    Source: Schaul et al., Prioritized Experience Replay, ICLR 2016, section 3.4.

    >>> importance_weights(np.array([0.5, 0.25]), size=4, beta=1.0)
    array([0.5, 1. ], dtype=float32)
    """
    given = real_numbers("probabilities", probabilities)
    size = whole_number("size", size, at_least=0)
    return weights_of(given, size, real_number("beta", beta, low=0.0, high=float("inf")))


def weights_of(probabilities: Floats, size: int, beta: float) -> NDArray[np.float32]:
    """Return the result of `importance_weights` for arguments of the right types."""
    shares = size * probabilities
    if not shares.size:
        return np.zeros(shares.shape, np.float32)
    least = np.minimum.reduce(shares)
    if not least > 0.0:
        raise ArgumentError(
            f"probabilities and size must be above zero (found {probabilities.min()} and {size})"
        )
    # The smallest share has the largest weight; dividing first cannot overflow.
    weights: Floats = (shares / least) ** -beta
    return weights.astype(np.float32)
