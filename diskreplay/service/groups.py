"""Groups: the rows of clients, each group stored once, and acknowledged after its commit.

The number of the last group of each client is kept in a note of the store::

    note "service.client.ID" = [number, first write id, n, time]

It is set before the rows, so it is never missing where they are: a commit may hold the note alone,
but not the rows alone. Whether the rows are there, too, the count of the store tells a server that
opens it, before any other row is pushed. So a group that comes again after a kill is stored once.
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
    """The groups that clients push to one replay.

    rows, repeated, commits:
             counts of the rows stored, the groups that came again, and the commits of groups
    """

    def __init__(self, replay: Any) -> None:
        self._replay = replay
        self._adding, self._committing = threading.Lock(), threading.Lock()
        self._added = self._committed = 0  # counts of groups
        self.rows = self.repeated = self.commits = 0
        self._has_notes = hasattr(replay, "set_note")
        self._to_note: set[str] = set()  # clients whose note could not be set back
        if any(
            (opener["pid"], opener["access"]) == (os.getpid(), "shared")
            for opener in replay.stats().get("openers", ())
        ):
            raise ArgumentError(
                f"{replay.path} is open with access='shared', and a server must be the only one to "
                "push: open it with access='exclusive', or 'read'"
            )
        self._last: dict[str, tuple[int, int, int]] = {}
        self.recover()

    def recover(self) -> None:
        """Learn from the store which group of each client came last; commit what is found."""
        if not self._has_notes:
            return
        with self._adding, contextlib.suppress(ReadOnlyError):
            self._last = {}
            for name, data in self._replay.notes().items():
                if name.startswith(_PREFIX):
                    self._recover(name, *data)
            self._replay.flush()

    def _recover(self, name: str, number: int, first: int, n: int, noted: float) -> None:
        client = name.removeprefix(_PREFIX)
        if noted < time.time() - _KEPT_SECONDS:
            self._replay.delete_note(name)
        elif self._replay.count >= first + n:
            self._last[client] = number, first, n
        else:  # a kill came between the commits of the note and of the rows
            self._last[client] = number - 1, first, 0
            self._note(client, self._last[client])

    def store(self, client: str, number: int, n: int, add: Callable[[], Any]) -> tuple[int, int]:
        """Add the rows of a group, if it is not stored, and return its first write id and size.

        Returns after the commit that holds it. Groups that wait together share a commit.

        number:  counts the groups of a client, from 1
        n:       the number of rows
        add:     adds them to the replay
        """
        with self._adding:
            for other in list(self._to_note):
                self._note(other, self._last.get(other, _NONE))
            last = self._last.get(client, _NONE)
            if number > last[0]:
                last = number, self._replay.count, n
                self._note(client, last)
                try:
                    add()
                except BaseException:
                    # With rows of others behind it, the note would tell of rows that are not there.
                    self._to_note.add(client)
                    raise
                self._last[client] = last
                self._added += 1
                self.rows += n
            else:
                self.repeated += 1
            added = self._added
        self._commit(added)
        return last[1:]

    def forget(self, client: str) -> None:
        """Delete the note of a client that has got all acknowledgements, and sends no more."""
        with self._adding:
            self._to_note.discard(client)
            if self._last.pop(client, None) and self._has_notes:
                self._replay.delete_note(f"{_PREFIX}{client}")

    def _note(self, client: str, last: tuple[int, int, int]) -> None:
        """Set the note of the last group of a client."""
        if self._has_notes:
            self._replay.set_note(f"{_PREFIX}{client}", [*last, time.time()])
        self._to_note.discard(client)

    @property
    def stored(self) -> int:
        """The number of groups whose rows were added."""
        return self._added

    @property
    def waiting(self) -> int:
        """The number of groups that wait for a commit."""
        return self._added - self._committed

    def _commit(self, added: int) -> None:
        """Commit the groups up to a count, unless the commit of another call holds them."""
        with self._committing:
            if self._committed < added:
                added = self._added
                self._replay.flush()
                self.commits += 1
                self._committed = added
