"""Bell: a thread rings it to wake another thread, and no interrupt can break it.

The events and conditions of `threading` are written in Python. An interrupt that comes while such
an object holds its lock leaves the object locked: the next thread that sets or awaits it hangs for
ever. A `SimpleQueue` is written in C and has no such moment.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from queue import Empty, SimpleQueue


class Bell:
    """A bell for one waiting thread; several rings before its next wait count as one."""

    def __init__(self) -> None:
        self._rung: SimpleQueue[None] = SimpleQueue()

    def ring(self) -> None:
        """Wake the thread that waits, or else the next one to wait."""
        if self._rung.empty():
            self._rung.put(None)

    def wait(self, seconds: float | None = None) -> bool:
        """Return True as soon as the bell rings, False if it does not ring in that time."""
        with contextlib.suppress(Empty):
            self._rung.get(timeout=seconds)
            return True
        return False

    def wait_until(self, condition: Callable[[], object]) -> None:
        """Return when a condition is true; check it at each ring, and wake the next thread."""
        try:
            while not condition():
                self._rung.get()
        finally:  # also after an interrupt, which may have taken a ring that was for another thread
            self.ring()
