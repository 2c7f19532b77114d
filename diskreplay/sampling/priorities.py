"""Priorities: a slot table, and the tree of the masses (priority + epsilon) ** alpha."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from diskreplay.aliases import Floats, Ints
from diskreplay.errors import DamageError, PriorityError
from diskreplay.live_range import LiveRange
from diskreplay.sampling.slot_table import PART_SLOTS, SlotTable, slot_table_nbytes
from diskreplay.sampling.sum_tree import SumTree
from diskreplay.validation import as_array
from diskreplay.wording import count_of

Values = NDArray[np.float32]

MAX_PRIORITY = float(np.finfo(np.float32).max)  # the smallest is 0
DEFAULT_PRIORITY = 1.0  # of new transitions before any priority was given


def priorities_nbytes(capacity: int) -> int:
    """Return the memory of priorities and their tree when all slots are in use, in bytes."""
    return slot_table_nbytes(capacity) + 16 * capacity


class Priorities(SlotTable[np.float32]):
    """The raw priority of each slot, and the tree of the masses `(priority + epsilon) ** alpha`.

    The tree follows the table. A change marks the tree as broken before its first step and as whole
    after its last step, so that after an interrupt the tree is built again.
    """

    database = "priorities"
    dtype = np.dtype(np.float32)
    item = "priority block"
    slot_bytes = 20

    def __init__(
        self, capacity: int, *, alpha: float, epsilon: float, tree: type[SumTree] = SumTree
    ) -> None:
        self.alpha, self.epsilon = alpha, epsilon
        self.largest: float | None = None  # so far; None before there was any
        self._left_out: set[int] = set()  # slots of damaged records, with mass 0
        self._tree_is_whole = True
        super().__init__(capacity)
        try:
            self.tree = tree(capacity)
        except MemoryError:
            raise self._too_large() from None

    @property
    def nbytes(self) -> int:
        """The memory of table and tree, in bytes."""
        return super().nbytes + self.tree.nbytes

    @property
    def default(self) -> float:
        """The largest priority so far, which new transitions get."""
        return DEFAULT_PRIORITY if self.largest is None else self.largest

    def stage(self, first: int, n: int, values: Values | float | None) -> None:
        """Stage the priorities of n new write ids; None means the largest so far."""
        if values is None:
            if self.largest is None:
                self.largest = DEFAULT_PRIORITY
            SlotTable.stage(self, first, n, self.largest)  # super() takes 40 ns of each push
        else:
            SlotTable.stage(self, first, n, values)
            largest = values if isinstance(values, float) else float(np.maximum.reduce(values))
            self.raise_largest(largest)

    def update(self, write_ids: Ints, priorities: Values, live: LiveRange) -> int:
        """Set the priorities of live write ids, ignore other ids, return how many were live."""
        is_live = live.holds(write_ids)
        if not is_live.all():
            write_ids, priorities = write_ids[is_live], priorities[is_live]
        if write_ids.size:
            self.settle(live)
            slots = write_ids % self.capacity
            self.raise_largest(float(np.maximum.reduce(priorities)))
            self._tree_is_whole = False
            self.set(slots, priorities)
            self._tree_is_whole = True
        return write_ids.size

    def raise_largest(self, priority: float) -> None:
        """Raise the largest priority so far to a given one."""
        if self.largest is None or priority > self.largest:
            self.largest = priority

    def leave_out(self, write_ids: Ints, live: LiveRange) -> None:
        """Set masses to zero, so that these write ids are never drawn again."""
        self.settle(live)
        slots = write_ids % self.capacity
        self._tree_is_whole = False
        self._left_out.update(slots.tolist())
        self._follow_slots(slots)
        self._tree_is_whole = True

    def settle(self, live: LiveRange) -> None:
        """Write the staged priorities into their slots, and their masses into the tree."""
        if self._settled_to != live.count:
            whole, self._tree_is_whole = self._tree_is_whole, False
            self._readmit(live.since(self._settled_to))
            self._drop_evicted(live)
            super().settle(live)
            self._tree_is_whole = whole
        if not self._tree_is_whole:
            self._follow_all(live)

    def load(self, blocks: Mapping[int, bytes], live: LiveRange) -> None:
        """Load blocks of the store, and put the masses of their live slots into the tree."""
        whole, self._tree_is_whole = self._tree_is_whole, False
        self._readmit(live.since(self._settled_to))
        self._drop_evicted(live)
        super().load(blocks, live)
        if whole:
            self._tree_is_whole = True
        elif not self._tree_is_whole:
            self._follow_all(live)

    def after_update(
        self,
        largest: float | None,
        read: Callable[[list[int]], Mapping[int, bytes]],
        live: LiveRange,
        write_ids: Ints,
        priorities: Values,
        given: Values,
    ) -> tuple[float | None, dict[int, bytes]]:
        """Return the largest priority and the blocks of a store after an update.

        Values in memory are neither used nor changed. The last of duplicates wins.

        largest, live:          the largest priority and the live range of the store
        read:                   returns blocks of the store, or raises if one is missing
        write_ids, priorities:  int64 and float32 (n,); NaN means the largest so far
        given:                  all new priorities; one of them may be the largest so far
        """
        new = np.isnan(priorities)
        if not np.isnan(given).all():
            largest = max(float(np.nanmax(given)), largest or 0.0)
        elif largest is None and new.any():
            largest = DEFAULT_PRIORITY
        values = np.where(new, 0.0 if largest is None else largest, priorities)
        return largest, self.overlaid(self.capacity, read, live, write_ids, values)

    def clear(self, count: int) -> None:
        """Forget all write ids below `count`, and the largest priority."""
        self._tree_is_whole = False
        self.tree.clear()
        super().clear(count)
        self.largest = None
        self._left_out.clear()
        self._tree_is_whole = True

    def mark_broken(self) -> None:
        """Mark the tree as broken, so that it is built again before its next use."""
        self._tree_is_whole = False

    def check(self, live: LiveRange) -> None:
        """Raise DamageError if the tree and the priorities disagree."""
        self.settle(live)
        self.tree.check()
        wrong: list[int] = []
        in_use = 0
        for span in live.spans(PART_SLOTS):
            slots, expected = np.arange(span.start, span.stop), self._masses(span)
            wrong += slots[self.tree.masses(slots) != expected].tolist()
            in_use += int(np.count_nonzero(expected))
        if wrong:
            raise DamageError(
                "the tree has masses that do not follow from the priorities of "
                f"{count_of(len(wrong), 'slot')} (the first: {min(wrong)})"
            )
        if surplus := self.tree.in_use - in_use:
            raise DamageError(
                f"the tree has masses of {count_of(surplus, 'slot')} without a transition"
            )

    def _masses(self, slots: Ints | slice) -> Floats:
        """Return the masses of slots in use."""
        masses: Floats = self.values[slots].astype(np.float64)
        masses += self.epsilon
        masses **= self.alpha
        if self._left_out:
            numbers = np.arange(slots.start, slots.stop) if isinstance(slots, slice) else slots
            masses[np.isin(numbers, list(self._left_out))] = 0.0
        return masses

    @classmethod
    def _check_block(cls, number: int, block: Values) -> None:
        if not ((block >= 0.0) & (block <= MAX_PRIORITY)).all():
            raise DamageError(f"{cls.item} {number} holds a value that is not a priority")

    def _follow_span(self, span: slice) -> None:
        self.tree.fill(span.start, self._masses(span))

    def _follow_slots(self, slots: Ints) -> None:
        # The masses come from the slots, so that duplicates all have the mass of the last value.
        if slots.size:
            self.tree.assign(slots, self._masses(slots))

    def _follow_all(self, live: LiveRange) -> None:
        self.tree.clear()
        for span in live.spans(PART_SLOTS):
            self._follow_span(span)
        self._tree_is_whole = True

    def _drop_evicted(self, live: LiveRange) -> None:
        """Set the masses of kept rows to zero that were live when the table was settled last."""
        for span in live.evicted_spans(self._settled_to, PART_SLOTS) if live.keep_rows else ():
            self.tree.fill(span.start, np.zeros(span.stop - span.start))

    def _readmit(self, new: LiveRange) -> None:
        """Stop leaving out slots to which new transitions were written."""
        if self._left_out:
            slots = np.array(list(self._left_out))
            self._left_out = set(slots[new.newest_ids(slots) < new.first].tolist())


def checked_priorities(priorities: ArrayLike, n: int) -> Values:
    """Return n priorities as float32, or raise PriorityError."""
    found = as_array(priorities, PriorityError, f"expected {n} priorities")
    if found.dtype.kind not in "biuf" or found.shape != (n,):
        raise PriorityError(
            f"expected {n} priorities, shape ({n},) (found shape {found.shape}, {found.dtype})"
        )
    given: NDArray[np.float64] = found.astype(np.float64)
    # The minimum of a NaN is NaN. A ufunc takes half as long as the method of the array.
    if n and not (np.minimum.reduce(given) >= 0 and np.maximum.reduce(given) <= MAX_PRIORITY):
        bad = given[~((given >= 0) & (given <= MAX_PRIORITY))][0]
        raise PriorityError(
            f"a priority must be finite and not negative, at most {MAX_PRIORITY:.4g} "
            f"(found {bad}): give the absolute TD error"
        )
    return given.astype(np.float32)
