"""Samplers: which write ids a batch is made of. They know write ids and priorities, and no data.

Both have the same methods, so that a buffer need not know which one it has. `first` and `count`
are the ends of the live write ids: [first, count). The uniform one is in uniform.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from diskreplay.errors import ArgumentError, DamageError
from diskreplay.live_range import BLOCK_SLOTS, block_span, slot_spans
from diskreplay.sampling.priorities import (
    MAX_PRIORITY,
    Blocks,
    Floats,
    Ints,
    Priorities,
    block_of,
    checked_priorities,
    checked_state,
    newest_ids,
    overlaid,
)
from diskreplay.sampling.sum_tree import SumTree
from diskreplay.sampling.uniform import UniformSampler
from diskreplay.validation import checked_capacity, real_number, whole_number
from diskreplay.wording import count_of

__all__ = ["PrioritizedSampler", "UniformSampler"]

_PART = 1 << 18  # slots that are worked on in one step, since each step takes memory
_WAITING_KEPT = 1 << 14  # places for new priorities that are never given back
_WHY_ALPHA = ": 1 is full proportion; to draw the largest more often, give powers of priorities"
_WHY_EPSILON = ": with 0 a transition of priority 0 would never be drawn; give a small one"


def side_table_nbytes(capacity: int) -> int:
    """Return the memory of a prioritized sampler, in bytes, when all slots are in use."""
    marks = -(-capacity // BLOCK_SLOTS)
    return 20 * capacity + marks + np.dtype(np.float32).itemsize * _WAITING_KEPT


DEFAULTS = {
    "alpha": 0.6, "beta_start": 0.4, "beta_end": 1.0, "beta_frames": 100_000, "epsilon": 1e-6
}  # fmt: skip


class PrioritizedSampler:
    """Draws write ids with probability `mass / total`, mass = `(priority + epsilon) ** alpha`.

    The raw priorities stand in an array by slot; the tree over their masses follows them. Those of
    new write ids wait until the next draw or commit and are settled all at once: that is cheaper
    than one by one, and a call that is interrupted before its write ids are live leaves no trace.
    """

    SETTINGS = tuple(DEFAULTS)

    def __init__(
        self,
        capacity: int,
        *,
        alpha: float,
        beta_start: float,
        beta_end: float,
        beta_frames: int,
        epsilon: float,
    ) -> None:
        self.capacity = checked_capacity(capacity)
        self.alpha = real_number("alpha", alpha, low=0.0, high=1.0, why=_WHY_ALPHA)
        self.beta_start = real_number("beta_start", beta_start, low=0.0, high=1.0)
        self.beta_end = real_number("beta_end", beta_end, low=0.0, high=1.0)
        self.beta_frames = whole_number("beta_frames", beta_frames, at_least=1, at_most=2**53)
        self.epsilon = real_number(
            "epsilon", epsilon, low=0.0, high=MAX_PRIORITY, above=True, why=_WHY_EPSILON
        )
        self.frame = 0
        self._largest: float | None = None
        self._left_out: set[int] = set()  # slots
        self._settled_to = 0  # write ids from here on wait in `_waiting`
        self._waiting = np.zeros(_WAITING_KEPT, np.float32)
        self._tree_is_whole = True
        try:
            self._priorities = np.zeros(self.capacity, np.float32)
            self._tree = SumTree(self.capacity)
            self._dirty = np.zeros(-(-self.capacity // BLOCK_SLOTS), np.bool_)
        except MemoryError:
            raise ArgumentError(
                f"capacity {self.capacity} needs {20 * self.capacity >> 30} GiB of memory for its "
                "priorities, 20 bytes a slot: choose a smaller one"
            ) from None

    @property
    def beta(self) -> float:
        """The importance exponent of the next draw, linear in the draws so far."""
        progress = min(1.0, self.frame / self.beta_frames)
        return self.beta_start + progress * (self.beta_end - self.beta_start)

    @property
    def max_priority(self) -> float:
        """The largest priority so far, or 1.0 before there was any."""
        return 1.0 if self._largest is None else self._largest

    @property
    def nbytes(self) -> int:
        """The memory that the sampler takes, in bytes."""
        more_waiting = self._waiting.size - _WAITING_KEPT
        return side_table_nbytes(self.capacity) + self._waiting.itemsize * more_waiting

    def settings(self) -> dict[str, Any]:
        """Return what may change from run to run, by the names of the constructor."""
        return {name: getattr(self, name) for name in self.SETTINGS}

    def sibling(self, capacity: int) -> PrioritizedSampler:
        """Return an empty sampler of the same settings for another capacity."""
        return PrioritizedSampler(capacity, **self.settings())

    def accept(self, priorities: ArrayLike | None, n: int) -> Priorities | None:
        """Return the priorities of n new transitions as `hold` takes them, or raise."""
        return None if priorities is None else checked_priorities(priorities, n)

    def hold(self, first: int, n: int, priorities: Priorities | None) -> None:
        """Give n write ids that are about to be live their priorities, or the largest so far."""
        at = first - self._settled_to
        if at + n > self._waiting.size:
            more = np.zeros(max(at + n, 2 * self._waiting.size), np.float32)
            more[:at] = self._waiting[:at]
            self._waiting = more
        if priorities is None:
            if self._largest is None:
                self._largest = 1.0
            if n == 1:  # a push: an assignment of one number is several times faster
                self._waiting[at] = self._largest
            else:
                self._waiting[at : at + n] = self._largest
        else:
            self._waiting[at : at + n] = priorities
            self.raise_largest(priorities)

    def update(self, write_ids: Ints, priorities: Priorities, first: int, count: int) -> int:
        """Set priorities of live write ids, ignore the others, return how many were applied."""
        live = (write_ids >= first) & (write_ids < count)
        if not live.all():
            write_ids, priorities = write_ids[live], priorities[live]
        if write_ids.size:
            self._settle(first, count)
            slots = write_ids % self.capacity
            self.raise_largest(priorities)
            self._set_priorities(slots, priorities)
        return write_ids.size

    def draw(
        self, n: int, first: int, count: int, generator: np.random.Generator
    ) -> tuple[Ints, Floats]:
        """Return n write ids, one from each of n equal shares of the total, and their P(i)."""
        self._settle(first, count)
        total = self._tree.total_priority
        values = (np.arange(n) + generator.random(n)) * (total / n)
        slots, masses = self._tree.find(values)
        return newest_ids(slots, count, self.capacity), masses / total

    def total_mass(self, first: int, count: int) -> float:
        """Return the sum of the masses."""
        self._settle(first, count)
        return self._tree.total_priority

    def advance(self, draws: int) -> None:
        """Count draws: beta follows them."""
        self.frame += draws

    def leave_out(self, write_ids: Ints, first: int, count: int) -> None:
        """Never draw these again: their mass is zero until their slots are written over."""
        self._settle(first, count)
        slots = write_ids % self.capacity
        self._left_out.update(slots.tolist())
        self._set_masses(slots)

    def live_priorities(self, first: int, count: int) -> Priorities:
        """Return the raw priorities of [first, count), oldest first. Cost: O(size)."""
        self._settle(first, count)
        parts = [self._priorities[span] for span in self._spans(first, count)]
        return np.concatenate([self._priorities[:0], *parts])

    def priorities(self, write_ids: Ints, first: int, count: int) -> Priorities:
        """Return the raw priorities of live write ids."""
        self._settle(first, count)
        return self._priorities[write_ids % self.capacity]

    def distrust(self) -> None:
        """Build the tree again before it is used: what it stands for is about to change."""
        self._tree_is_whole = False

    def clear(self, count: int) -> None:
        """Forget all write ids below `count` and the largest priority; the annealing goes on."""
        self._tree_is_whole = False
        self._tree.clear()
        self._priorities = np.zeros(self.capacity, np.float32)  # untouched pages take no memory
        self._largest = None
        self._left_out.clear()
        self._settled_to = count
        self._waiting = np.zeros(_WAITING_KEPT, np.float32)
        self._tree_is_whole = True

    def state(self) -> dict[str, Any]:
        """Return, as plain data, what a commit must hold beside the priority blocks."""
        return {"frame": self.frame, "max_priority": self._largest}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned; raise DamageError when it is something else."""
        self.frame, self._largest = checked_state(state)

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
        """Return a stored state and stored blocks with priorities laid over them.

        Nothing in memory is changed, and none of it is used. The last of duplicates wins.

        stored, first, count:  the state of the store, and the ends of what is live in it
        read:                  returns stored blocks by number, or raises where one is missing
        write_ids, priorities: int64 and float32 (n,); NaN stands for the largest so far
        given:                 all priorities that may be the largest so far
        """
        frame, largest = checked_state(stored)
        new = np.isnan(priorities)
        if not np.isnan(given).all():
            largest = max(float(np.nanmax(given)), largest or 0.0)
        elif largest is None and new.any():
            largest = 1.0
        values = np.where(new, 0.0 if largest is None else largest, priorities)
        blocks = overlaid(self.capacity, read, first, count, write_ids, values)
        return {"frame": frame, "max_priority": largest}, blocks

    def dirty_blocks(self, first: int, count: int) -> Mapping[int, bytes]:
        """Return the priority blocks that differ from those last committed, by block number.

        They are good until the next call.
        """
        self._settle(first, count)
        return Blocks(self._priorities, np.flatnonzero(self._dirty).tolist())

    def committed(self, blocks: Iterable[int]) -> None:
        """Take note that these blocks are committed as they are."""
        self._dirty[list(blocks)] = False

    def load_blocks(self, blocks: Mapping[int, bytes], first: int, count: int) -> None:
        """Take over priority blocks as a commit wrote them, and the masses of their live slots."""
        whole, self._tree_is_whole = self._tree_is_whole, False
        much = not whole or len(blocks) * BLOCK_SLOTS > self.capacity // 4
        changed = []
        for number, content in blocks.items():
            block, stored = self._block(number), block_of(number, content, self.capacity)
            if not much:
                changed.append(np.flatnonzero(block != stored) + number * BLOCK_SLOTS)
            block[:] = stored
        start = max(first, self._settled_to)
        self._take_in(start, count)
        self._settled_to = count
        if much:
            self._rebuild(first, count)
            return
        for span in self._spans(start, count):
            self._tree.fill(span.start, self._masses(span))
        slots = np.concatenate([np.zeros(0, np.int64), *changed])
        self._set_masses(slots[newest_ids(slots, count, self.capacity) >= first])
        self._tree_is_whole = whole

    def live_blocks(self, first: int, count: int) -> list[int]:
        """Return the numbers of the blocks that hold live slots."""
        numbers: set[int] = set()
        for span in self._spans(first, count):
            numbers.update(range(span.start // BLOCK_SLOTS, (span.stop - 1) // BLOCK_SLOTS + 1))
        return sorted(numbers)

    def check(self, first: int, count: int) -> None:
        """Raise DamageError when the tree and the priorities disagree."""
        self._settle(first, count)
        self._tree.check()
        wrong: list[int] = []
        in_use = 0
        for span in self._spans(first, count):
            slots, expected = np.arange(span.start, span.stop), self._masses(span)
            wrong += slots[self._tree.masses(slots) != expected].tolist()
            in_use += int(np.count_nonzero(expected))
        if wrong:
            raise DamageError(
                "the tree has other masses than those of the priorities of "
                f"{count_of(len(wrong), 'slot')} (the first: {min(wrong)})"
            )
        if surplus := self._tree.in_use - in_use:
            raise DamageError(
                f"the tree has masses of {count_of(surplus, 'slot')} without a transition"
            )

    def _spans(self, first: int, count: int) -> Iterator[slice]:
        return slot_spans(first, count, self.capacity, _PART)

    def _block(self, number: int) -> Priorities:
        return self._priorities[block_span(number, self.capacity)]

    def _masses(self, slots: Ints | slice) -> Floats:
        """Return what the tree should hold for slots in use."""
        masses: Floats = self._priorities[slots].astype(np.float64)
        masses += self.epsilon
        masses **= self.alpha
        if self._left_out:
            numbers = np.arange(slots.start, slots.stop) if isinstance(slots, slice) else slots
            masses[np.isin(numbers, list(self._left_out))] = 0.0
        return masses

    def _set_masses(self, slots: Ints) -> None:
        # An interrupt in the middle leaves sums that nothing would put right later.
        whole, self._tree_is_whole = self._tree_is_whole, False
        if slots.size:
            self._tree.assign(slots, self._masses(slots))
        self._tree_is_whole = whole

    def raise_largest(self, priorities: Priorities) -> None:
        """Take note of priorities that were given, n > 0 of them."""
        largest = float(np.maximum.reduce(priorities))
        self._largest = largest if self._largest is None else max(self._largest, largest)

    def _settle(self, first: int, count: int) -> None:
        """Give the write ids that wait their slots. It may be interrupted and done again."""
        start = max(first, self._settled_to)
        if start < count:
            whole, self._tree_is_whole = self._tree_is_whole, False
            self._take_in(start, count)
            at = start - self._settled_to
            for span in self._spans(start, count):
                size = span.stop - span.start
                self._dirty[span.start // BLOCK_SLOTS : (span.stop - 1) // BLOCK_SLOTS + 1] = True
                self._priorities[span] = self._waiting[at : at + size]
                self._tree.fill(span.start, self._masses(span))
                at += size
            self._tree_is_whole = whole
        self._settled_to = count
        if self._waiting.size > _WAITING_KEPT:
            self._waiting = np.zeros(_WAITING_KEPT, np.float32)
        if not self._tree_is_whole:
            self._rebuild(first, count)

    def _take_in(self, start: int, count: int) -> None:
        """Leave out no slot that [start, count) are written to."""
        if self._left_out:
            slots = np.array(list(self._left_out))
            old = newest_ids(slots, count, self.capacity) < start
            self._left_out = set(slots[old].tolist())

    def _set_priorities(self, slots: Ints, priorities: Priorities) -> None:
        self._dirty[slots // BLOCK_SLOTS] = True
        whole, self._tree_is_whole = self._tree_is_whole, False
        self._priorities[slots] = priorities
        self._set_masses(slots)  # reads them back, so that duplicates all have the last one
        self._tree_is_whole = whole

    def _rebuild(self, first: int, count: int) -> None:
        self._tree.clear()
        for span in self._spans(first, count):
            self._tree.fill(span.start, self._masses(span))
        self._tree_is_whole = True
