"""Groups: the rows of clients, each group stored once, and acknowledged after its commit.

The number of the last group of each client is kept in a note of the store::

    note "service.client.ID" = [number, first write id, n]

It is set before the rows, so it is never missing where they are. When a server opens the store, the
write ids tell whether the rows of the last group are there as well.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

_PREFIX = "service.client."


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
        self._last: dict[str, tuple[int, int, int]] = {}

    def store(self, client: str, number: int, n: int, add: Callable[[], Any]) -> tuple[int, int]:
        """Add the rows of a group, if it is not stored, and return its first write id and size.

        Returns after the commit that holds it. Groups that wait together share a commit.

        number:  counts the groups of a client, from 1
        n:       the number of rows
        add:     adds them to the replay
        """
        with self._adding:
            last = self._last.get(client, (0, 0, 0))
            if number > last[0]:
                first = self._replay.count
                add()
                last = self._last[client] = (number, first, n)
                self._added += 1
                self.rows += n
            else:
                self.repeated += 1
            added = self._added
        self._commit(added)
        return last[1:]

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
