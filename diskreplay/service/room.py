"""Room: the memory that large messages may take at one time, of all streams together."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from diskreplay.wording import human

SMALL_BYTES = 1 << 20  # smaller messages are not counted: their number is limited


class NoRoomError(Exception):
    """Messages of others take the memory: the client asks again."""


class Room:
    """Counts the bytes of large messages that are received or sent.

    A client that reads its answers slowly, or not at all, keeps them in the memory of the server.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._lock = threading.Lock()
        self._taken = 0

    @property
    def taken(self) -> int:
        """The bytes that are taken now."""
        return self._taken

    @contextmanager
    def for_bytes(self, n: int) -> Iterator[None]:
        """Take n bytes for a block; raise NoRoomError where others take too many."""
        if n <= SMALL_BYTES:
            yield
            return
        with self._lock:
            if self._taken and self._taken + n > self._most_bytes:
                raise NoRoomError(
                    f"this server has room for {human(self._most_bytes)} of large messages at a "
                    f"time, and {human(self._taken)} are under way: ask for fewer rows, read "
                    "answers at once, or raise --max-memory-bytes"
                )
            self._taken += n
        try:
            yield
        finally:
            with self._lock:
                self._taken -= n
