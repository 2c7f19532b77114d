"""Answers: what a server sends to the main thread, read by another thread.

Signal handlers run in the main thread, and not while it waits in Arrow. So a thread reads for it,
and Ctrl-C ends a call that waits for others, as for the pushes that a rate limiter asks for.
"""

from __future__ import annotations

import threading
from queue import SimpleQueue
from typing import Any

from diskreplay.service import messages


class Answers:
    """The messages of the reader of a stream, for one thread; end it when the stream has ended."""

    def __init__(self, reader: Any) -> None:
        self._asked: SimpleQueue[bool] = SimpleQueue()
        self._found: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()
        threading.Thread(
            target=_read, args=(reader, self._asked, self._found), name="diskreplay answers",
            daemon=True,
        ).start()  # fmt: skip

    def next(self) -> Any:
        """Return the next message, or raise the error of `messages.receive`."""
        self._asked.put(True)
        message, error = self._found.get()
        try:
            if error is not None:
                raise error
            return message
        finally:
            del error  # its traceback has this frame, and would keep the stream of the caller

    def end(self) -> None:
        """End the thread."""
        self._asked.put(False)


def _read(reader: Any, asked: Any, found: Any) -> None:
    while asked.get():
        try:
            found.put((messages.receive(reader), None))
        except BaseException as error:
            found.put((None, error))
