"""WholeSequences: n sequences without padding, of the starts that shards have drawn.

A start that begins no whole sequence is drawn like any other, and left out, as in one buffer: so a
shard takes part by its whole sequences, whose number nobody needs to know.
"""

from __future__ import annotations

import math

import numpy as np

import diskreplay
from diskreplay.adapters.ray_shards.joining import Part, batch_at

_MOST_STARTS = 4096  # that are drawn for a whole sequence, as by one buffer
_MOST_WRITE_IDS = 1 << 22  # of all sequences that are drawn for the whole ones


class WholeSequences:
    """The whole sequences found so far.

    is_distinct:  whether no start may come twice
    generator:    chooses among more than are needed
    """

    def __init__(
        self, n: int, length: int, *, is_distinct: bool, generator: np.random.Generator
    ) -> None:
        self._n, self._length, self._is_distinct = n, length, is_distinct
        self._generator = generator
        self.parts: list[Part] = []
        self._starts: set[tuple[int, int]] = set()
        self._drawn = 0

    def take(self, parts: list[Part], drawn: int, size: int) -> int:
        """Take the whole ones of so many starts; return how many starts to draw next, 0 if done.

        size:  the number of transitions in the whole
        Raises SampleError where there are too few among all starts that may be drawn.
        """
        most = max(self._n, min(size, _MOST_STARTS * self._n, _MOST_WRITE_IDS // self._length))
        is_last = drawn >= most
        if is_last:  # all starts at once: those before are among them
            self.parts, self._starts = [], set()
        self.parts += [self._new_ones(part) for part in parts]
        self._drawn += drawn
        sizes = [len(part.batch.indices) for part in self.parts]
        found = sum(sizes)
        if found >= self._n:
            kept = np.zeros(found, np.bool_)
            kept[self._generator.choice(found, self._n, replace=False)] = True
            rows = map(np.flatnonzero, np.split(kept, np.cumsum(sizes)[:-1]))
            self.parts = [
                part._replace(batch=batch_at(part.batch, each))
                for part, each in zip(self.parts, rows, strict=True)
                if len(each)
            ]
            return 0
        if is_last:
            raise diskreplay.SampleError(
                f"of {drawn} starts drawn, {found} begin a whole sequence of this length (expected "
                f"{self._n}): choose a shorter length, or pad=True"
            )
        if self._drawn >= most:
            return most
        return min(most, math.ceil(1.25 * (self._n - found) * self._drawn / max(1, found)))

    def _new_ones(self, part: Part) -> Part:
        """Return the part without starts that were taken before, where each may come once."""
        if not self._is_distinct:
            return part
        starts = [(part.shard, start) for start in part.batch.indices[:, 0].tolist()]
        rows = [row for row, start in enumerate(starts) if start not in self._starts]
        self._starts.update(starts)
        return part._replace(batch=batch_at(part.batch, np.array(rows, np.int64)))
