"""SumTree: draw a slot with probability proportional to its mass.

A complete binary tree of float64 sums, kept as one array a level::

    levels[-1]              [ 10 ]                 the total
    levels[1]         [ 3 ]        [ 7 ]           each parent is left + right, recomputed
    levels[0]      [ 1 ]  [ 2 ] [ 3 ]  [ 4 ]       the leaves: one mass a slot

A value in [0, total) falls on the leaf that covers it when the leaves are laid end to end. Parents
are always recomputed from their children, never changed by a difference, so a sum does not depend
on the order of the updates that led to it.

From its first search on, a tree uses the compiled functions of compiled_tree.py, where there are
any: the same sums and leaves, bit for bit.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from diskreplay.aliases import Floats, Ints
from diskreplay.errors import ArgumentError, DamageError, PriorityError, SampleError
from diskreplay.sampling.compiled_tree import CompiledTree, compiled_tree
from diskreplay.sampling.tree_part import TreePart
from diskreplay.validation import as_array, checked_capacity, real_numbers

_MAX_MASS = 1e295  # the sum of as many as the largest capacity is finite
_WIDE = 1024  # up to so many nodes a level is searched as a whole, which is faster
_DENSE = 8  # if at least one node in 8 changes, the whole level is computed anew
_FEW = 1 << 14  # numpy adds up more than these at once faster than the compiled functions
_PART = 1 << 20  # the most leaves or nodes in one step of a check, since each takes memory


class SumTree:
    """A sum tree over `capacity` slots, each with a mass and, if wanted, a piece of data.

    A slot is in use while its mass is above zero; only slots in use are ever returned.
    Memory: 16 bytes a slot, taken from the operating system as the slots fill.

    >>> tree = SumTree(capacity=4)
    >>> for mass, write_id in [(1.0, 10), (2.0, 11), (3.0, 12)]:
    ...     slot = tree.add(mass, write_id)
    >>> tree.total_priority
    6.0
    >>> tree.get(1.5)
    (1, 2.0, 11)
    """

    _data: list[Any]
    _next: int
    _compiled: CompiledTree | None = None

    def __init__(self, capacity: int) -> None:
        self.capacity = checked_capacity(capacity)
        self.clear()

    def __repr__(self) -> str:
        return f"SumTree(capacity={self.capacity}, total_priority={self.total_priority})"

    @property
    def nbytes(self) -> int:
        """The memory of the tree when all slots are in use, in bytes."""
        return 16 * self.capacity

    # One at a time

    def add(self, priority: float, data: Any = None) -> int:
        """Set the mass and data of the next slot, or of the oldest when full; return the slot.

        Cost: O(log capacity). Raises PriorityError and changes nothing when the priority is
        negative, NaN or infinite.
        """
        slot = self._next
        self.update(slot, priority)
        if slot == len(self._data):
            self._data.append(data)
        else:
            self._data[slot] = data
        self._next = (slot + 1) % self.capacity
        return slot

    def update(self, tree_idx: int, priority: float) -> None:
        """Change the mass of a slot, as `add` or `get` returned it. Cost: O(log capacity)."""
        self.set([tree_idx], [priority])

    def get(self, value: float) -> tuple[int, float, Any]:
        """Return (slot, mass, data) of the leaf that covers `value`, 0 <= value < total_priority.

        A value outside is moved to the nearest end. Cost: O(log capacity). Raises SampleError when
        no slot is in use.
        """
        slots, masses = self.find([value])
        slot = int(slots[0])
        return slot, float(masses[0]), self._data[slot] if slot < len(self._data) else None

    # Arrays

    def set(self, slots: ArrayLike, masses: ArrayLike) -> None:
        """Set the masses of many slots; the last of duplicates wins, zero takes a slot out of use.

        Cost: O(n log capacity), vectorised. Raises PriorityError or ArgumentError, and changes
        nothing, when a mass is negative, NaN or infinite or a slot is outside the tree.

        slots:   int (n,), each in [0, capacity)
        masses:  float (n,)

        >>> tree = SumTree(8)
        >>> tree.set([0, 5, 5], [1.0, 2.0, 0.5])
        >>> tree.total_priority
        1.5
        """
        masses = real_numbers("priorities", masses, PriorityError)
        slots = self._checked_slots(slots)
        if slots.shape != masses.shape:
            raise ArgumentError(
                f"expected one mass for each slot (found {masses.size} for {slots.size})"
            )
        good = (masses >= 0.0) & (masses <= _MAX_MASS)
        if not good.all():
            raise PriorityError(
                f"a priority must be finite and not negative (found {masses[~good][0]}), "
                f"at most {_MAX_MASS:g}"
            )
        if slots.size:
            self.assign(slots, masses)

    def assign(self, slots: Ints, masses: Floats) -> None:
        """Set masses as `set` does, without its checks; n must be above 0."""
        if self._compiled and slots.size <= _FEW:
            # The copies are contiguous, aligned and writable, as it takes them.
            self._compiled.assign(self._sums, self._starts, slots.flatten(), masses.flatten())
            return
        self._levels[0][slots] = masses
        nodes = slots
        for below, above in itertools.pairwise(self._levels):
            if nodes.size * _DENSE >= above.size:
                np.add(below[::2], below[1::2], out=above[: below.size // 2])
                continue
            nodes = nodes >> 1
            if nodes.size > 1024:
                nodes = np.unique(nodes)
            children = below.view(np.complex128).take(nodes)  # a pair of children as one number
            above[nodes] = children.real + children.imag

    def fill(self, begin: int, masses: Floats) -> None:
        """Set the masses of the slots from `begin` on, as `assign` does. Cost: O(n)."""
        end = begin + masses.size
        if self._compiled and masses.size <= _FEW:
            self.assign(np.arange(begin, end), masses)
            return
        self._levels[0][begin:end] = masses
        for below, above in itertools.pairwise(self._levels):
            begin, end = begin >> 1, (end + 1) >> 1
            children = below[2 * begin : 2 * end]
            np.add(children[::2], children[1::2], out=above[begin:end])

    def find(self, values: ArrayLike) -> tuple[Ints, Floats]:
        """Return (slots, masses) of the leaves that cover `values`; every mass is above zero.

        Values outside [0, total_priority) are moved to the nearest end. Cost: O(n log capacity),
        vectorised. Raises SampleError when no slot is in use, ArgumentError for NaN.

        >>> tree = SumTree(3)
        >>> tree.set([0, 2], [1.0, 2.0])
        >>> tree.find([0.0, 0.999, 1.0, 2.5])[0]
        array([0, 0, 2, 2])
        """
        total = self._levels[-1][0]
        if total <= 0.0:
            raise SampleError("nothing to draw: no slot of the tree has a mass above zero")
        targets = real_numbers("values", values).reshape(-1)
        if np.isnan(targets).any():
            raise ArgumentError("cannot find NaN: expected values in [0, total_priority)")
        targets = np.maximum(targets, 0.0)
        np.minimum(targets, np.nextafter(total, 0.0), out=targets)
        self._compiled = compiled_tree()
        if self._compiled:
            return self._compiled.find(self._sums, self._starts, self._wide, self.capacity, targets)
        wide = self._levels[self._wide]
        sums = wide.cumsum()
        slots = sums.searchsorted(targets, side="right")
        rests = targets - (sums - wide).take(slots, mode="clip")
        for level in reversed(self._levels[: self._wide]):
            slots <<= 1
            left = level.take(slots, mode="clip")
            right_side = rests >= left
            left *= right_side
            rests -= left
            slots += right_side
        masses = self._levels[0].take(slots, mode="clip")
        # The subtractions round, so a rest can exceed the sum under a node by the last bit and lead
        # to an empty leaf or beyond the last one. Such values are rare and are searched again.
        for i in np.flatnonzero((masses == 0.0) | (slots >= self.capacity)):
            slots[i] = self._walk(float(targets[i]))
            masses[i] = self._levels[0][slots[i]]
        return slots, masses

    def part(self, spans: Iterable[slice]) -> TreePart:
        """Return some spans of slots to find leaves in; good until the next change."""
        return TreePart(self._levels, spans, self._wide)

    def masses(self, slots: ArrayLike) -> Floats:
        """Return the masses of slots, float64 (n,), zero where a slot is not in use."""
        return self._levels[0].take(self._checked_slots(slots))

    # All slots in use

    @property
    def total_priority(self) -> float:
        """The sum of all masses. Cost: O(1)."""
        return float(self._levels[-1][0])

    @property
    def max_priority(self) -> float:
        """The largest mass in use, 0.0 for an empty tree. Cost: O(capacity)."""
        return float(self._levels[0].max())

    @property
    def min_priority(self) -> float:
        """The smallest mass in use, 0.0 for an empty tree. Cost: O(capacity)."""
        smallest = (part[part > 0.0].min(initial=np.inf) for part in self._parts())
        lowest = float(min(smallest))
        return lowest if lowest < np.inf else 0.0

    def clear(self) -> None:
        """Remove all masses and data. Cost: O(1)."""
        sizes = [self.capacity]
        while sizes[-1] > 1:
            sizes.append((sizes[-1] + 1) // 2)
        # Every level but the root has an even length, so that each node has a sibling.
        lengths = [size + size % 2 for size in sizes[:-1]] + [1]
        self._starts = np.array([0, *itertools.accumulate(lengths)])
        try:
            self._sums = np.zeros(self._starts[-1])
        except MemoryError:
            raise ArgumentError(
                f"capacity {self.capacity} needs {16 * self.capacity >> 30} GiB of memory: "
                "choose a smaller one"
            ) from None
        self._levels = self._cut()
        # The lowest level of which all nodes are searched at once.
        self._wide = next(h for h, level in enumerate(self._levels) if level.size <= _WIDE)
        self._data = []
        self._next = 0

    @property
    def in_use(self) -> int:
        """The number of slots with a mass above zero. Cost: O(capacity)."""
        return int(np.count_nonzero(self._levels[0]))

    def check(self) -> None:
        """Raise DamageError with every fault found: a sum that is not left + right, a bad mass."""
        faults = []
        if not all(((part >= 0.0) & (part <= _MAX_MASS)).all() for part in self._parts()):
            faults.append("a mass is negative, NaN or infinite")
        if self._levels[0][self.capacity :].any():
            faults.append("a leaf beyond the capacity has a mass")
        for height, (below, above) in enumerate(itertools.pairwise(self._levels), 1):
            for start in range(0, below.size // 2, _PART):
                part = below[2 * start : 2 * (start + _PART)]
                found = above[start : start + part.size // 2]
                wrong = start + np.flatnonzero(found != part[::2] + part[1::2])
                faults += [f"node {i} of level {height} is not left + right" for i in wrong[:10]]
        if faults:
            raise DamageError("; ".join(faults))

    def _cut(self) -> list[Floats]:
        """Return the levels, views of one array."""
        return [self._sums[begin:end] for begin, end in itertools.pairwise(self._starts.tolist())]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_levels": None, "_compiled": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._levels = self._cut()  # copied on their own, they would be arrays of their own

    def _parts(self) -> Iterator[Floats]:
        leaves = self._levels[0]
        for start in range(0, leaves.size, _PART):
            yield leaves[start : start + _PART]

    def _checked_slots(self, slots: ArrayLike) -> Ints:
        array = as_array(slots, ArgumentError, "slots must be whole numbers")
        if array.size == 0:
            return np.zeros(array.shape, np.int64)
        if array.dtype.kind not in "iu":
            raise ArgumentError(f"slots must be whole numbers (found {array.dtype})")
        if array.min() < 0 or array.max() >= self.capacity:
            raise ArgumentError(
                f"a slot must be in [0, {self.capacity}) (found {array.min()} to {array.max()})"
            )
        return array.astype(np.int64, copy=False)

    def _walk(self, target: float) -> int:
        """Return the leaf of one value; go right only where the right side has a mass."""
        slot = 0
        for level in reversed(self._levels[:-1]):
            slot *= 2
            if target >= level[slot] and level[slot + 1] > 0.0:
                target -= level[slot]
                slot += 1
        return slot
