"""Locks: who has a store open, and what that keeps others from.

::

    PATH/
      openers.lock    held, shared, by everyone who has the store open; alone with access "alone",
                      by who makes its files anew
      writer.lock     held by who writes: alone with access "exclusive", together with "shared"
      openers/        a file for each opener, held by it, that says who it is

All are `flock` locks, which end with the process that holds them, however it ends.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import socket
import time
import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from diskreplay.errors import (
    DamageError,
    LockedError,
    NotAStoreError,
    StorageError,
    printable,
)
from diskreplay.forks import call_in_child
from diskreplay.store.files import LOCK, OPENERS, OPENERS_LOCK, WRITER_LOCK, StoreDirectory
from diskreplay.store.os_errors import explained

ALONE = "alone"
_WORDS = ("exclusive", "shared", "read", ALONE)

_ENTRY = re.compile(r"[0-9]+-[0-9a-f]{8}")  # the names that `Hold` gives; no others are removed
_HOSTILE = OSError, ValueError, TypeError, RecursionError, DamageError
_LACKING = errno.EMFILE, errno.ENFILE, errno.ENOMEM
_KINDS = {"exclusive": fcntl.LOCK_EX, "shared": fcntl.LOCK_SH}
_held_here: dict[tuple[int, int], weakref.ref[Hold]] = {}


class Opener(NamedTuple):
    """Who has a store open: `since` is in seconds since 1970."""

    pid: int
    host: str
    since: float
    access: str

    @property
    def is_stopped(self) -> bool:
        """Whether it cannot go on until somebody lets it: what it holds, it holds until then."""
        return self.host == socket.gethostname() and is_stopped(self.pid)

    def to_plain(self) -> dict[str, Any]:
        """Return what there is to say of it, by name."""
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
    """Return who has the store at `path` open now."""
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
        if error.errno in _LACKING:  # who is there is not known then
            raise StorageError(
                f"cannot look who has {path} open: {explained(error, path)}"
            ) from None
    return found


def _alive(entries: StoreDirectory, name: str) -> list[Opener]:
    """Return who holds an entry; one that nobody holds is of a killed process, and goes."""
    descriptor = entries.open(name)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            opener = Opener(**json.loads(os.pread(descriptor, 1000, 0)))
            types = list(map(type, opener))
            if types != [int, str, float, str] or opener.access not in _WORDS:
                raise TypeError from None
            return [opener._replace(host=printable(opener.host))]
        entries.unlink(name)
        return []
    finally:
        os.close(descriptor)


class Hold:
    """The locks that an opener of a store holds until `release` or the end of its process."""

    def __init__(self, path: Path, access: str) -> None:
        try:
            status = path.stat()
        except FileNotFoundError:
            raise NotAStoreError(f"{path} is not there any more: choose another path") from None
        except OSError as error:
            raise StorageError(f"cannot open {path}: {explained(error, path)}") from None
        self._key = (status.st_dev, status.st_ino)
        self.files: dict[str, tuple[int, int]] = {}  # device and inode of the lock files it holds
        self._path = path
        self._descriptors: list[int] = []
        self._entry = ""
        self._is_held = False
        own = weakref.ref(self)
        if _held_here.setdefault(self._key, own) is not own:
            raise LockedError(
                f"{path} is open in this process already: use that buffer, or close it first"
            )
        self._is_held = True
        try:
            try:
                directory = StoreDirectory(path)
            except OSError as error:
                raise StorageError(f"cannot look into {path}: {explained(error, path)}") from None
            with directory:
                kind = fcntl.LOCK_EX if access == ALONE else fcntl.LOCK_SH
                self._lock(directory, OPENERS_LOCK, kind)
                if access in _KINDS:
                    self._lock(directory, WRITER_LOCK, _KINDS[access])
                self._check_company(directory)
                self._register(directory, access)
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Give the locks back. Twice is once."""
        if not self._is_held:
            return
        self._is_held = False
        _held_here.pop(self._key, None)
        if self._entry:
            with (
                contextlib.suppress(OSError),
                StoreDirectory(self._path) as directory,
                directory.inside(OPENERS) as entries,
            ):
                entries.unlink(self._entry)
        for descriptor in self._descriptors:
            with contextlib.suppress(OSError):  # a child that was forked meanwhile may have it, too
                fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)

    def drop(self) -> None:
        """Close the descriptors in a forked child: the parent keeps the locks, as long as it is."""
        self._is_held = False
        for descriptor in self._descriptors:
            with contextlib.suppress(OSError):  # it may be done again
                os.close(descriptor)

    def __del__(self) -> None:
        if getattr(self, "_is_held", False):  # an interrupt came before anybody had it
            self.release()

    def _lock(self, directory: StoreDirectory, name: str, kind: int) -> None:
        file = directory.path / name
        try:
            descriptor = directory.open(name)
        except FileNotFoundError:
            raise DamageError(f"{file} is missing: make an empty file of that name") from None
        except OSError as error:
            raise StorageError(f"cannot open {file}: {explained(error, directory.path)}") from None
        self._descriptors.append(descriptor)
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LockedError(_refusal(directory.path, name, kind)) from None
        except OSError as error:
            raise StorageError(f"cannot lock {file}: {explained(error, directory.path)}") from None
        status = os.fstat(descriptor)
        self.files[name] = status.st_dev, status.st_ino
        with contextlib.suppress(OSError):
            if os.path.samestat(status, os.lstat(file)):
                return
        raise LockedError(
            f"{directory.path} was replaced by another store meanwhile: open it again"
        )

    def _check_company(self, directory: StoreDirectory) -> None:
        """Raise StorageError where a new lock file of the engine would be one beside another.

        Those who have the store open work with the one that was removed, and know nothing of
        readers and writers that use another.
        """
        try:
            directory.status(LOCK)
        except FileNotFoundError:
            found = openers(directory.path)
            if found:
                raise StorageError(
                    f"{directory.path / LOCK} was removed while the store is held by "
                    f"{_names(found)}: close it there, then it is made anew"
                ) from None
        except OSError as error:
            raise StorageError(
                f"cannot look at {directory.path / LOCK}: {explained(error, directory.path)}"
            ) from None

    def _register(self, directory: StoreDirectory, access: str) -> None:
        """Say who has the store open. Where that cannot be written, nobody is told."""
        with contextlib.suppress(OSError):
            with contextlib.suppress(FileExistsError):
                directory.make_directory(OPENERS)
            name = f"{os.getpid()}-{os.urandom(4).hex()}"
            opener = Opener(os.getpid(), socket.gethostname(), time.time(), access)
            with directory.inside(OPENERS) as entries:
                while True:
                    descriptor = entries.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL)
                    self._descriptors.append(descriptor)
                    self._entry = name
                    fcntl.flock(descriptor, fcntl.LOCK_EX)
                    if os.fstat(descriptor).st_nlink:  # else it was taken for one that was killed
                        break
            os.write(descriptor, json.dumps(opener._asdict()).encode())


def _drop_inherited() -> None:
    for hold_of in list(_held_here.values()):
        if (hold := hold_of()) is not None:
            hold.drop()
    _held_here.clear()


call_in_child(_drop_inherited)


def _refusal(path: Path, lock: str, kind: int) -> str:
    """Return why one of a store's locks cannot be had, and the way out."""
    found = openers(path)
    if lock == OPENERS_LOCK and kind == fcntl.LOCK_SH:
        names = _names(who for who in found if who.access == ALONE)
        return f"the data file of {path} is being made anew by {names}: wait until that is done"
    if lock == OPENERS_LOCK:
        return f"{path} is held by {_names(found)}: close it there, since this needs it alone"
    writers = [who for who in found if who.access != "read"]
    shared = any(who.access == "shared" for who in writers)
    way_out = "write beside it with access='shared'" if shared else "use access='read'"
    return f"{path} is held by {_names(writers)}: close it there, or {way_out}"


def _names(openers: Iterable[Opener]) -> str:
    return " and ".join(map(str, openers)) or "another process"
