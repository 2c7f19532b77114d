"""Bell: one thread rings it to wake another one, and no interrupt can break it.

The events and conditions of `threading` are written in Python. An interrupt that comes when such an
object has taken its lock leaves it locked: the next thread that sets or awaits it hangs for ever. A
queue in C has no such moment.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from queue import Empty, SimpleQueue


class Bell:
    """Rings once for one thread that waits, now or later, however often it is rung meanwhile."""

    def __init__(self) -> None:
        self._rung: SimpleQueue[None] = SimpleQueue()

    def ring(self) -> None:
        """Wake the thread that waits, or the next that will."""
        if self._rung.empty():
            self._rung.put(None)

    def wait(self, seconds: float | None = None) -> bool:
        """Return True as soon as it is rung, False when it was not in that time."""
        with contextlib.suppress(Empty):
            self._rung.get(timeout=seconds)
            return True
        return False

    def wait_until(self, is_so: Callable[[], object]) -> None:
        """Return when a condition is true that only a ring changes; wake the next thread, too."""
        while not is_so():
            self._rung.get()
        self.ring()
