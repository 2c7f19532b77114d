"""Groups: the rows of clients, each group stored once, and acknowledged after its commit.

The commit of the rows of a group sets a note, which tells of the last group of its client::

    note "service.client.ID" = [number, first write id, n, time]

Both are there or neither, so a group that comes again is known, also to the next server.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from typing import Any

from diskreplay.errors import ArgumentError, ReadOnlyError

_PREFIX = "service.client."
_NONE = (0, 0, 0)  # the last group of a client that has pushed none
_KEPT_SECONDS = 30 * 86400  # no client sends a group again after so long


class Groups:
    """The groups that clients push to one buffer.

    stored, rows:       counts of the groups stored, and of their rows
    repeated, commits:  counts of the groups that came again, and of the commits for any of these
    """

    def __init__(self, buffer: Any) -> None:
        self._buffer = buffer
        self._adding, self._committing = threading.Lock(), threading.Lock()
        self._asked = self._committed = 0  # counts of calls of `store`
        self.stored = self.rows = self.repeated = self.commits = 0
        if any(
            (opener["pid"], opener["access"]) == (os.getpid(), "shared")
            for opener in buffer.stats()["openers"]
        ):
            raise ArgumentError(
                f"{buffer.path} is open with access='shared', and a server must be the only one to "
                "push: open it with access='exclusive', or 'read'"
            )
        self._last: dict[str, tuple[int, int, int]] = {}
        self.recover()

    def recover(self) -> None:
        """Learn from the notes of the buffer which group of each client came last."""
        with self._adding:
            self._read_notes()

    def _read_notes(self) -> None:
        """Read the notes, and delete those of no use; hold the lock."""
        notes = {
            name: note for name, note in self._buffer.notes().items() if name.startswith(_PREFIX)
        }
        count, oldest = self._buffer.count, time.time() - _KEPT_SECONDS
        # Earlier servers committed a note before its rows, which a kill in between left out.
        self._last = {
            name: (number, first, n)
            for name, (number, first, n, noted) in notes.items()
            if noted >= oldest and first + n <= count
        }
        with contextlib.suppress(ReadOnlyError):
            for name in notes.keys() - self._last.keys():
                self._buffer.delete_note(name)

    def store(self, client: str, number: int, n: int, add: Callable[..., Any]) -> tuple[int, int]:
        """Add the rows of a group, if it is not stored, and return its first write id and size.

        Returns after the commit that holds it. Groups that wait together share a commit.

        number:  counts the groups of a client, from 1
        n:       the number of rows
        add:     `push` or `extend` of the buffer with the rows; it is given with_notes
        """
        name = f"{_PREFIX}{client}"
        with self._adding:
            last = self._last.get(name, _NONE)
            if number > last[0]:
                last = number, self._buffer.count, n
                try:
                    add(with_notes={name: [*last, time.time()]})
                    self._last[name] = last
                except BaseException:
                    self._read_notes()  # the rows are there if their commit came before the error
                    raise
                self.stored += 1
                self.rows += n
            else:
                self.repeated += 1
            self._asked += 1
            asked = self._asked
        self._commit(asked)
        return last[1:]

    def forget(self, client: str) -> None:
        """Delete the note of a client that has got all acknowledgements, and sends no more.

        Its last group stays known here: one of a broken stream may still be on its way.
        """
        name = f"{_PREFIX}{client}"
        with self._adding:
            if name in self._last:
                with contextlib.suppress(ArgumentError):  # it has left before
                    self._buffer.delete_note(name)

    @property
    def waiting(self) -> int:
        """The number of groups that wait for a commit."""
        return self._asked - self._committed

    def _commit(self, asked: int) -> None:
        """Commit the groups of the calls up to a count, unless another call has done so."""
        with self._committing:
            if self._committed < asked:
                asked = self._asked
                self._buffer.flush()
                self.commits += 1
                self._committed = asked
