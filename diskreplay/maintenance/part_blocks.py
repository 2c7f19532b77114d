"""PartBlocks: the blocks of a slot table that is written in parts, in the order of its slots."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from diskreplay.live_range import BLOCK_SLOTS, block_span
from diskreplay.sampling import Blocks, SlotTable


class PartBlocks:
    """The blocks of one table, of a ring of so many slots."""

    def __init__(self, table: type[SlotTable[Any]], ring_slots: int) -> None:
        self.database = table.database
        self._dtype, self._ring_slots = table.dtype, ring_slots
        self._ends: dict[int, NDArray[Any]] = {}  # the first block and the last one

    def of(self, slot: int, values: NDArray[Any]) -> dict[int, bytes]:
        """Return the blocks of the slots from `slot` on.

        A block with slots of two parts is written with both, the second time as a whole.
        """
        first, end = slot // BLOCK_SLOTS, slot + values.size
        begin, last = first * BLOCK_SLOTS, (end - 1) // BLOCK_SLOTS
        table = np.zeros(block_span(last, self._ring_slots).stop - begin, self._dtype)
        for number in self._ends.keys() & {first, last}:
            block = self._ends[number]
            table[number * BLOCK_SLOTS - begin :][: block.size] = block
        table[slot - begin : end - begin] = values
        oldest = next(iter(self._ends), first)  # the last part may end in it again
        self._ends = {
            number: table[number * BLOCK_SLOTS - begin :][:BLOCK_SLOTS]
            if first <= number <= last
            else self._ends[number]
            for number in (oldest, last)
        }
        found = Blocks(table, list(range(last - first + 1)))
        return {first + number: content for number, content in found.items()}
