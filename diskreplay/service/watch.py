"""Watch: ends the waiting for a server that is there, and answers nothing.

The connection to a server that is stopped or hangs does not break, and that to a machine that is
gone without a word breaks after minutes. So while a call waits, a thread asks the server whether it
is alive, which needs nothing of its replays. Calls wait for one that is, as long as they like.
"""

from __future__ import annotations

import time
import weakref
from threading import Thread
from typing import Any, Protocol

import pyarrow as pa
from pyarrow import flight

from diskreplay.bell import Bell
from diskreplay.store import start_thread

_SHORTEST, _LONGEST = 1.0, 5.0  # seconds between looks
_ALIVE = flight.Action("alive", b"")


class Breakable(Protocol):
    """A channel."""

    def break_off(self) -> None:
        """End its waiting, in another thread, as the server answers nothing."""


class Watch:
    """The channels to one server that wait for it; the thread ends with the object.

    seconds:    for which a server may answer nothing; then all channels that wait are broken off
    headers:    of the question whether it is alive
    is_silent:  whether it has answered nothing for that time; a new channel could not be ended
    """

    def __init__(self, client: Any, seconds: float, headers: list[tuple[bytes, bytes]]) -> None:
        self._client = client
        self._pause = min(max(seconds / 4, _SHORTEST), _LONGEST)
        self._seconds = max(seconds, 2 * self._pause)
        self._options = flight.FlightCallOptions(timeout=self._pause, headers=headers)
        self._waiting: dict[Breakable, float] = {}
        self._answered = time.monotonic()  # or nobody waited
        self.is_silent = False
        self._end = Bell()
        self._thread = Thread(
            target=_run, args=(weakref.ref(self), self._end), name="diskreplay watch",
            daemon=True,
        )  # fmt: skip
        start_thread(self._thread)

    def begin(self, channel: Breakable) -> None:
        """Note that a channel waits from now on."""
        self._waiting[channel] = time.monotonic()

    def end(self, channel: Breakable) -> None:
        """Note that a channel waits no more."""
        self._waiting.pop(channel, None)

    def look(self) -> None:
        """Ask the server whether it is alive, if a channel waits for some time."""
        begun = time.monotonic() - self._pause
        slow = {one: since for one, since in self._waiting.copy().items() if since < begun}
        if not (slow or self.is_silent) or self._is_alive():
            self._answered, self.is_silent = time.monotonic(), False
        elif time.monotonic() - self._answered > self._seconds:
            self.is_silent = True
            for channel, since in slow.items():
                if self._waiting.get(channel) == since:
                    channel.break_off()

    @property
    def pause(self) -> float:
        """The seconds until the next look: a silent server is asked all the time."""
        return 0.0 if self.is_silent else self._pause

    def stop(self) -> None:
        """End the thread."""
        self._end.ring()
        self._thread.join()

    def _is_alive(self) -> bool:
        try:
            list(self._client.do_action(_ALIVE, self._options))
        except flight.FlightTimedOutError:
            return False
        except (pa.ArrowException, OSError):
            pass  # it answers, if only to refuse; or the connection breaks, and so do the channels
        return True


def _run(reference: weakref.ref[Watch], end: Bell) -> None:
    pause = 0.0
    while not end.wait(pause) and (watch := reference()) is not None:
        watch.look()
        pause = watch.pause
        del watch
