"""Drawable: the live write ids that a sampler may draw, as ranges between those left out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np

from diskreplay.aliases import Ints
from diskreplay.errors import SampleError
from diskreplay.live_range import LiveRange
from diskreplay.wording import count_of


class Restriction(Protocol):
    """Says to which live write ids draws are restricted."""

    def ranges(self, live: LiveRange) -> Iterable[tuple[int, int]]:
        """Return live ranges [first, end), none of them empty, ascending, apart."""


class IdRanges:
    """Ascending ranges of write ids; a rank is a place in them all, from 0.

    >>> ranges = IdRanges([(10, 12), (20, 25)])
    >>> ranges.size, ranges.ids(np.array([0, 1, 2, 6])).tolist()
    (7, [10, 11, 20, 24])

    borders:  of each range the first write id and the end, as numbers or int64 (n, 2)
    """

    def __init__(self, borders: Sequence[tuple[int, int]] | Ints) -> None:
        self._first = None
        if len(borders) == 1:  # the usual case, with few steps
            self._first, end = borders[0]
            self.size = int(end - self._first)
        self._borders = borders
        if self._first is None:
            self.size = int(np.sum(self.ends - self.firsts))

    @property
    def firsts(self) -> Ints:
        """The first write id of each range."""
        return np.array(self._borders, np.int64).reshape(-1, 2)[:, 0]

    @property
    def ends(self) -> Ints:
        """The write id after the last one of each range."""
        return np.array(self._borders, np.int64).reshape(-1, 2)[:, 1]

    def ids(self, ranks: Ints) -> Ints:
        """Return the write ids of ranks."""
        if self._first is not None:
            return ranks + self._first
        ends = self.ends
        end_ranks = (ends - self.firsts).cumsum()
        moves: Ints = ends - end_ranks
        return ranks + moves[end_ranks.searchsorted(ranks, side="right")]


class Drawable:
    """The live write ids that a sampler may draw.

    restriction:  None for all live ones
    """

    def __init__(self, restriction: Restriction | None = None) -> None:
        self._restriction = restriction
        self._left_out: Ints = np.zeros(0, np.int64)  # ascending

    def leave_out(self, write_ids: Ints) -> None:
        """Leave out write ids from now on."""
        self._left_out = np.union1d(self._left_out, write_ids)

    def readmit(self) -> None:
        """Leave out nothing."""
        self._left_out = np.zeros(0, np.int64)

    def of(self, live: LiveRange) -> IdRanges:
        """Return the ranges that may be drawn. Cost: O(ranges and left-out write ids)."""
        ranges = [(live.first, live.count)] if live.size else []
        if self._restriction is not None:
            ranges = [*self._restriction.ranges(live)]
        out = self._left_out
        if not out.size or not ranges:
            return IdRanges(ranges)
        firsts, ends = np.array(ranges, np.int64).T
        at = np.maximum(firsts.searchsorted(out, side="right") - 1, 0)
        out = out[(out >= firsts[at]) & (out < ends[at])]
        # A range ends before each one left out, and another begins after it.
        borders = np.sort([np.append(firsts, out + 1), np.append(ends, out)]).T
        return IdRanges(borders[borders[:, 0] < borders[:, 1]])

    def at_least(self, n: int, live: LiveRange) -> IdRanges:
        """Return the ranges that may be drawn, or raise SampleError for fewer than n write ids."""
        found = self.of(live)
        if n <= found.size:
            return found
        wanted = f"cannot draw {count_of(n, 'transition')}"
        if self._restriction is None:
            raise SampleError(
                f"{wanted} of {live.size}, of which damaged: {live.size - found.size}; "
                "draw fewer, or copy the others with diskreplay.repair()"
            )
        raise SampleError(
            f"{wanted}: of the live write ids [{live.first}, {live.count}) the sampler "
            f"{self._restriction} may draw {found.size}; draw fewer, or open the buffer with "
            "another sampler"
        )
