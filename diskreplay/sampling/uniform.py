"""The uniform sampler: the methods of samplers.py where there are no priorities."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from diskreplay.errors import PriorityError, SampleError
from diskreplay.sampling.priorities import Ints, Priorities
from diskreplay.wording import count_of


class UniformSampler:
    """Draws live write ids with equal probability, without duplicates in a batch."""

    def __init__(self) -> None:
        self._left_out: Ints = np.zeros(0, np.int64)

    def sibling(self, capacity: int) -> UniformSampler:
        """Return an empty sampler of the same settings for another capacity."""
        return UniformSampler()

    def accept(self, priorities: ArrayLike | None, n: int) -> Priorities | None:
        """Return the priorities of n new transitions as `hold` takes them, or raise."""
        if priorities is not None:
            raise PriorityError(
                "a ReplayBuffer draws uniformly and keeps no priorities: leave them out, or use a "
                "PrioritizedReplayBuffer"
            )
        return None

    def hold(self, first: int, n: int, priorities: Priorities | None) -> None:
        """Take note of n write ids from `first` on that are about to be live."""

    def update(self, write_ids: Ints, priorities: Priorities, first: int, count: int) -> int:
        """Set no priorities: there are none."""
        return 0

    def raise_largest(self, priorities: Priorities) -> None:
        """Take no note of priorities."""

    def draw(
        self, n: int, first: int, count: int, generator: np.random.Generator
    ) -> tuple[Ints, float]:
        """Return n write ids, and the probability of each.

        Raises SampleError when there are not as many that may be drawn.
        """
        out = self._left_out[self._left_out >= first]
        left = count - first - out.size
        if n > left:
            raise SampleError(
                f"cannot draw {count_of(n, 'transition')} of {count - first}, of which damaged: "
                f"{out.size}"
            )
        chosen = generator.choice(left, n, replace=False)
        passed = np.searchsorted(out - first - np.arange(out.size), chosen, side="right")
        return first + chosen + passed, 1.0 / left

    def total_mass(self, first: int, count: int) -> float:
        """Return the number of those that may be drawn: each has a mass of one."""
        return float(count - first - np.count_nonzero(self._left_out >= first))

    def advance(self, draws: int) -> None:
        """Count draws."""

    def leave_out(self, write_ids: Ints, first: int, count: int) -> None:
        """Never draw these again."""
        self._left_out = np.union1d(self._left_out, write_ids)

    def distrust(self) -> None:
        """Build what depends on the live write ids again before it is used."""

    def clear(self, count: int) -> None:
        """Forget all write ids below `count`."""

    def merge(
        self,
        stored: Mapping[str, Any],
        read: Callable[[list[int]], Mapping[int, bytes]],
        first: int,
        count: int,
        write_ids: Ints,
        priorities: Priorities,
        given: Priorities,
    ) -> tuple[dict[str, Any], dict[int, bytes]]:
        """Return a stored state and stored blocks with priorities laid over them."""
        return {}, {}

    def state(self) -> dict[str, Any]:
        """Return, as plain data, what a commit must hold beside the priority blocks."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned."""

    def dirty_blocks(self, first: int, count: int) -> Mapping[int, bytes]:
        """Return the priority blocks that differ from those last committed, by block number."""
        return {}

    def committed(self, blocks: Iterable[int]) -> None:
        """Take note that these blocks are committed as they are."""

    def load_blocks(self, blocks: Mapping[int, bytes], first: int, count: int) -> None:
        """Take over priority blocks as a commit wrote them."""

    def live_blocks(self, first: int, count: int) -> list[int]:
        """Return the numbers of the blocks that hold live slots."""
        return []

    def live_priorities(self, first: int, count: int) -> Priorities | None:
        """Return the priorities of [first, count), if the sampler keeps any."""
        return None

    def check(self, first: int, count: int) -> None:
        """Raise DamageError when the structures in memory disagree with each other."""

    @property
    def nbytes(self) -> int:
        """The memory that the sampler takes, in bytes."""
        return 0
