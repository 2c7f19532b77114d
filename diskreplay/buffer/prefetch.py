"""Ahead: batches that were drawn, and that nobody has been given yet.

A commit must hold the random stream as of the batches that were given, so each batch that waits
remembers what was before its draw::

    given  given | ready  ready  ready |
                 ^                     ^
       what a commit saves      where the stream is in memory

A lane is the batches of one iterator: its thread adds at the end, its user takes from the front.
Both do so under the buffer's lock, and wake each other by a bell.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Iterable
from typing import Any, NamedTuple

from diskreplay.bell import Bell


class Drawn(NamedTuple):
    """A batch, and the random stream, the frame and beta of before it was drawn."""

    number: int  # of the draw, over all lanes
    batch: Any
    before: list[Any]
    after: list[Any]
    frame: int
    beta: float


class Lane:
    """Batches that are ready, at most `room` of them, and the thread that draws more."""

    def __init__(self, room: int) -> None:
        self.ready: deque[Drawn] = deque()
        self.thread: threading.Thread | None = None
        self.is_stuck = False  # the next draw failed, and is left to the user
        self.is_stopped = False
        self._room = room
        self._for_thread = Bell()
        self._for_user = Bell()

    @property
    def has_room(self) -> bool:
        """Whether another batch may be drawn."""
        return not (self.is_stopped or self.is_stuck) and len(self.ready) < self._room

    def wait_for_room(self) -> bool:
        """Return True when another batch may be drawn, False when no more ever may."""
        self._for_thread.wait_until(lambda: self.has_room or self.is_stopped)
        return not self.is_stopped

    def wait_for_batch(self) -> None:
        """Return when there is a batch, or when the thread will not draw one."""
        self._for_thread.ring()  # which an interrupted call may have left to do
        self._for_user.wait_until(lambda: self.ready or self.is_stuck or self.is_stopped)

    def add(self, drawn: Drawn) -> None:
        """Have one more batch ready."""
        self.ready.append(drawn)
        self._for_user.ring()

    def take(self) -> Drawn:
        """Give the oldest batch away."""
        drawn = self.ready.popleft()
        self._for_thread.ring()
        return drawn

    def drop(self) -> None:
        """Have no batch ready any more."""
        self.ready.clear()
        self._for_thread.ring()

    def stick(self, is_stuck: bool) -> None:
        """Leave the next draw to the user; or draw again."""
        self.is_stuck = is_stuck
        self._for_thread.ring()
        self._for_user.ring()

    def stop(self) -> None:
        """Let the thread end."""
        self.is_stopped = True
        self._for_thread.ring()
        self._for_user.ring()

    def join(self) -> None:
        """Wait for the end of the thread, which needs no lock that it cannot get to see it."""
        if self.thread is not None and self.thread is not threading.current_thread():
            self.thread.join()


class Ahead:
    """The lanes of one buffer."""

    def __init__(self) -> None:
        self.dropped: list[Lane] = []  # whose users are gone: what they have ready is to go back
        self._lanes: list[Lane] = []
        self._numbers = itertools.count()

    @property
    def oldest(self) -> Drawn | None:
        """The batch that was drawn before all others that are ready, if any is."""
        fronts = [lane.ready[0] for lane in self._lanes if lane.ready]
        return min(fronts, key=lambda drawn: drawn.number, default=None)

    def number(self) -> int:
        """Return the number of a new draw."""
        return next(self._numbers)

    def open(self, room: int) -> Lane:
        """Return a new lane."""
        lane = Lane(room)
        self._lanes = [lane, *self._lanes]
        return lane

    def forget(self, lane: Lane) -> None:
        """Have one lane less."""
        self._lanes = [other for other in self._lanes if other is not lane]

    def ready(self, lanes: Iterable[Lane] | None = None) -> list[Drawn]:
        """Return what some lanes have ready, by default all, in the order of the draws."""
        ready = [drawn for lane in lanes or self._lanes for drawn in lane.ready]
        return sorted(ready, key=lambda drawn: drawn.number)

    def drop(self, lanes: Iterable[Lane] | None = None) -> None:
        """Have nothing ready in some lanes, by default in any."""
        for lane in lanes or self._lanes:
            lane.drop()

    def stop(self) -> None:
        """End all threads, and wait for their end."""
        for lane in self._lanes:
            lane.stop()
        for lane in self._lanes:
            lane.join()
