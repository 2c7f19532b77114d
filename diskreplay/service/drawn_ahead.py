"""DrawnAhead: the batches that a server has sent before they were asked for.

A thread asks for a batch as long as there is room, so the server has as many requests as batches
are missing. At the end it gives back the draws of batches that the user did not get.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from typing import Any

from diskreplay.bell import Bell
from diskreplay.errors import DiskReplayError
from diskreplay.service.connection import Channel, Connection
from diskreplay.store import start_thread


@dataclass
class Ready:
    """A batch that has come, and the result of preparing it, in a tuple, once it is prepared."""

    batch: Any
    prepared: tuple[Any] | None = None


class DrawnAhead:
    """At most `room` batches that are ready or asked for, in order."""

    def __init__(
        self, connection: Connection, batch_size: int, room: int, options: dict[str, Any]
    ) -> None:
        self.ready: deque[Ready] = deque()
        self.is_stopped = False
        self.is_stuck = False  # the next draw failed, and is left to the user
        self.lock = threading.Lock()  # of what is ready
        self.for_thread, self.for_user = Bell(), Bell()
        self._connection, self._request = connection, (batch_size, options)
        self._room = room
        self._asked: deque[int] = deque()  # the number of drops before each request
        self._drops = 0
        self._has_begun = False
        # Started here, where an interrupt leaves no iterator behind: two threads would mix batches.
        self._thread = start_thread(
            threading.Thread(target=self._run, name="diskreplay batches", daemon=True)
        )

    def begin(self) -> None:
        """Ask for batches from now on."""
        self._has_begun = True
        self.for_thread.ring()

    def drop(self) -> None:
        """Drop the batches that were drawn before this call."""
        with self.lock:
            self._drops += 1
            self.ready.clear()
        self.for_thread.ring()

    def stop(self) -> None:
        """Tell the thread to end."""
        self.is_stopped = True
        self.for_thread.ring()
        self.for_user.ring()

    def join(self) -> None:
        """Wait for the end of the thread."""
        if self._thread is not threading.current_thread():
            self._thread.join()

    # The thread

    def _run(self) -> None:
        channel: Channel | None = None
        self.for_thread.wait_until(lambda: self.is_stopped or self._has_begun)
        while not self.is_stopped:
            try:
                if channel is None:
                    channel = self._connection.new_channel()
                self._ask(channel)
                if self._asked:
                    self._take(channel)
                else:
                    self.for_thread.wait()
            except Exception:  # the user's own call raises it, or connects
                channel = None
                self._asked.clear()
                self._fail()
                self.for_thread.wait_until(lambda: self.is_stopped or not self.is_stuck)
        if channel is not None:
            self._give_back(channel)

    def _ask(self, channel: Channel) -> None:
        batch_size, options = self._request
        while not self.is_stuck and len(self._asked) + len(self.ready) < self._room:
            channel.send("sample", (batch_size,), options)
            self._asked.append(self._drops)

    def _take(self, channel: Channel) -> None:
        """Wait for the next batch."""
        try:
            batch = channel.receive()
        except DiskReplayError:
            self._asked.popleft()
            self._fail()
            return
        with self.lock:
            if self._asked.popleft() == self._drops:
                self.ready.append(Ready(batch))
        self.for_user.ring()

    def _fail(self) -> None:
        self.is_stuck = True
        self.for_user.ring()

    def _give_back(self, channel: Channel) -> None:
        """Tell the server which draws the user did not get."""
        n = len(self._asked) + len(self.ready)
        try:
            while self._asked:
                self._asked.popleft()
                channel.receive()
            channel.call("take_back", n)
        except Exception:  # then they count, as those of a client that died
            return
        finally:
            channel.close()
