"""TreePart: some spans of the slots of a sum-tree, to find leaves in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from diskreplay.aliases import Floats, Ints


class TreePart:
    """Spans of slots, as nodes of the tree that cover them exactly, as few as there are.

    No sum is a difference of others, which would lose the digits of a small part of a large tree,
    and no leaf outside of the spans can be found. Slots 1 to 6 of 8 are four nodes::

        level 2                       .               .
        level 1                   .      [X]     [X]      .
        level 0                 .  [X]  .   .   .   .  [X]  .

    Cost: O(log capacity) for each span.

    highest:  the highest level of nodes to take: a search among all of a level is faster than a
              descent from its parents, as long as they are not too many
    """

    def __init__(self, levels: Sequence[Floats], spans: Iterable[slice], highest: int) -> None:
        rows = [row for span in spans for row in _cover(span.start, span.stop, highest)]
        none: list[Ints] = [np.zeros(0, np.int64)]
        numbers = np.concatenate([*none, *(np.arange(begin, end) for _, begin, end in rows)])
        sums = np.concatenate([levels[0][:0], *(levels[at][begin:end] for at, begin, end in rows)])
        heights = np.repeat([at for at, _, _ in rows], [end - begin for _, begin, end in rows])
        is_used = sums > 0.0
        self._levels = levels
        self._heights, self._numbers = heights.astype(np.int64)[is_used], numbers[is_used]
        self._sums: Floats = sums[is_used]
        self._ends: Floats = self._sums.cumsum()

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


def _cover(begin: int, end: int, highest: int) -> list[tuple[int, int, int]]:
    """Return the nodes that cover the slots [begin, end), in order.

    Each element is a row of neighbours: the height, the first number and the end.
    """
    at_left: list[tuple[int, int, int]] = []
    at_right: list[tuple[int, int, int]] = []
    height = 0
    while begin < end and height < highest:
        if begin % 2:
            at_left.append((height, begin, begin + 1))
            begin += 1
        if end % 2:
            end -= 1
            at_right.append((height, end, end + 1))
        begin, end, height = begin // 2, end // 2, height + 1
    middle = [(height, begin, end)] if begin < end else []
    return at_left + middle + at_right[::-1]
