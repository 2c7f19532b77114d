"""RankTree: a sum-tree that also counts, so that the slot of a rank can be found.

Masses are parted into classes: those that agree in the exponent and the first five bits of the
mantissa, so that the largest of a class is at most 1/32 above the smallest. The members of a class
are counted in each block of slots, in each 32 blocks, and so on::

    class                   1   2   3  ...        classes of larger masses come first in rank
    all slots               7  12   5
    32 blocks               4   9   0  |  3   3   5
    block of 1024 slots     1   0   0  |  0   5   0  | ...

The place in a class goes by the slot. So ranks follow from the masses as they are: neither from the
order of the changes before, nor from a sort at some earlier time.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from diskreplay.aliases import Bools, Floats, Ints
from diskreplay.errors import DamageError
from diskreplay.sampling.sum_tree import SumTree

CLASSES = 2048  # class 0 is that of slots without a mass
_MANTISSA_BITS = 23 - 5  # of a float32, those that make no difference
_LEAST = int(np.float32(2.0**-32).view(np.int32)) >> _MANTISSA_BITS
_BLOCK = 1024
_WIDTH = 32  # blocks, or sums of blocks, under one sum


class RankTree(SumTree):
    """A sum-tree with counts of the slots in each class of masses.

    Memory: up to 6 bytes a slot more than a sum-tree.
    """

    @property
    def nbytes(self) -> int:
        """The memory of the tree, in bytes."""
        return super().nbytes + self._classes.nbytes + sum(counts.nbytes for counts in self._counts)

    def clear(self) -> None:
        """Remove all masses. Cost: O(1)."""
        super().clear()
        rows = [-(-self.capacity // _BLOCK)]
        self._classes = np.zeros(rows[0] * _BLOCK, np.uint16)
        while rows[-1] > 1:
            # A whole number of sums, so that each has the same number of parts.
            rows.append(-(-rows[-1] // _WIDTH))
            rows[-2] = rows[-1] * _WIDTH
        # The parts of a sum lie side by side. Where no slot has a class, no memory is touched.
        self._counts: list[NDArray[Any]] = [np.zeros((CLASSES, n), np.uint32) for n in rows]
        self._counts[0] = np.zeros((CLASSES, rows[0]), np.uint16)

    def assign(self, slots: Ints, masses: Floats) -> None:
        """Set masses as SumTree does."""
        super().assign(slots, masses)
        self._follow(np.unique(slots))

    def fill(self, begin: int, masses: Floats) -> None:
        """Set the masses of the slots from `begin` on."""
        super().fill(begin, masses)
        self._follow(np.arange(begin, begin + masses.size))

    def _follow(self, slots: Ints) -> None:
        """Count some slots, without duplicates, in the classes of their masses."""
        old, new = self._classes[slots].astype(np.int64), classes_of(self._levels[0][slots])
        moved = old != new
        slots, old, new = slots[moved], old[moved], new[moved]
        self._classes[slots] = new
        rows = slots // _BLOCK
        for counts in self._counts:
            flat, one = counts.reshape(-1), counts.dtype.type(1)
            n = counts.shape[1]
            np.add.at(flat, (new * n + rows)[new > 0], one)
            np.subtract.at(flat, (old * n + rows)[old > 0], one)
            rows //= _WIDTH

    def class_sizes(self) -> Ints:
        """Return the number of slots in each class; the classes of larger masses come later."""
        return self._counts[-1][:, 0].astype(np.int64)

    def find_in_classes(self, classes: Ints, places: Ints) -> Ints:
        """Return the slots at some places of their classes, from 0, by slot.

        Cost: O(n log capacity), and a look at the 1024 slots of a block for each.
        """
        rows = np.zeros(classes.size, np.int64)
        parts = np.arange(_WIDTH)
        for counts in self._counts[-2::-1]:
            found = counts[classes[:, None], rows[:, None] * _WIDTH + parts]
            part, places = _part_of(found, places)
            rows = rows * _WIDTH + part
        blocks = self._classes.reshape(-1, _BLOCK)[rows]
        are_members = blocks == classes.astype(np.uint16)[:, None]
        piece, places = _part_of(_sums_of_32(are_members), places)
        each = np.arange(classes.size)
        pieces = are_members.reshape(-1, _BLOCK // _WIDTH, _WIDTH)[each, piece]
        within, _ = _part_of(pieces, places)
        return rows * _BLOCK + piece * _WIDTH + within

    def check(self) -> None:
        """Raise DamageError if the classes or their counts do not follow from the masses."""
        super().check()
        classes = np.zeros(self._classes.size, np.int64)
        classes[: self.capacity] = classes_of(self._levels[0][: self.capacity])
        if (self._classes != classes).any():
            raise DamageError("a slot of the tree is in a wrong class of masses")
        rows = np.arange(classes.size) // _BLOCK
        for counts in self._counts:
            places = (classes * counts.shape[1] + rows)[classes > 0]
            if (np.bincount(places, minlength=counts.size) != counts.reshape(-1)).any():
                raise DamageError("the counts of a class of masses are wrong")
            rows //= _WIDTH


def classes_of(masses: Floats) -> Ints:
    """Return the class of each mass: 0 for 0.0, the others ascending.

    Masses from 2 ** -32 to 2 ** 32 are told apart, to 1 part in 32.
    """
    bits = np.minimum(masses, 2.0**33).astype(np.float32).view(np.int32) >> _MANTISSA_BITS
    classes: Ints = np.clip(bits - _LEAST + 1, 1, CLASSES - 1).astype(np.int64)
    classes[masses == 0.0] = 0
    return classes


def _sums_of_32(flags: Bools) -> NDArray[np.uint64]:
    """Return the numbers of true flags in each 32 of a row; in a tenth of the time of `sum`."""
    rows, n = flags.shape
    eights = flags.view(np.uint64).reshape(rows, n // 32, 4)  # a flag is a byte, 0 or 1
    sums = eights[:, :, 0] + eights[:, :, 1] + eights[:, :, 2] + eights[:, :, 3]
    ones = np.uint64(0x0101010101010101)
    found: NDArray[np.uint64] = (sums * ones) >> np.uint64(56)  # the sum of the eight bytes
    return found


def _part_of(counts: NDArray[Any], places: Ints) -> tuple[Ints, Ints]:
    """Return the part that each place is in, and the place within that part.

    counts:  (n, parts), the numbers of places in each part
    """
    ends = counts.cumsum(axis=1, dtype=np.int64)
    part = (ends <= places[:, None]).sum(axis=1)
    each = np.arange(places.size)
    return part, places - ends[each, part] + counts[each, part].astype(np.int64)
