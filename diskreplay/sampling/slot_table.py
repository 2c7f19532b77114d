"""SlotTable: one number for each slot of a ring, in memory and in blocks of the store.

Values are staged by write id, before their rows are live. The next call that needs them settles
them: it writes them into their slots. So a refused or interrupted push leaves no trace: the next
push writes over values that were staged for write ids that never became live.

A block holds the values of 1000 slots. Only the blocks that differ from the store are committed,
and opening a store reads the blocks and no record::

    slots      0 ......... 999 | 1000 ...... 1999 | 2000 ... 2399     capacity 2400
    blocks     0               | 1                | 2, shorter
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from diskreplay.aliases import Ints
from diskreplay.errors import ArgumentError, DamageError
from diskreplay.live_range import BLOCK_SLOTS, LiveRange, block_span, blocks_in
from diskreplay.wording import count_of

ValueT = TypeVar("ValueT", bound=np.generic)

PART_SLOTS = 1 << 18  # the most slots in one step, since each step takes memory
_VALUE_BYTES = 4  # of each type that a table may have
_STAGED_KEPT = 1 << 14  # places for staged values that are never given back


def slot_table_nbytes(capacity: int) -> int:
    """Return the memory of a table, in bytes, when all slots are in use."""
    return _VALUE_BYTES * (capacity + _STAGED_KEPT) + blocks_in(capacity)


class SlotTable(Generic[ValueT]):
    """A number for each slot, stored in blocks in the database of that name.

    dtype:       of the numbers: float32 or int32
    item:        the word for a block, in messages
    slot_bytes:  the memory that a slot takes, with all that follows the table
    way_out:     of a damaged block, in messages
    """

    database: ClassVar[str]
    dtype: ClassVar[np.dtype[Any]]
    item: ClassVar[str]
    slot_bytes: ClassVar[int] = _VALUE_BYTES
    way_out: ClassVar[str] = (
        "restore the store from a copy, or copy what can be read of it with diskreplay.repair()"
    )

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        try:
            self.values = self._zeros(capacity)
            self._dirty = np.zeros(blocks_in(capacity), np.bool_)
            self._staged = self._zeros(_STAGED_KEPT)
        except MemoryError:
            raise self._too_large() from None
        self._settled_to = 0  # the values of write ids from here on are staged

    @classmethod
    def _zeros(cls, n: int) -> NDArray[ValueT]:
        return np.zeros(n, cls.dtype)

    def _too_large(self) -> ArgumentError:
        return ArgumentError(
            f"capacity {self.capacity} needs {self.slot_bytes * self.capacity >> 30} GiB of memory "
            f"for its {self.database}, {self.slot_bytes} bytes a slot: choose a smaller one"
        )

    @property
    def nbytes(self) -> int:
        """The memory of the table, in bytes."""
        return slot_table_nbytes(self.capacity) + _VALUE_BYTES * (self._staged.size - _STAGED_KEPT)

    def stage(self, first: int, n: int, values: NDArray[ValueT] | float) -> None:
        """Stage the values of n write ids from `first` on, before they become live."""
        at = first - self._settled_to
        if n == 1 and at < _STAGED_KEPT:  # a push: one number is assigned several times faster
            self._staged[at] = values[0] if isinstance(values, np.ndarray) else values
            return
        if at + n > self._staged.size:
            more = self._zeros(max(at + n, 2 * self._staged.size))
            more[:at] = self._staged[:at]
            self._staged = more
        self._staged[at : at + n] = values

    def settle(self, live: LiveRange) -> None:
        """Write the staged values into their slots; safe to interrupt and to repeat."""
        if self._settled_to == live.count:
            return
        begin = max(live.first, self._settled_to)
        at = begin - self._settled_to
        for span in live.since(begin).spans(PART_SLOTS):
            size = span.stop - span.start
            self._dirty[span.start // BLOCK_SLOTS : (span.stop - 1) // BLOCK_SLOTS + 1] = True
            self.values[span] = self._staged[at : at + size]
            self._follow_span(span)
            at += size
        self._settled_to = live.count
        if self._staged.size > _STAGED_KEPT:
            self._staged = self._zeros(_STAGED_KEPT)

    def set(self, slots: Ints, values: NDArray[ValueT]) -> None:
        """Set the values of settled slots; the last of duplicates wins."""
        self._dirty[slots // BLOCK_SLOTS] = True
        self.values[slots] = values
        self._follow_slots(slots)

    def of(self, write_ids: Ints, live: LiveRange) -> NDArray[ValueT]:
        """Return the values of live write ids."""
        self.settle(live)
        return self.values[write_ids % self.capacity]

    def live_values(self, live: LiveRange) -> NDArray[ValueT]:
        """Return the values of the live slots, oldest first. Cost: O(size)."""
        self.settle(live)
        return np.concatenate([self.values[:0], *(self.values[span] for span in live.spans())])

    def clear(self, count: int) -> None:
        """Remove the values of all write ids below `count`."""
        self.values = self._zeros(self.capacity)  # untouched pages take no memory
        self._staged = self._zeros(_STAGED_KEPT)
        self._settled_to = count

    def dirty_blocks(self, live: LiveRange) -> Blocks:
        """Return the blocks that differ from the committed ones; good until the next change."""
        self.settle(live)
        return Blocks(self.values, np.flatnonzero(self._dirty).tolist())

    def mark_committed(self, blocks: Iterable[int]) -> None:
        """Mark blocks as equal to those of the store."""
        self._dirty[list(blocks)] = False

    def load(self, blocks: Mapping[int, bytes], live: LiveRange) -> None:
        """Load blocks of the store, which hold the values of all write ids below `live.count`."""
        new = live.since(self._settled_to)
        is_much = len(blocks) * BLOCK_SLOTS > self.capacity // 4  # then a rebuild costs less
        changed = [np.zeros(0, np.int64)]
        for number, content in blocks.items():
            span = block_span(number, self.capacity)
            stored = self.block_of(number, content, self.capacity)
            if not is_much:
                changed.append(np.flatnonzero(self.values[span] != stored) + span.start)
            self.values[span] = stored
        self._settled_to = live.count
        if is_much:
            self._follow_all(live)
            return
        for span in new.spans(PART_SLOTS):
            self._follow_span(span)
        slots = np.concatenate(changed)
        self._follow_slots(slots[live.newest_ids(slots) >= live.first])

    def mark_broken(self) -> None:
        """Mark what follows the values as broken, so that it is built again before its next use."""

    # Blocks as the store holds them

    @classmethod
    @contextlib.contextmanager
    def read_from(cls, path: Path) -> Iterator[None]:
        """Name the store and the way out in the errors of a block of code that reads blocks."""
        try:
            yield
        except DamageError as error:
            raise DamageError(f"{error}, in {path}: {cls.way_out}") from None

    @classmethod
    def _stored_dtype(cls) -> np.dtype[Any]:
        return cls.dtype.newbyteorder("<")

    @classmethod
    def block_of(cls, number: int, content: bytes, capacity: int) -> NDArray[ValueT]:
        """Return the values of a stored block, or raise DamageError."""
        span = block_span(number, capacity)
        expected = max(0, span.stop - span.start) * _VALUE_BYTES
        if not expected or len(content) != expected:
            raise DamageError(
                f"{cls.item} {number} has {count_of(len(content), 'byte')} (expected {expected:,})"
            )
        block: NDArray[ValueT] = np.frombuffer(content, cls._stored_dtype())
        cls._check_block(number, block)
        return block

    @classmethod
    def empty_block(cls, number: int, capacity: int) -> bytes:
        """Return a stored block of zeros."""
        span = block_span(number, capacity)
        return bytes((span.stop - span.start) * _VALUE_BYTES)

    @classmethod
    def overlaid(
        cls,
        capacity: int,
        read: Callable[[list[int]], Mapping[int, bytes]],
        live: LiveRange,
        write_ids: Ints,
        values: NDArray[Any],
    ) -> dict[int, bytes]:
        """Return stored blocks with new values in them; the last of duplicates wins.

        Blocks without a live slot need not be stored.

        read:  returns stored blocks by number, or raises if one is missing
        live:  the live range of the store
        """
        slots = write_ids % capacity
        numbers = np.unique(slots // BLOCK_SLOTS)
        places = numbers[:, None] * BLOCK_SLOTS + np.arange(BLOCK_SLOTS)
        is_live = (live.newest_ids(places) >= live.first) & (places < capacity)
        table = np.zeros(places.shape, cls._stored_dtype())
        for number, content in read(numbers[is_live.any(axis=1)].tolist()).items():
            block = cls.block_of(number, content, capacity)
            table[np.searchsorted(numbers, number), : block.size] = block
        table[np.searchsorted(numbers, slots // BLOCK_SLOTS), slots % BLOCK_SLOTS] = values
        return {
            number: row[: block_span(number, capacity).stop - number * BLOCK_SLOTS].tobytes()
            for number, row in zip(numbers.tolist(), table, strict=True)
        }

    @classmethod
    def _check_block(cls, number: int, block: NDArray[ValueT]) -> None:
        """Raise DamageError for a block with values that no commit writes."""

    # Called after changes: a subclass may keep a structure that follows the values.

    def _follow_span(self, span: slice) -> None:
        """Follow a change of the values of a span of slots."""

    def _follow_slots(self, slots: Ints) -> None:
        """Follow a change of the values of some slots."""

    def _follow_all(self, live: LiveRange) -> None:
        """Follow a change of the values of any slots."""


class Blocks(Mapping[int, bytes]):
    """Some blocks of a table, by number, as the bytes that are stored.

    A lookup copies the bytes of one block: all at once would take as much memory as the table.
    """

    def __init__(self, values: NDArray[Any], numbers: list[int]) -> None:
        stored = values.astype(values.dtype.newbyteorder("<"), copy=False)
        self._raw = stored.data.cast("B")
        self._numbers = numbers

    def __getitem__(self, number: int) -> bytes:
        size = BLOCK_SLOTS * _VALUE_BYTES
        return bytes(self._raw[number * size : (number + 1) * size])

    def __iter__(self) -> Iterator[int]:
        return iter(self._numbers)

    def __len__(self) -> int:
        return len(self._numbers)
