"""Waiting: calls that wait for each other, in any number of threads, without polling."""

from __future__ import annotations

import contextlib
import threading
import time
import weakref
from collections.abc import Callable
from typing import TypeVar

from diskreplay.bell import Bell
from diskreplay.errors import ClosedError, RateLimitError, StorageError
from diskreplay.forks import call_in_child

T = TypeVar("T")

_all_turns: weakref.WeakSet[Turns] = weakref.WeakSet()


class Turns:
    """One call after the other; a call that is not allowed yet waits for what others do.

    A waiting call has a bell of its own, since the conditions of `threading` can be broken by an
    interrupt (see bell.py). Whatever may allow it rings all bells, and each looks again.

    timeout:       how long a call waits at most, in seconds; None is for ever
    is_inherited:  whether this is a forked child, in which nobody could wake a call
    """

    def __init__(self, timeout: float | None) -> None:
        self._timeout = timeout
        self.is_closed = self.is_inherited = False
        _all_turns.add(self)
        self.lock = threading.RLock()  # reentrant only to tell a call within another one
        self._waiting: list[tuple[str, Bell]] = []

    def when(
        self,
        what: str,
        is_allowed: Callable[[], bool],
        call: Callable[[], T],
        missing: Callable[[], str],
    ) -> T:
        """Do a call as soon as it is allowed, and return its result.

        what:     the word for it, in errors
        missing:  returns the reason why it is not allowed
        """
        entry: tuple[str, Bell] | None = None
        begin = time.monotonic()
        try:
            while True:
                self.refuse_nesting()
                with self.lock:
                    if self.is_closed:
                        raise ClosedError("the replay is closed: open it again")
                    if is_allowed():
                        return call()
                    left = self._left(begin)
                    if left is not None and left <= 0.0:
                        raise RateLimitError(
                            f"no {what} was allowed within {self._timeout:g} s: {missing()}"
                        )
                    if entry is None:
                        entry = (what, Bell())
                        self._waiting.append(entry)
                entry[1].wait(left)
        finally:
            if entry is not None:
                with contextlib.suppress(ValueError):
                    self._waiting.remove(entry)

    def _left(self, begin: float) -> float | None:
        if self._timeout is None:
            return None
        return begin + self._timeout - time.monotonic()

    def take(self, call: Callable[[], T]) -> T:
        """Do a call that is always allowed, and may allow others; return its result."""
        self.refuse_nesting()
        with self.lock:
            try:
                return call()
            finally:
                self.wake()

    def wake(self) -> None:
        """Wake all calls that wait, so that each checks again whether it may go on."""
        if self._waiting:
            for _, bell in list(self._waiting):
                bell.ring()

    def waiting(self, what: str) -> int:
        """Return how many calls wait."""
        return sum(found == what for found, _ in list(self._waiting))

    def close(self) -> None:
        """End all calls that wait, with ClosedError."""
        self.is_closed = True
        self.wake()

    def refuse_nesting(self) -> None:
        """Raise StorageError in a call within another one, as a buffer does."""
        if self.lock._is_owned():  # type: ignore[attr-defined]
            raise StorageError(
                "the replay is in use by the call that this one interrupted, or that called it: "
                "set a flag in a signal handler, and act on it after that call"
            )


def _leave_parent() -> None:
    """Replace locks that other threads of the parent may have held, and forget what waits."""
    for turns in list(_all_turns):
        turns.lock = threading.RLock()
        turns._waiting = []
        turns.is_inherited = True


call_in_child(_leave_parent)
