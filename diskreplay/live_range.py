"""LiveRange: the write ids that can be drawn, and their slots and blocks of slots.

Write ids count every transition ever written. The slot of a write id is `write_id % capacity`, so
the live ones are at most `capacity` consecutive write ids, around the end of the ring::

    capacity 8, start 0, count 13      slot     0  1  2  3  4  5  6  7
                                       holds    8  9 10 11 12  5  6  7      live: [5, 13)
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

    capacity:  slots of the ring
    start:     the count at the last `clear`: no write id below it is live
    count:     number of transitions ever written, which is the next write id
    """

    capacity: int
    start: int
    count: int

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
        return write_ids % self.capacity

    def newest_ids(self, slots: Ints) -> Ints:
        """Return the newest write id of each slot, negative for a slot never written."""
        return self.count - 1 - (self.count - 1 - slots) % self.capacity

    def spans(self, most: int = 1 << 62) -> Iterator[slice]:
        """Yield the live slots, oldest first, as slices of at most `most` slots."""
        return slot_spans(self.first, self.count, self.capacity, most)

    def blocks(self) -> list[int]:
        """Return the numbers of the blocks that hold live slots, ascending."""
        numbers: set[int] = set()
        for span in self.spans():
            numbers.update(range(span.start // BLOCK_SLOTS, (span.stop - 1) // BLOCK_SLOTS + 1))
        return sorted(numbers)


def slot_spans(first: int, end: int, capacity: int, most: int = 1 << 62) -> Iterator[slice]:
    """Yield the slots of the write ids [first, end) as slices of at most `most` slots."""
    while first < end:
        begin = first % capacity
        size = min(end - first, capacity - begin, most)
        yield slice(begin, begin + size)
        first += size


def block_span(number: int, capacity: int) -> slice:
    """Return the slots of a block."""
    return slice(number * BLOCK_SLOTS, min((number + 1) * BLOCK_SLOTS, capacity))


def blocks_in(capacity: int) -> int:
    """Return the number of blocks of a ring."""
    return -(-capacity // BLOCK_SLOTS)
