"""Packing: how many records share a value of the store, and what a store costs on disk.

LMDB gives a value of more than 2022 bytes pages of its own, and begins a page of smaller ones with
as many as fit whole. So records of just over half a page, or just over a page, waste up to half of
the file. Where that is so, the records of `per_value` consecutive slots are stored one after the
other in one value, a group::

    slot     0 1 2 | 3 4 5 | 6 7      capacity 8, per_value 3: the last group is shorter
    key      0     | 1     | 2
    value    r r r | r r r | r r      a slot that was never written is zero bytes

Everything here is arithmetic over sizes in bytes: it knows no store and no schema.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

PAGE_BYTES = 4096
_PAGE_HEADER = 16
_NODE_BYTES = 8 + 8  # header and key
_POINTER_BYTES = 2
_LARGEST_IN_LEAF = 2022
_BRANCHES = (PAGE_BYTES - _PAGE_HEADER) // (_NODE_BYTES + _POINTER_BYTES)
_LEAST_PAYLOAD = 64  # below it the framing of records is what costs
# Of the payload: the first leaves room up to 1.2 for pages that commits have freed. The others are
# for records whose framing takes that room: for one by itself, which is read faster, and for more.
_FINE, _FINE_ALONE, _FINE_PACKED = 1.17, 1.195, 1.18
_NEAREST = 1.02  # of the least possible, where the goal is out of reach
_MOST_RECORDS = 64
_MOST_BYTES = 12 * PAGE_BYTES  # of a value: a read from a cold disk meets each of its pages
BLOCK_BYTES = 4032  # of 1000 priorities, sealed: a little more than they take


class Packing(NamedTuple):
    """How many records of how many bytes share a value; 1 is a record by itself."""

    per_value: int
    record_bytes: int

    def places(self, slots: Ints) -> tuple[Ints, Ints]:
        """Return the key of each slot's value, and where in the value its record begins."""
        groups, within = np.divmod(slots, self.per_value)
        return groups, within * self.record_bytes

    def groups(self, slots: int) -> int:
        """Return how many values the slots from 0 on take."""
        return -(-slots // self.per_value)

    def split(self, group: int, value: bytes) -> list[tuple[int, int, bytes]]:
        """Return slot, offset and bytes of each record in a value, whatever the value is.

        What was never written, zero bytes, is left out.
        """
        if self.per_value == 1:
            return [(group, 0, value)]
        size = self.record_bytes
        parts = ((n, n * size, value[n * size : (n + 1) * size]) for n in range(self.per_value))
        first = group * self.per_value
        return [(first + n, at, part) for n, at, part in parts if part.strip(b"\0")]

    def slots_in(self, group: int, capacity: int) -> int:
        """Return how many slots a group has."""
        return min(self.per_value, capacity - group * self.per_value)

    def live_groups(self, first: int, count: int, capacity: int) -> int:
        """Return how many values hold the records of the write ids [first, count)."""
        if count <= first:
            return 0
        begin, last = first % capacity // self.per_value, (count - 1) % capacity // self.per_value
        if (count - 1) % capacity >= first % capacity:
            return last - begin + 1
        all_of_them = self.groups(capacity)
        return min(all_of_them, all_of_them - begin + last + 1)


ALONE = Packing(1, 0)


def packing_for(record_bytes: int, payload_bytes: int) -> Packing:
    """Return how records of a size are stored: it follows from these two numbers alone.

    A value holds the smallest number of records for which values, the pages above them and
    priorities take at most 1.17 times the payload; or else one, if that takes 1.195 times, or as
    many as take 1.18 times. Where framing alone costs more than that, it is the smallest that comes
    within 2 % of the least possible; such records, if small, stay in one page.

    >>> packing_for(970, 944).per_value, packing_for(3084, 3056).per_value
    (1, 5)
    """
    most = max(1, min(_MOST_RECORDS, _MOST_BYTES // record_bytes))
    if payload_bytes < _LEAST_PAYLOAD or most == 1:
        return Packing(1, record_bytes)
    costs = [
        slot_bytes(Packing(n, record_bytes)) + _value_bytes(BLOCK_BYTES) / 1000
        for n in range(1, most + 1)
    ]
    for alone, packed in ((_FINE, _FINE), (_FINE_ALONE, _FINE_PACKED)):
        for number, cost in enumerate(costs, 1):
            if cost <= (alone if number == 1 else packed) * payload_bytes:
                return Packing(number, record_bytes)
    if 2 * record_bytes <= _LARGEST_IN_LEAF:
        costs = costs[: _LARGEST_IN_LEAF // record_bytes]
    near = _NEAREST * min(costs)
    return Packing(next(n for n, cost in enumerate(costs, 1) if cost <= near), record_bytes)


def slot_bytes(packing: Packing) -> float:
    """Return the disk space of a slot of a full store, in bytes, without its priority."""
    return _value_bytes(packing.per_value * packing.record_bytes) / packing.per_value


def pages_of(value_bytes: int) -> int:
    """Return how many pages a value is on."""
    if value_bytes <= _LARGEST_IN_LEAF:
        return 1
    return -(-(_PAGE_HEADER + value_bytes) // PAGE_BYTES)


def tree_bytes(values: int, value_bytes: int) -> int:
    """Return the disk space of a tree of values of one size, which were put in order."""
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
    in_leaf = (PAGE_BYTES - _PAGE_HEADER) // (node + node % 2 + _POINTER_BYTES)
    return pages_of(value_bytes) if is_large else 0, in_leaf


def _value_bytes(value_bytes: int) -> float:
    """Return the disk space of one of many values, with its share of leaf and branch pages."""
    own, in_leaf = _own_and_in_leaf(value_bytes)
    return PAGE_BYTES * (own + (1 + 1 / (_BRANCHES - 1)) / in_leaf)
