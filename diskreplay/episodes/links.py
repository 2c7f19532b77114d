"""Links: a slot table of the distance from each transition back to the one before it.

A link d of the write id w is positive where the transition before it in its episode is w - d. It is
negative where w is the first of its episode, and w - |d| the last one before it of the same env. It
is 0 where w is the first of its episode, and nothing before it is known. So links lead back only::

    write id    0   1   2   3   4   5   6        two envs, a and b, in turns
    env         a   b   a   b   a   b   a        the episode of a ends with write id 2
    link        0   0   2   2  -2   2   2

The links forward follow from these, and are kept in memory once they are asked for.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from diskreplay.aliases import Ints
from diskreplay.live_range import LiveRange
from diskreplay.sampling import PART_SLOTS, SlotTable

LinkValues: TypeAlias = NDArray[np.int32]
MAX_DISTANCE = int(np.iinfo(np.int32).max)


def links_to(before: Ints, write_ids: Ints, signs: NDArray[Any]) -> LinkValues:
    """Return the links of write ids to the ones before them; 0 where one would be too far.

    before:  -1 where it is not there: the link then leads to that id, which is never live, so that
             the rest of an episode does not pass for a whole one
    signs:   other links of the same transitions, which have the same signs
    """
    distances = write_ids - before
    distances[distances > MAX_DISTANCE] = 0
    links: LinkValues = (distances * np.sign(signs)).astype(np.int32)
    return links


class Links(SlotTable[np.int32]):
    """The link of each slot. A write id keeps its link for ever.

    A change lets the forward table go before its first step, and takes it back after its last, so
    that after an interrupt the table is built again.
    """

    database = "links"
    dtype = np.dtype(np.int32)
    item = "link block"

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        # By slot: the distance to the next transition of the env, with the sign of its link.
        self._forward: NDArray[np.int32] | None = None

    @property
    def nbytes(self) -> int:
        """The memory of the table, and of the forward table once it was asked for, in bytes."""
        return super().nbytes + (0 if self._forward is None else self._forward.nbytes)

    def back(self, write_ids: Ints, live: LiveRange, *, across: bool = False) -> Ints:
        """Return the write id before each live write id in its episode, -1 where none is live.

        across:  also the last one of the episode before it, of the same env
        """
        links = self.of(write_ids, live).astype(np.int64)
        before = write_ids - np.abs(links)
        known = (links != 0 if across else links > 0) & (before >= live.first)
        return np.where(known, before, -1)

    def forward(self, write_ids: Ints, live: LiveRange, *, across: bool = False) -> Ints:
        """Return the write id after each live write id in its episode, -1 where there is none.

        across:  also the first one of the next episode, of the same env
        """
        distances = self.distances(write_ids, live, across=across)
        return np.where(distances > 0, write_ids + distances, -1)

    def distances(self, write_ids: Ints, live: LiveRange, *, across: bool = False) -> LinkValues:
        """Return the distance from each live write id to the one after it, 0 where there is none.

        The first call, and the first one after a clear or an interrupt, builds a table of 4 bytes a
        slot. Cost: O(n), of the first call O(size).

        across:  as of `forward`
        """
        if self._settled_to != live.count:
            self.settle(live)
        if self._forward is None:
            forward = np.zeros(self.capacity, np.int32)
            self._follow(forward, live, live)
            self._forward = forward
        signed = self._forward[write_ids % self.capacity]
        distances: LinkValues = np.abs(signed) if across else np.maximum(signed, 0)
        return distances

    def settle(self, live: LiveRange) -> None:
        """Write the staged links into their slots, and follow them in the forward table."""
        if self._settled_to != live.count:
            with self._following(live):
                super().settle(live)

    def load(self, blocks: Mapping[int, bytes], live: LiveRange) -> None:
        """Load blocks of the store, and follow their new links in the forward table."""
        with self._following(live):
            super().load(blocks, live)

    def load_none(self, live: LiveRange) -> None:
        """Set the links of all write ids below `live.count` to 0: the store has none yet.

        The next commit writes them all.
        """
        self.load({}, live)
        self._dirty[live.blocks()] = True

    def clear(self, count: int) -> None:
        """Remove the links of all write ids below `count`."""
        self._forward = None
        super().clear(count)

    @contextlib.contextmanager
    def _following(self, live: LiveRange) -> Iterator[None]:
        """Follow the links of the write ids that the block settles in the forward table."""
        new = live.since(self._settled_to)
        forward, self._forward = self._forward, None
        yield
        if forward is not None:
            self._follow(forward, new, live)
            self._forward = forward

    def _follow(self, forward: NDArray[np.int32], new: LiveRange, live: LiveRange) -> None:
        """Put the links of new write ids into a forward table."""
        for span in new.spans(PART_SLOTS):
            forward[span] = 0
        for span in new.spans(PART_SLOTS):
            links = self.values[span]
            slots = np.flatnonzero(links) + span.start
            before = live.newest_ids(slots) - np.abs(links[slots - span.start].astype(np.int64))
            is_live = before >= live.first
            forward[before[is_live] % self.capacity] = self.values[slots[is_live]]
