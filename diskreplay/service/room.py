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
    def share(self) -> Iterator[Share]:
        """Yield a share without bytes yet, for a request and its answer; free its bytes after."""
        share = Share(self)
        try:
            yield share
        finally:
            with self._lock:
                self._taken -= share.taken

    def grow(self, share: Share, n: int) -> None:
        """Add n bytes to a share; raise NoRoomError where others take too many."""
        with self._lock:
            if self._taken > share.taken and self._taken + n > self._most_bytes:
                raise NoRoomError(
                    f"this server has room for {human(self._most_bytes)} of large messages at a "
                    f"time, and {human(self._taken)} are under way: ask for fewer rows, read "
                    "answers at once, or raise --max-memory-bytes"
                )
            self._taken += n
            share.taken += n


class Share:
    """The bytes that one request and its answer take; alone they may be as large as they are."""

    def __init__(self, room: Room) -> None:
        self.taken = 0
        self._room, self._expected = room, 0

    def add(self, n: int) -> None:
        """Take n more bytes, or raise NoRoomError."""
        if n > SMALL_BYTES:
            self._room.grow(self, n)

    def expect(self, n: int) -> None:
        """Take the bytes of an answer that is still to be made."""
        self.add(n)
        self._expected = n

    def send(self, n: int) -> None:
        """Take the bytes of an answer that were not expected, as of an episode."""
        self.add(n - self._expected)
