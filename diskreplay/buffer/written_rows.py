"""WrittenRows: the write ids that rows of a shared writer got, by the numbers they had before."""

from __future__ import annotations

import numpy as np

from diskreplay.aliases import Ints

_LEAST_COMPACTED = 1 << 12


class WrittenRows:
    """Stretches of rows with consecutive numbers and consecutive write ids, one for each commit.

    Those of commits that no other process came between are one stretch.
    """

    def __init__(self) -> None:
        self._stretches = np.zeros((0, 3), np.int64)  # the first number, the end, the write id
        self._compacted = 0  # how many there were when they were compacted

    def note(self, first: int, end: int, write_id: int) -> None:
        """Note that the rows [first, end) got the write ids from one on; safe to repeat."""
        last_end, last_id = 0, -1
        if len(self._stretches):
            last_first, last_end, last_id = self._stretches[-1].tolist()
            last_id += last_end - last_first
        if end <= max(first, last_end):
            return
        if (first, write_id) == (last_end, last_id):
            self._stretches[-1, 1] = end
        else:
            new = np.array([[first, end, write_id]])
            self._stretches = np.concatenate([self._stretches, new])

    def write_ids(self, numbers: Ints) -> Ints:
        """Return the write ids of rows by their numbers, -1 of those that are not known."""
        if not len(self._stretches):
            return np.full(numbers.size, -1)
        firsts, ends, ids = self._stretches.T
        at = np.searchsorted(firsts, numbers, "right") - 1
        known = (at >= 0) & (numbers < ends[at])
        return np.where(known, ids[at] + numbers - firsts[at], -1)

    @property
    def is_large(self) -> bool:
        """Whether it is time to call `keep`."""
        return len(self._stretches) > 2 * self._compacted + _LEAST_COMPACTED

    def keep(self, numbers: Ints) -> None:
        """Forget the stretches that hold none of these rows: memory is bounded."""
        at = np.searchsorted(self._stretches[:, 0], numbers, "right") - 1
        self._stretches = self._stretches[np.unique(at[at >= 0])]
        self._compacted = len(self._stretches)
