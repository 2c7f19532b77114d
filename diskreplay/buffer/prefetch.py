"""Prefetch: queues of batches that a thread has drawn ahead of their use.

A batch is drawn by its number, and counts when it is given to the user. So a batch that waits in a
queue has changed nothing, and can be dropped and drawn again.

Each iterator has its own queue: its thread adds at the end, its user takes from the front. Both do
so under the lock of the buffer, and wake each other by a bell.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from typing import Any

from diskreplay.bell import Bell
from diskreplay.buffer.batch_form import BatchForm
from diskreplay.buffer.batch_slots import BatchSlots
from diskreplay.buffer.reader_queue import ReaderQueue
from diskreplay.schema import Schema


@dataclass
class Ready:
    """The batch of a draw, and the result of preparing it, in a tuple, once it is prepared."""

    number: int
    batch: Any
    prepared: tuple[Any] | None = None


class PrefetchQueue:
    """At most `room` batches that are ready, and the thread that draws more."""

    def __init__(self, room: int, form: BatchForm, *, reuse: bool = False) -> None:
        self.form = form
        self.nbytes = 0  # of the arrays that are used again
        self.thread: threading.Thread | None = None
        self.is_stuck = False  # the next draw failed, and is left to the user
        self.is_stopped = False
        self._ready: deque[Ready] = deque()
        self._room = room
        self._reuse = reuse
        self._reused: list[Any] | None = None  # batches whose arrays are used again
        self._lent: Any = None  # the batch that the user has
        self._for_thread = Bell()
        self._for_user = Bell()

    @property
    def has_room(self) -> bool:
        """True if another batch may be drawn ahead."""
        return not (self.is_stopped or self.is_stuck) and len(self._ready) < self._room

    def next_number(self, draws: int) -> int:
        """Return the number of the next batch to draw ahead, after `draws` batches were given."""
        return max(draws, self._ready[-1].number + 1) if self._ready else draws

    def wait_for_room(self) -> bool:
        """Return True as soon as there is room for a batch, False when the queue is stopped."""
        self._for_thread.wait_until(lambda: self.has_room or self.is_stopped)
        return not self.is_stopped

    def wait_for_batch(self) -> None:
        """Return as soon as a batch is ready, or the thread will not draw one."""
        self._for_thread.ring()  # an interrupted call may have dropped a batch without ringing
        self._for_user.wait_until(lambda: self._ready or self.is_stuck or self.is_stopped)

    def arrays_for_next(self, schema: Schema, batch_size: int, *, are_weighted: bool) -> Any | None:
        """Return a batch to write the next one into, None where each has fresh arrays."""
        if not self._reuse:
            return None
        if self._reused is None:
            n = self._room + 1  # one that is drawn, one that the user has, and those ready
            slots = BatchSlots(schema, batch_size, n, self.form, are_weighted=are_weighted)
            self.nbytes = slots.nbytes
            self._reused = [slot.arrays.to_batch(schema) for slot in slots.slots]
        taken = {id(self._lent), *(id(ready.batch) for ready in self._ready)}
        return next(batch for batch in self._reused if id(batch) not in taken)

    def add(self, number: int, batch: Any) -> None:
        """Add the batch of a draw."""
        self._ready.append(Ready(number, batch))
        self._for_user.ring()

    def find(self, number: int) -> Ready | None:
        """Return the batch of a draw, if it is ready; drop the batches before it.

        Those were drawn by other calls meanwhile, under the same numbers.
        """
        while self._ready and self._ready[0].number != number:
            self._ready.popleft()
            self._for_thread.ring()
        return self._ready[0] if self._ready else None

    @property
    def ready(self) -> list[Ready]:
        """The batches that are ready, in order."""
        return list(self._ready)

    def give(self) -> None:
        """Remove the first batch, which the user has until the next one is given."""
        self._lent = self._ready.popleft().batch
        self._for_thread.ring()

    def drop(self) -> None:
        """Drop all batches."""
        self._ready.clear()
        self._for_thread.ring()

    def set_stuck(self, is_stuck: bool) -> None:
        """Stop drawing ahead, so that the user makes the next draw, or draw ahead again."""
        self.is_stuck = is_stuck
        self._for_thread.ring()
        self._for_user.ring()

    def stop(self) -> None:
        """Tell the thread to end."""
        self.is_stopped = True
        self._for_thread.ring()
        self._for_user.ring()

    def finish_reads(self, first: int) -> None:
        """Do nothing: a batch is read when it is drawn."""

    def abandon(self) -> None:
        """Do nothing: a forked child has no thread."""

    def join(self) -> None:
        """Wait for the end of the thread; it ends also while the caller holds the lock."""
        if self.thread is not None and self.thread is not threading.current_thread():
            self.thread.join()


class PrefetchQueues:
    """The queues of one buffer."""

    def __init__(self) -> None:
        self._queues: list[PrefetchQueue | ReaderQueue] = []

    @property
    def nbytes(self) -> int:
        """The memory of arrays that are used again, in bytes."""
        return sum(queue.nbytes for queue in self._queues if not queue.is_stopped)

    def add(self, queue: PrefetchQueue | ReaderQueue) -> None:
        """Add a queue, if it is not there yet, and forget those that are stopped."""
        if queue not in self._queues:
            self._forget_stopped()
            self._queues = [queue, *self._queues]

    def drop(self) -> None:
        """Drop all batches that are ready."""
        for queue in self._queues:
            queue.drop()

    def finish_reads(self, first: int) -> None:
        """Wait for the reads of write ids below `first`, which a commit is about to evict."""
        self._forget_stopped()
        for queue in self._queues:
            queue.finish_reads(first)

    def _forget_stopped(self) -> None:
        """Wait for the end of threads and readers whose iterator is gone, and free their memory."""
        for queue in self._queues:
            if queue.is_stopped:
                queue.join()
        self._queues = [queue for queue in self._queues if not queue.is_stopped]

    def abandon(self) -> None:
        """Leave threads and readers to the parent, in a forked child."""
        for queue in self._queues:
            queue.abandon()

    def stop(self) -> None:
        """End all threads and readers, and wait for their end."""
        for queue in self._queues:
            queue.stop()
        for queue in self._queues:
            queue.join()
