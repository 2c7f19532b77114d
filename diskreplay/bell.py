"""Bell: what one thread rings to wake another one, and what no interrupt can break.

The events and conditions of `threading` are written in Python. An interrupt that comes as one of
them has taken its lock leaves it locked: whoever sets or awaits it next hangs for ever. A queue
in C has no such moment.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from queue import Empty, SimpleQueue


class Bell:
    """Rings once for one who waits, now or later, however often it is rung meanwhile."""

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
        """Return when something is so that does not change without a ring; wake others, too."""
        while not is_so():
            self._rung.get()
        self.ring()
