"""n-step returns: the discounted rewards of transitions that follow each other, summed.

Source: Sutton and Barto, Reinforcement Learning, 2nd edition, section 7.1; with a replay buffer
Hessel et al., Rainbow, AAAI 2018.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from diskreplay.aliases import Array, Ints
from diskreplay.episodes.links import Links
from diskreplay.live_range import LiveRange
from diskreplay.validation import MAX_COUNT, real_number, whole_number


def chains(
    links: Links,
    write_ids: Ints,
    length: int,
    live: LiveRange,
    *,
    across: bool = False,
    without: Collection[int] = (),
) -> Ints:
    """Return the write ids that follow each live one, int64 (n, length), -1 after the end.

    The first of each row is the write id itself. A chain ends with the episode, and at the newest
    transition of its env. Cost: O(n * length).

    across:   go on into the next episode of the same env
    without:  write ids before which a chain ends
    """
    found = _followed(links, write_ids, length, live, across=across, without=without)
    found[1:][found[1:] == found[:-1]] = -1
    return found.T


def _followed(
    links: Links,
    write_ids: Ints,
    length: int,
    live: LiveRange,
    *,
    across: bool = False,
    without: Collection[int] = (),
) -> Ints:
    """Return chains as int64 (length, n); after the end of one its last write id stands again."""
    found = np.empty((length, write_ids.size), np.int64)
    found[0] = last = write_ids
    for step in range(1, length):
        distances = links.distances(last, live, across=across)
        if without:
            distances[np.isin(last + distances, list(without))] = 0
        if not np.count_nonzero(distances):
            found[step:] = last
            break
        # A chain that has ended has the same last one at each further step: it ends again.
        last = np.add(last, distances, out=found[step])
    return found


class Chains(NamedTuple):
    """The transitions whose rewards are summed for each of n.

    write_ids:  int64 (steps, n); after the end of a chain its last one stands again
    lengths:    int64 (n,)
    """

    write_ids: Ints
    lengths: Ints

    @classmethod
    def of(
        cls,
        links: Links,
        write_ids: Ints,
        steps: int,
        live: LiveRange,
        without: Collection[int] = (),
    ) -> Chains:
        """Return the chains that begin with some live write ids, see `chains`."""
        found = _followed(links, write_ids, steps, live, without=without)
        lengths = np.add.reduce(found[1:] != found[:-1], axis=0, dtype=np.int64)
        lengths += 1
        return cls(found, lengths)

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
        """Return the type of sums of rewards of a type: float32, or the same float64 or complex."""
        is_kept = rewards == np.float64 or rewards.kind == "c"
        return rewards if is_kept else np.dtype(np.float32)

    def returns(self, rewards: Array, lengths: Ints) -> Array:
        """Return the discounted sum of the first `lengths` rewards of each chain.

        rewards:  (steps, n), and further axes where a reward has a shape
        """
        is_counted = self._numbers[: len(rewards)] < lengths
        is_counted = is_counted.reshape(is_counted.shape + (1,) * (rewards.ndim - 2))
        counted = np.multiply(rewards, is_counted, dtype=np.result_type(rewards, np.float64))
        found: Array = counted[-1]
        for of_step in counted[-2::-1]:  # no sum of numpy, whose order may vary with n
            found *= self.gamma
            found += of_step
        return found

    def discounts(self, lengths: Ints) -> NDArray[np.float32]:
        """Return gamma ** length of each chain."""
        return self._powers[lengths]

    @cached_property
    def _numbers(self) -> Ints:
        return np.arange(self.steps)[:, None]

    @cached_property
    def _powers(self) -> NDArray[np.float32]:
        powers: NDArray[np.float32] = (self.gamma ** np.arange(self.steps + 1)).astype(np.float32)
        return powers
