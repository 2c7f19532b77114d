"""The replay that the page shows: opened for reading, and opened again after a failure."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import diskreplay
from diskreplay.protocols import Replay
from diskreplay_tools.stores import Target

T = TypeVar("T")
_PATIENCE = 2.0  # seconds, for a read under way at the end
FAILURES = diskreplay.DiskReplayError, OSError


class Source:
    """A replay that one thread reads at a time, however many pages are open.

    A store may be removed, replaced, damaged or cleared, and a service may end, while a page shows
    it. The page then says so, and shows again what is there later. `times_opened` tells a page that
    it may be another store.
    """

    def __init__(self, target: Target) -> None:
        self.target = target
        self._lock = threading.Lock()
        self._replay: Replay[Any] | None = None
        self._is_closed = False
        self.times_opened = 0

    def read(self, function: Callable[[Replay[Any]], T]) -> T:
        """Return what a function reads of the replay; raises one of FAILURES."""
        with self._lock:
            if self._is_closed:
                raise diskreplay.ClosedError(f"{self.target.place} is read no more: the page ends")
            if self._replay is None:
                self._replay = self.target.open()
                self.times_opened += 1
            return function(self._replay)

    def drop(self) -> None:
        """Close the replay; a later read opens what is there then."""
        with self._lock:
            self._close_replay()

    def close(self) -> None:
        """Read no more, and close the replay, unless a read under way goes on for too long."""
        self._is_closed = True
        if self._lock.acquire(timeout=_PATIENCE):
            self._close_replay()
            self._lock.release()

    def _close_replay(self) -> None:
        replay, self._replay = self._replay, None
        if replay is not None:
            with contextlib.suppress(*FAILURES):
                replay.close()
