"""Autocommit: the thread that commits a changed buffer after a while, without a call."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable

from diskreplay.bell import Bell
from diskreplay.store import start_thread


class Autocommit:
    """Calls `commit` within `interval` seconds of `wake`.

    `commit` returns the seconds until its next call, or None when nothing is left to commit. The
    thread starts with the first `wake`. It holds a weak reference to the method, so that it does
    not keep the buffer alive.
    """

    def __init__(self, interval: float, commit: Callable[[], float | None]) -> None:
        self._interval = interval
        self._commit = weakref.WeakMethod(commit)
        self._changed = Bell()
        self._stopped = Bell()
        self._thread: threading.Thread | None = None

    def wake(self) -> None:
        """Wake the thread: there is something to commit."""
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="diskreplay", daemon=True)
            self._thread = start_thread(thread)  # set once the thread can be joined
        self._changed.ring()

    def stop(self) -> None:
        """End the thread and wait for its end. `commit` must not wait for a lock of the caller."""
        self._stopped.ring()
        self._changed.ring()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        while True:
            self._changed.wait()
            delay: float | None = self._interval
            while delay is not None:
                if self._stopped.wait(min(delay, threading.TIMEOUT_MAX)):
                    # An interrupt in the first `wake` may have led to two threads: both end.
                    self._stopped.ring()
                    self._changed.ring()
                    return
                commit = self._commit()
                if commit is None:
                    return
                delay = commit()
                del commit
