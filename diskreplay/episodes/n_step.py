"""n-step returns: the discounted rewards of transitions that follow each other, summed.

Source: Sutton and Barto, Reinforcement Learning, 2nd edition, section 7.1; with a replay buffer
Hessel et al., Rainbow, AAAI 2018.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from diskreplay.aliases import Array, Floats, Ints
from diskreplay.live_range import LiveRange
from diskreplay.validation import MAX_COUNT, real_number, whole_number


class Following(Protocol):
    """Knows which transition follows which; Links does."""

    def forward(self, write_ids: Ints, live: LiveRange, *, across: bool = False) -> Ints:
        """Return the write id after each live write id, -1 where there is none."""


def chains(
    links: Following,
    write_ids: Ints,
    length: int,
    live: LiveRange,
    *,
    across: bool = False,
    without: Collection[int] = (),
) -> Ints:
    """Return the write ids that follow each live one, int64 (length, n), -1 after the end.

    The first ones are the write ids themselves. A chain ends with the episode, and at the newest
    transition of its env. Cost: O(n * length).

    across:   go on into the next episode of the same env
    without:  write ids before which a chain ends
    """
    found = np.full((length, write_ids.size), -1)
    found[0] = last = write_ids
    columns = np.arange(write_ids.size)  # of the chains that go on
    for step in range(1, length):
        last = links.forward(last, live, across=across)
        goes_on = last >= 0
        if without:
            goes_on &= ~np.isin(last, list(without))
        if not goes_on.all():
            columns, last = columns[goes_on], last[goes_on]
            if not columns.size:
                break
        found[step, columns] = last
    return found


class Chains(NamedTuple):
    """The transitions whose rewards are summed for each of n.

    write_ids:  int64 (steps, n); after the end of a chain its last one stands again
    lengths:    int64 (n,)
    """

    write_ids: Ints
    lengths: Ints

    @classmethod
    def of(cls, found: Ints) -> Chains:
        """Return chains as the function `chains` found them."""
        # They ascend, so the largest so far is the last one.
        return cls(np.maximum.accumulate(found, axis=0), (found >= 0).sum(axis=0))

    def take(self, places: Ints) -> Chains:
        """Return the chains at some places."""
        return Chains(self.write_ids[:, places], self.lengths[places])


@dataclass(frozen=True)
class NStep:
    """The most rewards that are summed, and the discount of a step.

    Raises ArgumentError for a number out of its range.

    >>> rewards = np.array([[1.0, 1.0], [2.0, 0.0], [4.0, 0.0]])
    >>> n_step = NStep(3, gamma=0.5)
    >>> n_step.returns(rewards, np.array([3, 1])), n_step.discounts(np.array([3, 1]))
    (array([3., 1.]), array([0.125, 0.5  ], dtype=float32))
    """

    steps: int = 1
    gamma: float = 0.99

    def __post_init__(self) -> None:
        steps = whole_number("n_step", self.steps, at_least=1, at_most=MAX_COUNT)
        object.__setattr__(self, "steps", steps)
        object.__setattr__(self, "gamma", real_number("gamma", self.gamma, low=0.0, high=1.0))

    def dtype_of(self, rewards: np.dtype[Any]) -> np.dtype[Any]:
        """Return the type of sums of rewards of a type: float32, of float64 the same."""
        return rewards if rewards == np.float64 else np.dtype(np.float32)

    def returns(self, rewards: Array, lengths: Ints) -> Floats:
        """Return the discounted sum of the first `lengths` rewards of each column.

        rewards:  (steps, n)
        """
        counted = np.where(np.arange(len(rewards))[:, None] < lengths, rewards, np.float64(0.0))
        found: Floats = counted[-1]
        for of_step in counted[-2::-1]:  # no sum of numpy, whose order may vary with n
            found = found * self.gamma + of_step
        return found

    def discounts(self, lengths: Ints) -> NDArray[np.float32]:
        """Return gamma ** length of each chain."""
        powers: NDArray[np.float32] = (self.gamma ** np.arange(self.steps + 1)).astype(np.float32)
        return powers[lengths]
