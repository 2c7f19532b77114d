"""LiveRange: the write ids that can be drawn, and their slots and blocks of slots.

Write ids count every transition ever written. A ring has `capacity` slots, and `keep_rows` more for
evicted transitions. The slot of a write id is `write_id % slots`, and the live ones are at most
`capacity` consecutive write ids, around the end of the ring::

    capacity 8, start 0, count 13      slot     0  1  2  3  4  5  6  7
                                       holds    8  9 10 11 12  5  6  7      live: [5, 13)
    capacity 6, keep_rows 2            the same slots, of which 5 and 6 are kept; live: [7, 13)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from diskreplay.aliases import Bools, Ints

BLOCK_SLOTS = 1000  # so many float32, with framing, fit a page of 4096 bytes


@dataclass(slots=True)  # not frozen: that takes three times as long to construct
class LiveRange:
    """The live write ids `[first, count)` of a ring.

    >>> live = LiveRange(capacity=8, start=0, count=13)
    >>> live.first, live.size, list(live.spans())
    (5, 8, [slice(5, 8, None), slice(0, 5, None)])

    capacity:   the most live write ids
    start:      the count at the last `clear`: no write id below it is live
    count:      number of transitions ever written, which is the next write id
    keep_rows:  slots of the ring beyond the capacity, which hold evicted transitions
    """

    capacity: int
    start: int
    count: int
    keep_rows: int = 0

    @property
    def ring_slots(self) -> int:
        """The number of slots of the ring."""
        return self.capacity + self.keep_rows

    @property
    def first(self) -> int:
        """The oldest live write id; `count` in an empty range."""
        return max(self.start, self.count - self.capacity)

    @property
    def size(self) -> int:
        """The number of live write ids."""
        return self.count - self.first

    def since(self, write_id: int) -> LiveRange:
        """Return the part of the live range from a write id on."""
        return replace(self, start=min(max(self.start, write_id), self.count))

    def until(self, count: int) -> LiveRange:
        """Return the live range after more transitions were written, up to this count."""
        return replace(self, count=count)

    def holds(self, write_ids: Ints) -> Bools:
        """Return which of the write ids are live."""
        return (write_ids >= self.first) & (write_ids < self.count)

    def slots(self, write_ids: Ints) -> Ints:
        """Return the slots of write ids."""
        return write_ids % self.ring_slots

    def newest_ids(self, slots: Ints) -> Ints:
        """Return the newest write id of each slot, negative for a slot never written."""
        return self.count - 1 - (self.count - 1 - slots) % self.ring_slots

    def spans(self, most: int = 1 << 62) -> Iterator[slice]:
        """Yield the live slots, oldest first, as slices of at most `most` slots."""
        return slot_spans(self.first, self.count, self.ring_slots, most)

    def evicted_spans(self, count: int, most: int = 1 << 62) -> Iterator[slice]:
        """Yield the slots of the kept rows that were evicted after an earlier count."""
        first = max(self.start, count - self.capacity, self.count - self.ring_slots)
        return slot_spans(first, self.first, self.ring_slots, most)

    def blocks(self) -> list[int]:
        """Return the numbers of the blocks that hold live slots, ascending."""
        numbers: set[int] = set()
        for span in self.spans():
            numbers.update(range(span.start // BLOCK_SLOTS, (span.stop - 1) // BLOCK_SLOTS + 1))
        return sorted(numbers)


def slot_spans(first: int, end: int, ring_slots: int, most: int = 1 << 62) -> Iterator[slice]:
    """Yield the slots of the write ids [first, end) as slices of at most `most` slots."""
    while first < end:
        begin = first % ring_slots
        size = min(end - first, ring_slots - begin, most)
        yield slice(begin, begin + size)
        first += size


def block_span(number: int, ring_slots: int) -> slice:
    """Return the slots of a block."""
    return slice(number * BLOCK_SLOTS, min((number + 1) * BLOCK_SLOTS, ring_slots))


def blocks_in(ring_slots: int) -> int:
    """Return the number of blocks of a ring."""
    return -(-ring_slots // BLOCK_SLOTS)
