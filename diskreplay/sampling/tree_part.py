"""TreePart: some spans of the slots of a sum-tree, to find leaves in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from diskreplay.aliases import Floats, Ints


class TreePart:
    """Spans of slots, as the fewest nodes of the tree that cover them exactly.

    No sum is a difference of others, which would lose the digits of a small part of a large tree,
    and no leaf outside of the spans can be found. Slots 1 to 6 of 8 are four nodes::

        level 2                       .               .
        level 1                   .      [X]     [X]      .
        level 0                 .  [X]  .   .   .   .  [X]  .

    Cost: O(log capacity) for each span.
    """

    def __init__(self, levels: Sequence[Floats], spans: Iterable[slice]) -> None:
        nodes = [node for span in spans for node in _cover(span.start, span.stop)]
        sums = np.array([levels[height][number] for height, number in nodes])
        places = np.array(nodes, np.int64).reshape(-1, 2)[sums > 0.0]
        self._levels = levels
        self._heights, self._numbers = places[:, 0], places[:, 1]
        self._sums = sums[sums > 0.0]
        self._ends = self._sums.cumsum()

    @property
    def total_priority(self) -> float:
        """The sum of the masses."""
        return float(self._ends[-1]) if self._ends.size else 0.0

    def find(self, values: Floats) -> tuple[Ints, Floats]:
        """Return (slots, masses) of the leaves that cover values in [0, total_priority).

        The leaves of the spans are laid end to end; every mass is above zero. The total must
        be above zero. Cost: O(n log capacity), vectorised.
        """
        at = np.minimum(self._ends.searchsorted(values, side="right"), self._ends.size - 1)
        rests = values - (self._ends - self._sums)[at]
        heights, slots = self._heights[at], self._numbers[at]
        for height in range(int(heights.max(initial=0)), 0, -1):
            below = self._levels[height - 1]
            is_here = heights >= height
            left, right = below.take(2 * slots, mode="clip"), below.take(2 * slots + 1, mode="clip")
            # A rest may be outside of its node by the last bit: then an empty leaf is not entered.
            is_right = (right > 0.0) & ((rests >= left) | (left == 0.0)) & is_here
            rests = rests - left * is_right
            slots = np.where(is_here, 2 * slots + is_right, slots)
        return slots, self._levels[0][slots]


def _cover(begin: int, end: int) -> list[tuple[int, int]]:
    """Return the fewest nodes that cover the slots [begin, end), as (height, number), in order."""
    at_left: list[tuple[int, int]] = []
    at_right: list[tuple[int, int]] = []
    height = 0
    while begin < end:
        if begin % 2:
            at_left.append((height, begin))
            begin += 1
        if end % 2:
            end -= 1
            at_right.append((height, end))
        begin, end, height = begin // 2, end // 2, height + 1
    return at_left + at_right[::-1]
