"""Openers: the processes that have a store open, by name.

Each opener has a file in `openers/` that says who it is, and holds a lock on it. A file without a
lock is of a killed process, and is removed by the next one that looks.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import socket
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from diskreplay.errors import DamageError, StorageError, printable
from diskreplay.store.directory import OPENERS, StoreDirectory
from diskreplay.store.os_errors import explained

ALONE = "alone"
_WORDS = ("exclusive", "shared", "read", ALONE)

_ENTRY = re.compile(r"[0-9]+-[0-9a-f]{8}")  # the names that StoreLocks gives; no other is removed
_HOSTILE = OSError, ValueError, TypeError, OverflowError, RecursionError, DamageError
_LACKING = errno.EMFILE, errno.ENFILE, errno.ENOMEM


class Opener(NamedTuple):
    """A process that has a store open: `since` is in seconds since 1970."""

    pid: int
    host: str
    since: float
    access: str

    @property
    def is_stopped(self) -> bool:
        """Whether it is stopped: then it holds all its locks until somebody lets it go on."""
        return self.host == socket.gethostname() and is_stopped(self.pid)

    def to_plain(self) -> dict[str, Any]:
        """Return its description as plain data."""
        return {**self._asdict(), "stopped": self.is_stopped}

    def __str__(self) -> str:
        since = time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(self.since))
        return f"pid {self.pid} on {self.host}, since {since}"


def is_stopped(pid: int) -> bool:
    """Return whether a process of this machine is stopped, as SIGSTOP and debuggers do it."""
    try:
        state = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2][:1]
    except OSError:
        return False
    return state in (b"T", b"t")


def openers(path: Path) -> list[Opener]:
    """Return the processes that have the store at `path` open now."""
    found: list[Opener] = []
    try:
        with StoreDirectory(path) as directory, directory.inside(OPENERS) as entries:
            for name in filter(_ENTRY.fullmatch, entries.names()):
                try:
                    found += _alive(entries, name)
                except _HOSTILE as error:
                    if getattr(error, "errno", None) in _LACKING:
                        raise
    except OSError as error:
        if error.errno in _LACKING:  # an empty list would be wrong then
            raise StorageError(
                f"cannot look who has {path} open: {explained(error, path)}"
            ) from None
    return found


def names_of(openers: Iterable[Opener]) -> str:
    """Return the names of openers, for a message."""
    return " and ".join(map(str, openers)) or "another process"


def _alive(entries: StoreDirectory, name: str) -> list[Opener]:
    """Return the holder of an entry; remove an entry that nobody holds."""
    descriptor = entries.open(name)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            opener = Opener(**json.loads(os.pread(descriptor, 1000, 0)))
            types = list(map(type, opener))
            if types != [int, str, float, str] or opener.access not in _WORDS:
                raise TypeError from None
            time.localtime(opener.since)  # raises for a time that cannot be shown
            return [opener._replace(host=printable(opener.host))]
        entries.unlink(name)
        return []
    finally:
        os.close(descriptor)
