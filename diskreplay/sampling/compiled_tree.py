"""CompiledTree: the steps of a sum-tree, compiled by numba where it is installed.

The sums and the leaves are bit for bit those of the numpy steps in sum_tree.py. Both functions go
level by level over all values: so many reads of memory are under way at once, where one value after
the other would wait for each. A tree is its levels in one array, the leaves first::

    sums    1  2  3  4 | 3  7 | 10         starts  [0, 4, 6, 7]
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from diskreplay.aliases import Floats, Ints

_FIND = "Tuple((int64[::1], float64[::1]))(float64[::1], int64[::1], int64, int64, float64[::1])"
_ASSIGN = "void(float64[::1], int64[::1], int64[::1], float64[::1])"
_DENSE = 4  # if at least one node in 4 changes, the whole level is computed anew


class CompiledTree(NamedTuple):
    """The compiled functions of this file."""

    find: Callable[[Floats, Ints, int, int, Floats], tuple[Ints, Floats]]
    assign: Callable[[Floats, Ints, Ints, Floats], None]


@functools.cache
def compiled_tree() -> CompiledTree | None:
    """Return the compiled functions, None where numba is not installed or does not work.

    Cost: half a second at the first call of a process where numba is, and two more at the first
    call ever: what is compiled is kept beside this file, or else in the user's cache.
    """
    try:
        import numba

        compiled = functools.partial(numba.njit, cache=True)
        return CompiledTree(compiled(_FIND)(find), compiled(_ASSIGN)(assign))
    except Exception:  # it may not fit the numpy that is here, or find no place to keep its work
        return None


def find(
    sums: Floats, starts: Ints, wide: int, capacity: int, targets: Floats
) -> tuple[Ints, Floats]:
    """Return the leaves that cover values in [0, total), and their masses.

    wide:  the level of which all nodes are searched at once
    """
    n = targets.size
    slots, masses, rests = np.empty(n, np.int64), np.empty(n), np.empty(n)
    at = starts[wide]
    size = starts[wide + 1] - at
    ends = np.empty(size)
    end = 0.0
    for node in range(size):
        end += sums[at + node]
        ends[node] = end
    for i in range(n):
        slot, beyond = 0, size  # as numpy.searchsorted(side="right"), which compiles slowly
        while slot < beyond:
            middle = (slot + beyond) // 2
            if targets[i] < ends[middle]:
                beyond = middle
            else:
                slot = middle + 1
        node = min(slot, size - 1)
        slots[i] = slot
        rests[i] = targets[i] - (ends[node] - sums[at + node])
    for level in range(wide - 1, -1, -1):
        at = starts[level]
        last = starts[level + 1] - 1
        for i in range(n):
            slot = 2 * slots[i]
            left = sums[min(at + slot, last)]
            is_right = rests[i] >= left
            rests[i] -= left if is_right else 0.0
            slots[i] = slot + is_right
    for i in range(n):
        slot = slots[i]
        if slot >= capacity or sums[slot] == 0.0:  # rounding led beyond the leaf: see SumTree.find
            slot, rest = 0, targets[i]
            for level in range(starts.size - 3, -1, -1):
                slot *= 2
                left = sums[starts[level] + slot]
                if rest >= left and sums[starts[level] + slot + 1] > 0.0:
                    rest -= left
                    slot += 1
            slots[i] = slot
        masses[i] = sums[slot]
    return slots, masses


def assign(sums: Floats, starts: Ints, slots: Ints, masses: Floats) -> None:
    """Set the masses of slots, the last of duplicates, and compute the sums above anew."""
    n = slots.size
    nodes = np.empty(n, np.int64)
    for i in range(n):
        sums[slots[i]] = masses[i]
        nodes[i] = slots[i]
    for level in range(1, starts.size - 1):
        below = sums[starts[level - 1] : starts[level]]
        above = sums[starts[level] : starts[level + 1]]
        if _DENSE * n >= above.size:
            for node in range(below.size // 2):
                above[node] = below[2 * node] + below[2 * node + 1]
            continue
        kept, before = 0, -1
        for i in range(n):
            node = nodes[i] >> 1
            if node != before:  # neighbours share their parents
                above[node] = below[2 * node] + below[2 * node + 1]
                nodes[kept] = node
                kept, before = kept + 1, node
        n = kept
