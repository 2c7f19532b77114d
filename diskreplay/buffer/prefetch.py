"""Prefetch: queues of batches that a thread has drawn ahead of their use.

A batch is drawn by its number, and counts when it is given to the user. So a batch that waits in a
queue has changed nothing, and can be dropped and drawn again.

Each iterator has its own queue: its thread adds at the end, its user takes from the front. Both do
so under the lock of the buffer, and wake each other by a bell.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Any

from diskreplay.bell import Bell


class PrefetchQueue:
    """At most `room` batches that are ready, and the thread that draws more."""

    def __init__(self, room: int) -> None:
        self.thread: threading.Thread | None = None
        self.is_stuck = False  # the next draw failed, and is left to the user
        self.is_stopped = False
        self._ready: deque[tuple[int, Any]] = deque()
        self._room = room
        self._for_thread = Bell()
        self._for_user = Bell()

    @property
    def has_room(self) -> bool:
        """True if another batch may be drawn ahead."""
        return not (self.is_stopped or self.is_stuck) and len(self._ready) < self._room

    def next_number(self, draws: int) -> int:
        """Return the number of the next batch to draw ahead, after `draws` batches were given."""
        return max(draws, self._ready[-1][0] + 1) if self._ready else draws

    def wait_for_room(self) -> bool:
        """Return True as soon as there is room for a batch, False when the queue is stopped."""
        self._for_thread.wait_until(lambda: self.has_room or self.is_stopped)
        return not self.is_stopped

    def wait_for_batch(self) -> None:
        """Return as soon as a batch is ready, or the thread will not draw one."""
        self._for_thread.ring()  # an interrupted call may have dropped a batch without ringing
        self._for_user.wait_until(lambda: self._ready or self.is_stuck or self.is_stopped)

    def add(self, number: int, batch: Any) -> None:
        """Add the batch of a draw."""
        self._ready.append((number, batch))
        self._for_user.ring()

    def find(self, number: int) -> Any | None:
        """Return the batch of a draw, if it is ready; drop the batches before it.

        Those were drawn by other calls meanwhile, under the same numbers.
        """
        while self._ready and self._ready[0][0] != number:
            self._ready.popleft()
            self._for_thread.ring()
        return self._ready[0][1] if self._ready else None

    def drop_first(self) -> None:
        """Drop the first batch, which was given to the user."""
        self._ready.popleft()
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

    def join(self) -> None:
        """Wait for the end of the thread; it ends also while the caller holds the lock."""
        if self.thread is not None and self.thread is not threading.current_thread():
            self.thread.join()


class PrefetchQueues:
    """The queues of one buffer."""

    def __init__(self) -> None:
        self._queues: list[PrefetchQueue] = []

    def open(self, room: int) -> PrefetchQueue:
        """Return a new queue."""
        queue = PrefetchQueue(room)
        self._queues = [queue, *(other for other in self._queues if not other.is_stopped)]
        return queue

    def drop(self) -> None:
        """Drop all batches that are ready."""
        for queue in self._queues:
            queue.drop()

    def stop(self) -> None:
        """End all threads, and wait for their end."""
        for queue in self._queues:
            queue.stop()
        for queue in self._queues:
            queue.join()
