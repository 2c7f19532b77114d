"""Prefetch: batches that a thread draws ahead, and that nobody has been given yet.

A batch is drawn by its number. The numbers that were given are counted, and nothing else: a batch
that waits in a lane has changed nothing, and can be dropped and drawn again.

A lane is the batches of one iterator: its thread adds at the end, its user takes from the front.
Both do so under the lock of the buffer, and wake each other by a bell.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Any

from diskreplay.bell import Bell


class Lane:
    """Batches that are ready, at most `room` of them, and the thread that draws more."""

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
        """Whether another batch may be drawn."""
        return not (self.is_stopped or self.is_stuck) and len(self._ready) < self._room

    def next_number(self, draws: int) -> int:
        """Return the number of the next batch to draw ahead, where so many were given."""
        return max(draws, self._ready[-1][0] + 1) if self._ready else draws

    def wait_for_room(self) -> bool:
        """Return True when another batch may be drawn, False when no more ever may."""
        self._for_thread.wait_until(lambda: self.has_room or self.is_stopped)
        return not self.is_stopped

    def wait_for_batch(self) -> None:
        """Return when there is a batch, or when the thread will not draw one."""
        self._for_thread.ring()  # an interrupted call may have left it to do
        self._for_user.wait_until(lambda: self._ready or self.is_stuck or self.is_stopped)

    def add(self, number: int, batch: Any) -> None:
        """Add the batch of a draw."""
        self._ready.append((number, batch))
        self._for_user.ring()

    def find(self, number: int) -> Any | None:
        """Return the batch of a draw, where it is ready; drop those of other draws before it.

        Others are given the numbers of this lane when they draw, too.
        """
        while self._ready and self._ready[0][0] != number:
            self._ready.popleft()
            self._for_thread.ring()
        return self._ready[0][1] if self._ready else None

    def drop_first(self) -> None:
        """Drop the first batch: it was given."""
        self._ready.popleft()
        self._for_thread.ring()

    def drop(self) -> None:
        """Drop all batches."""
        self._ready.clear()
        self._for_thread.ring()

    def set_stuck(self, is_stuck: bool) -> None:
        """Leave the next draw to the user, or draw again."""
        self.is_stuck = is_stuck
        self._for_thread.ring()
        self._for_user.ring()

    def stop(self) -> None:
        """Tell the thread to end."""
        self.is_stopped = True
        self._for_thread.ring()
        self._for_user.ring()

    def join(self) -> None:
        """Wait for the end of the thread, which needs no lock that it cannot get to see it."""
        if self.thread is not None and self.thread is not threading.current_thread():
            self.thread.join()


class Lanes:
    """The lanes of one buffer."""

    def __init__(self) -> None:
        self._lanes: list[Lane] = []

    def open(self, room: int) -> Lane:
        """Return a new lane."""
        lane = Lane(room)
        self._lanes = [lane, *(other for other in self._lanes if not other.is_stopped)]
        return lane

    def drop(self) -> None:
        """Drop all batches that are ready."""
        for lane in self._lanes:
            lane.drop()

    def stop(self) -> None:
        """End all threads, and wait for their end."""
        for lane in self._lanes:
            lane.stop()
        for lane in self._lanes:
            lane.join()
