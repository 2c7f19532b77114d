"""ReaderQueue: batches that are drawn ahead here, and read by reader processes.

A batch is drawn, by its number, into a slot of shared memory, where a reader writes its rows. Rows
that are not committed yet are in the memory of this process alone: it writes them itself::

    this process    draw 7, ask a reader for its rows, draw 8, ask another     wait for 7, give it
    readers                                        read 7, read 8

All methods are called with the lock of the buffer held. A call that an interrupt ends leaves
nothing half done but a request that may have been sent or not: the reader in question is replaced.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from diskreplay.aliases import Ints
from diskreplay.buffer.batch_form import BatchForm
from diskreplay.buffer.batch_slots import BatchSlots
from diskreplay.buffer.reader_process import ReaderProcess, wait_for_reply
from diskreplay.errors import DiskReplayError, StorageError
from diskreplay.schema import Schema
from diskreplay.store import Store

_PATIENCE = 0.1  # seconds, until it is looked again; a reply ends the wait
_MOST_DEATHS = 5  # of generations of readers in a row, without a reply of any


@dataclass(eq=False)
class Ahead:
    """A batch that is drawn ahead.

    number:    of the draw
    slot:      the place of its arrays
    places:    the places in the batch of the rows to read
    oldest:    the oldest write id among them
    batch:     of the arrays of the slot
    reader:    the reader that was asked for them
    request:   the number of the request, a new one each time that a reader is asked
    is_sent:   whether the request was sent for sure
    prepared:  the result of preparing the batch, in a tuple, once it is prepared
    """

    number: int
    slot: int
    places: Ints
    oldest: int
    batch: Any
    reader: ReaderProcess | None = None
    request: int = 0
    is_sent: bool = False
    prepared: tuple[Any] | None = None


class ReaderQueue:
    """At most `room` batches that are drawn ahead, and one that the user has."""

    def __init__(
        self,
        store: Store,
        schema: Schema,
        batch_size: int,
        room: int,
        n: int,
        form: BatchForm,
        *,
        are_weighted: bool,
    ) -> None:
        self.is_stopped = False
        self._store = store
        self._schema = schema
        self._room = room
        self._n_readers = n
        self._ahead: deque[Ahead] = deque()
        self._under_way: dict[int, Ahead] = {}  # by slot: a reader may be writing there
        self._readers: list[ReaderProcess] = []
        self._requests = itertools.count(1)
        self._deaths = 0
        self._generation = 0  # of the readers that start from now on
        self._slots = BatchSlots(
            schema,
            batch_size,
            room + 1,
            form,
            are_weighted=are_weighted,
            shared=True,
        )

    @property
    def nbytes(self) -> int:
        """The memory of the slots, in bytes."""
        return self._slots.nbytes

    def fill(self, draws: int, draw: Callable[[Any, int], Ints]) -> None:
        """Draw batches ahead and ask for their rows, as long as there is room.

        The user is done with the batch that was given before: its slot may be drawn into.

        draws:  the number of the next batch to give; batches before it were given by other calls
        draw:   writes the batch of a draw into the arrays of a slot, but for the rows that are
                committed, and returns the places of these
        """
        while self._ahead and self._ahead[0].number != draws:
            self._ahead.popleft()
        while len(self._ahead) <= self._room:
            slot = self._free_slot()
            number = self._ahead[-1].number + 1 if self._ahead else draws
            arrays = self._slots.slots[slot].arrays
            try:
                places = draw(arrays, number)
            except DiskReplayError:
                if self._ahead:
                    break  # the user meets the error when the batches before are given
                raise
            oldest = int(arrays.indices[places].min()) if places.size else np.iinfo(np.int64).max
            batch = arrays.to_batch(self._schema)
            self._ahead.append(Ahead(number, slot, places, int(oldest), batch))
        try:
            self._send()
        except StorageError:  # no reader lives: what is read is given before the user meets that
            if not self._is_ready(self._ahead[0]):
                raise

    def wait_for_first(self) -> Ahead | None:
        """Wait for the rows of the first batch; return None if the user must draw it."""
        if not self._ahead:
            return None
        first = self._ahead[0]
        if not self._is_ready(first):
            self._wait_for(first)
        if self._is_ready(first):
            return first
        self._ahead.popleft()
        return None

    def give(self) -> None:
        """Remove the first batch, which the user has until the next call of `fill`."""
        self._ahead.popleft()

    @property
    def ready(self) -> list[Ahead]:
        """The batches ahead whose rows are read, up to the first whose rows are not."""
        return list(itertools.takewhile(self._is_ready, self._ahead))

    def finish_reads(self, first: int) -> None:
        """Wait for the reads of write ids below `first`, which a commit is about to evict."""
        try:
            for ahead in list(self._ahead):
                if ahead.oldest < first:
                    self._wait_for(ahead)
        except StorageError:  # no reader lives: the commit goes on, and `fill` meets the error
            self.drop()

    def drop(self) -> None:
        """Drop all batches."""
        self._ahead.clear()

    # The end

    def stop(self) -> None:
        """Close the pipes of the readers, which then end."""
        self.is_stopped = True
        for reader in self._readers:
            reader.stop()

    def stop_anywhere(self) -> None:
        """Kill the readers; safe at any line of any thread, also without the lock.

        A thread with the lock may be using the pipes, so they are not closed.
        """
        self.is_stopped = True
        for reader in list(self._readers):
            reader.signal_end()

    def join(self) -> None:
        """Wait for the end of the readers."""
        while self._readers:
            self._readers[-1].join()
            self._readers.pop()
        self._ahead.clear()
        self._under_way.clear()
        self._slots.close()

    def abandon(self) -> None:
        """Leave the readers to the parent, in a forked child."""
        self.is_stopped = True
        for reader in self._readers:
            reader.abandon()
        self._slots.close()

    # Inside

    def _free_slot(self) -> int:
        """Return a slot that is free; wait for the read of a batch that was dropped if need be."""
        self._collect()
        taken = {ahead.slot for ahead in self._ahead}
        free = [slot for slot in range(len(self._slots.slots)) if slot not in taken]
        slot = min(free, key=self._under_way.__contains__)
        while slot in self._under_way and not self.is_stopped:
            self._wait_for_reply()
            self._collect()
        return slot

    def _is_ready(self, ahead: Ahead) -> bool:
        if not self._is_over(ahead):  # asked first: only then it is settled whether it has failed
            return False
        return not (ahead.places.size and self._slots.slots[ahead.slot].has_failed)

    def _is_over(self, ahead: Ahead) -> bool:
        """Return whether the rows of a batch are read, or could not be read."""
        self._collect()
        return not ahead.places.size or (ahead.is_sent and ahead.slot not in self._under_way)

    def _collect(self) -> None:
        """Forget the requests that are done."""
        for slot, ahead in list(self._under_way.items()):
            if self._slots.slots[slot].is_done(ahead.request):
                self._deaths = 0
                self._under_way.pop(slot, None)

    def _wait_for(self, ahead: Ahead) -> None:
        """Return when the rows of a batch are read, or could not be read."""
        self._send()
        while not (self._is_over(ahead) or self.is_stopped):
            self._wait_for_reply()

    def _wait_for_reply(self) -> None:
        for dead in wait_for_reply(self._readers, _PATIENCE):
            self._count_death(dead)
        self._send()

    def _send(self) -> None:
        """Ask for the rows of the batches that nobody was asked for yet."""
        for ahead in list(self._under_way.values()):
            if not ahead.is_sent:  # an interrupt came in between: it may have been sent
                self._end(ahead.reader)
        # Not one after the other: a reader that turns out to be dead gives its requests back.
        while waiting := [
            ahead for ahead in self._ahead if ahead.places.size and not ahead.is_sent
        ]:
            self._send_one(waiting[0])

    def _send_one(self, ahead: Ahead) -> None:
        reader = self._least_busy()
        ahead.request = next(self._requests)  # an earlier reader may have answered in part
        self._slots.slots[ahead.slot].ask(ahead.request, ahead.places)
        ahead.reader = reader
        self._under_way[ahead.slot] = ahead
        ahead.is_sent = reader.send(ahead.slot, ahead.request)
        if not ahead.is_sent:
            self._count_death(reader)

    def _least_busy(self) -> ReaderProcess:
        """Return the reader with the fewest requests; start the readers if need be."""
        while len(self._readers) < self._n_readers:
            self._readers.append(ReaderProcess(self._store, self._slots, self._generation))
        loads = {id(reader): 0 for reader in self._readers}
        for ahead in self._under_way.values():
            loads[id(ahead.reader)] += 1
        return min(self._readers, key=lambda reader: loads[id(reader)])

    def _end(self, reader: ReaderProcess | None) -> None:
        """End a reader, so that it writes nothing any more, and take its requests back."""
        if reader is None or reader not in self._readers:
            return
        reader.kill()
        self._collect()
        for slot, ahead in list(self._under_way.items()):
            if ahead.reader is reader:
                ahead.is_sent = False
                self._under_way.pop(slot, None)
        self._readers.remove(reader)

    def _count_death(self, reader: ReaderProcess) -> None:
        """Count a reader as dead, and take its requests back; raise StorageError for too many."""
        self._end(reader)
        if reader.generation < self._generation:
            return  # older than the last death: readers killed together count once
        self._generation += 1
        self._deaths += 1
        if self._deaths >= _MOST_DEATHS:
            self._deaths = 0
            raise StorageError(
                f"the reader processes of {self._store.path} end at once: see their errors above, "
                "or use readers=0"
            )
