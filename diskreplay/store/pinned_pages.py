"""Pinned pages: pages of old commits that cannot be used again, since a reader stays there.

A reader whose call takes long, or was stopped, makes the data file grow with each commit.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

from diskreplay.errors import warn_caller
from diskreplay.store.environment import Environment, errors_of
from diskreplay.store.openers import is_stopped, openers
from diskreplay.wording import count_of

_GROWTH_BYTES = 8 << 20  # between two looks at the readers
_MANY_COMMITS = 100


class PinnedPagesWarning(UserWarning):
    """A reader stays at an old commit, so that the data file grows."""


class OldestReader(NamedTuple):
    """The reader of the oldest commit that is read, and the number of commits since then.

    `host` is empty where no opener has this pid.
    """

    pid: int
    host: str
    commits_behind: int
    stopped: bool

    def to_plain(self) -> dict[str, Any]:
        """Return its description as plain data."""
        return self._asdict()


class PinnedPages:
    """The search for such readers of one store."""

    def __init__(self, path: Path, env: Environment) -> None:
        self._path = path
        self._env = env
        self._look_at = 0
        self._told: set[int] = set()

    def oldest_reader(self) -> OldestReader | None:
        """Return the reader furthest behind the newest commit; None when no other is behind it."""
        here = os.getpid()
        with errors_of(self._path):
            slots, newest = self._env.reader_transactions(), self._env.last_transaction()
        reading = [(number, pid) for pid, number in slots if number is not None and pid != here]
        if not reading or min(reading)[0] >= newest:
            return None
        number, pid = min(reading)
        known = [opener for opener in openers(self._path) if opener.pid == pid]
        host = known[0].host if known else ""
        stopped = known[0].is_stopped if known else is_stopped(pid)
        return OldestReader(pid, host, newest - number, stopped)

    def warn(self) -> None:
        """After a commit, warn of a reader that makes the data file grow, once of each.

        Cost: nothing, as long as the file has not grown by a few MiB since the last look.
        """
        used_bytes, look_at = self._env.used_bytes, self._look_at
        if used_bytes < look_at:
            return
        self._look_at = used_bytes + _GROWTH_BYTES
        found = self.oldest_reader() if look_at else None
        if found is None or found.commits_behind < _MANY_COMMITS or found.pid in self._told:
            return
        self._told.add(found.pid)
        host = f" on {found.host}" * bool(found.host)
        reader = f"pid {found.pid}{host}{', which is stopped,' * found.stopped}"
        way_out = f"kill -CONT {found.pid} lets it go on" if found.stopped else "let it go on"
        warn_caller(
            f"{reader} reads {self._path} as it was {count_of(found.commits_behind, 'commit')} ago"
            ", so that no page that was freed since is used again: the data file has "
            f"{used_bytes >> 20} MiB and grows until that call ends: {way_out}, or end it",
            PinnedPagesWarning,
        )
