"""Grouping: how many records share a value of LMDB, and the disk that they take.

LMDB gives a value of more than 2022 bytes pages of its own, and begins a page of smaller ones with
as many as fit whole. So records of just over half a page, or just over a page, waste up to half of
the file. Where that is so, the records of `per_value` consecutive slots are stored one after the
other in one value, a group. A new store gets the number from `grouping_for`, and keeps it::

    slot     0 1 2 | 3 4 5 | 6 7      capacity 8, per_value 3: the last group is shorter
    key      0     | 1     | 2
    value    r r r | r r r | r r      a slot that was never written is zero bytes

Everything here is arithmetic over sizes in bytes: it knows no store and no schema.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

from diskreplay.aliases import Ints
from diskreplay.live_range import slot_spans

PAGE_BYTES = 4096
BLOCK_BYTES = 4032  # of 1000 priorities, sealed: a little more than they take
PAGE_HEADER = 16
_PLACE_BYTES = 4  # the number of a page
_NODE_BYTES = 8 + 8  # header and key
_POINTER_BYTES = 2
_LARGEST_IN_LEAF = 2022
_BRANCHES = (PAGE_BYTES - PAGE_HEADER) // (_NODE_BYTES + _POINTER_BYTES)
_GOAL = 1.1  # of the bytes of the records; what is left up to 1.2 is for freed pages
_MOST_RECORDS = 64
_MOST_BYTES = 12 * PAGE_BYTES  # of a value: a read from a cold disk meets each of its pages


class Grouping(NamedTuple):
    """How many records of how many bytes share a value; 1 is a record by itself."""

    per_value: int
    record_bytes: int

    @property
    def value_bytes(self) -> int:
        """The length of a value, but for the last one, which may have fewer records."""
        return self.per_value * self.record_bytes

    @property
    def has_own_pages(self) -> bool:
        """True where a value has pages of its own; False where it is in a leaf with others."""
        return self.value_bytes > _LARGEST_IN_LEAF

    def places_nbytes(self, capacity: int) -> int:
        """Return the memory in which the places of all values are remembered, in bytes."""
        return _PLACE_BYTES * self.groups(capacity) if self.has_own_pages else 0

    @property
    def parts(self) -> tuple[slice, ...]:
        """The places of the records in a value."""
        return _parts(self.per_value, self.record_bytes)

    def places(self, slots: Ints) -> tuple[Ints, Ints]:
        """Return the key of each slot's value, and which of its parts the record is."""
        groups, within = np.divmod(slots, self.per_value)
        return groups, within

    def groups(self, slots: int) -> int:
        """Return how many values the slots from 0 on take."""
        return -(-slots // self.per_value)

    def slots_in(self, group: int, capacity: int) -> int:
        """Return how many slots a group has."""
        return min(self.per_value, capacity - group * self.per_value)

    def split(self, group: int, value: bytes) -> list[tuple[int, bytes]]:
        """Return slot and bytes of each record in a value of any content.

        A slot that was never written, zero bytes, is left out.
        """
        if self.per_value == 1:
            return [(group, value)]
        records = enumerate(map(value.__getitem__, self.parts), group * self.per_value)
        return [(slot, record) for slot, record in records if record.strip(b"\0")]

    def live_groups(self, first: int, count: int, capacity: int) -> int:
        """Return how many values hold the records of the write ids [first, count)."""
        n, spans = self.per_value, slot_spans(first, count, capacity)
        groups = [range(span.start // n, (span.stop - 1) // n + 1) for span in spans]
        # The newest records may share a value with the oldest.
        is_shared = len(groups) == 2 and groups[0].start == groups[1].stop - 1
        return sum(map(len, groups)) - int(is_shared)


ALONE = Grouping(1, 0)


@functools.lru_cache(64)
def _parts(number: int, record_bytes: int) -> tuple[slice, ...]:
    return tuple(slice(n * record_bytes, (n + 1) * record_bytes) for n in range(number))


def grouping_for(record_bytes: int) -> Grouping:
    """Return how a new store groups records of this size; an existing store says it itself.

    A value holds the fewest records for which it takes at most 1.1 times their bytes on disk, with
    its share of leaf and branch pages; where no number does, the one that takes the least. It is at
    most 64, and at most what 48 KiB hold.

    >>> [grouping_for(record_bytes).per_value for record_bytes in (74, 522, 970, 3084)]
    [3, 15, 1, 5]
    """
    most = max(1, min(_MOST_RECORDS, _MOST_BYTES // record_bytes))
    costs = [slot_bytes(Grouping(n, record_bytes)) for n in range(1, most + 1)]
    goal = max(_GOAL * record_bytes, min(costs))
    return Grouping(next(n for n, cost in enumerate(costs, 1) if cost <= goal), record_bytes)


def slot_bytes(grouping: Grouping) -> float:
    """Return the disk space of a slot of a full store, in bytes, without its priority."""
    own, in_leaf = _own_and_in_leaf(grouping.value_bytes)
    pages = own + (1 + 1 / (_BRANCHES - 1)) / in_leaf  # with a share of leaf and branch pages
    return PAGE_BYTES * pages / grouping.per_value


def tree_bytes(values: int, value_bytes: int) -> int:
    """Return the disk space of a tree of values of one size that were put in order."""
    own, in_leaf = _own_and_in_leaf(value_bytes)
    level = -(-values // in_leaf)
    pages = values * own + level
    while level > 1:
        level = -(-level // (_BRANCHES - 1))
        pages += level
    return pages * PAGE_BYTES


def _own_and_in_leaf(value_bytes: int) -> tuple[int, int]:
    """Return how many pages a value has to itself, and how many values a leaf page refers to."""
    is_large = value_bytes > _LARGEST_IN_LEAF
    node = _NODE_BYTES + (8 if is_large else value_bytes)
    in_leaf = (PAGE_BYTES - PAGE_HEADER) // (node + node % 2 + _POINTER_BYTES)
    return -(-(PAGE_HEADER + value_bytes) // PAGE_BYTES) if is_large else 0, in_leaf
