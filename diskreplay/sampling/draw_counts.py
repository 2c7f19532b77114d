"""DrawCounts: how often each transition was drawn, and which may be drawn again.

A batch that is drawn ahead takes its draws at once, so that the next one does not draw them again.
It counts for good when it is given to the user. Until then it may be drawn anew, under its number
or under an earlier one: then it gives its draws back, with those of all later numbers::

    draw number      5         6        7      ahead: 6 and 7 have taken draws
                     given     ahead    ahead  another draw under 6 gives both back first
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from diskreplay.aliases import Floats, Ints
from diskreplay.errors import DamageError
from diskreplay.live_range import BLOCK_SLOTS, LiveRange
from diskreplay.sampling.slot_table import PART_SLOTS, SlotTable
from diskreplay.sampling.sum_tree import SumTree


class DrawCounts(SlotTable[np.int32]):
    """The number of draws of each slot that were given, and the tree of the slots with draws left.

    New transitions begin at 0, so nothing is staged. Each change marks what follows the counts as
    broken before its first step, and as whole after its last, so that after an interrupt it is
    built again.

    times:  the most draws of a transition
    """

    database = "draw_counts"
    dtype = np.dtype(np.int32)
    item = "block of draw counts"
    slot_bytes = 24
    way_out = "open the store without this sampler, and draw once: counting then begins anew"

    def __init__(self, capacity: int, times: int) -> None:
        super().__init__(capacity)
        self.times = times
        try:
            self._taken = np.zeros(capacity, np.int32)  # those given, and those of batches ahead
            self._tree = SumTree(capacity)  # 1.0 for each slot that may be drawn
        except MemoryError:
            raise self._too_large() from None
        self._ahead: dict[int, Ints] = {}  # write ids by draw number
        self._left_out: Ints = np.zeros(0, np.int64)
        self._is_whole = True

    @property
    def nbytes(self) -> int:
        """The memory of the counts and of all that follows them, in bytes."""
        return super().nbytes + self._taken.nbytes + self._tree.nbytes

    def tree(self, live: LiveRange) -> SumTree:
        """Return the tree, in which each slot that may be drawn has 1.0."""
        self.settle(live)
        return self._tree

    def take(self, number: int, write_ids: Ints, live: LiveRange) -> None:
        """Take draws of live write ids, without duplicates, for a draw that is not given yet."""
        self._is_whole = False
        self._ahead[number] = np.append(self._ahead.get(number, write_ids[:0]), write_ids)
        self._add(write_ids, 1, live)
        self._is_whole = True

    def take_back(self, number: int, live: LiveRange) -> None:
        """Take back the draws of a number and of all later ones."""
        self.settle(live)
        for later in sorted(key for key in self._ahead if key >= number):
            self._is_whole = False
            self._add(self._ahead.pop(later), -1, live)
            self._is_whole = True

    def is_current(self, number: int, write_ids: Ints) -> bool:
        """Return whether a batch is still the last one that was drawn under its number."""
        return np.array_equal(self._ahead.get(number, write_ids[:0]), write_ids)

    def give(self, number: int, live: LiveRange) -> None:
        """Count the draws of a number for good.

        An interrupt may let them be counted twice, but never not at all.
        """
        self.settle(live)
        write_ids = self._ahead.get(number)
        if write_ids is not None:
            slots = live.slots(write_ids[live.holds(write_ids)])
            self._is_whole = False
            np.add.at(self.values, slots, np.int32(1))
            self._dirty[slots // BLOCK_SLOTS] = True
            del self._ahead[number]
            self._is_whole = True

    def leave_out(self, write_ids: Ints, live: LiveRange) -> None:
        """Draw these write ids no more."""
        self.settle(live)
        self._is_whole = False
        self._left_out = np.union1d(self._left_out, write_ids)
        self._add(write_ids[live.holds(write_ids)], 0, live)
        self._is_whole = True

    # As a slot table

    def settle(self, live: LiveRange) -> None:
        """Begin at 0 for the write ids that became live; safe to interrupt and to repeat."""
        if self._settled_to != live.count:
            self._is_whole, was_whole = False, self._is_whole
            for span in live.evicted_spans(self._settled_to, PART_SLOTS):
                self._taken[span] = self.values[span]  # batches ahead take live ones only
                self._tree.fill(span.start, np.zeros(span.stop - span.start))
            for span in live.since(max(live.first, self._settled_to)).spans(PART_SLOTS):
                self._dirty[span.start // BLOCK_SLOTS : (span.stop - 1) // BLOCK_SLOTS + 1] = True
                self.values[span] = 0
                self._follow(span, live)
            self._settled_to = live.count
            self._is_whole = was_whole
        if not self._is_whole:
            self._rebuild(live)

    def load(self, blocks: Mapping[int, bytes], live: LiveRange) -> None:
        """Load blocks of the store, which hold the counts of all write ids below `live.count`."""
        self._is_whole = False
        super().load(blocks, live)
        self._rebuild(live)

    def clear(self, count: int) -> None:
        """Forget all write ids below `count`, and the batches ahead."""
        self._is_whole = False
        super().clear(count)
        self._ahead.clear()
        self._left_out = np.zeros(0, np.int64)
        self._taken = np.zeros(self.capacity, np.int32)
        self._tree.clear()
        self._is_whole = True

    def mark_broken(self) -> None:
        """Mark what follows the counts as broken, so that it is built again before its next use."""
        self._is_whole = False

    def check(self, live: LiveRange) -> None:
        """Raise DamageError if the tree and the counts disagree."""
        self.settle(live)
        self._tree.check()
        taken, expected = self._taken.copy(), self._tree.masses(range(self.capacity))
        self._rebuild(live)
        if (taken != self._taken).any() or (
            expected != self._tree.masses(range(self.capacity))
        ).any():
            raise DamageError("the draws that are left do not follow from those that were counted")

    @classmethod
    def _check_block(cls, number: int, block: NDArray[np.int32]) -> None:
        if (block < 0).any():
            raise DamageError(f"{cls.item} {number} holds a negative number")

    def _add(self, write_ids: Ints, change: int, live: LiveRange) -> None:
        """Change the draws taken of write ids, as far as they are live, and follow in the tree."""
        slots = live.slots(write_ids[live.holds(write_ids)])
        if slots.size:
            np.add.at(self._taken, slots, np.int32(change))
            self._tree.assign(slots, self._masses(slots, live))

    def _follow(self, span: slice, live: LiveRange) -> None:
        self._taken[span] = self.values[span]
        self._tree.fill(span.start, self._masses(np.arange(span.start, span.stop), live))

    def _rebuild(self, live: LiveRange) -> None:
        self._is_whole = False
        self._taken[:] = self.values
        for write_ids in self._ahead.values():
            np.add.at(self._taken, live.slots(write_ids[live.holds(write_ids)]), np.int32(1))
        self._tree.clear()
        for span in live.spans(PART_SLOTS):
            slots = np.arange(span.start, span.stop)
            self._tree.fill(span.start, self._masses(slots, live))
        self._is_whole = True

    def _masses(self, slots: Ints, live: LiveRange) -> Floats:
        """Return 1.0 for each slot that may be drawn, and 0.0 for the others."""
        masses: Floats = (self._taken[slots] < self.times).astype(np.float64)
        if self._left_out.size:
            masses[np.isin(live.newest_ids(slots), self._left_out)] = 0.0
        return masses
