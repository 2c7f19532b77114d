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
import fcntl
import json
import os
import socket
import stat
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, NamedTuple

from diskreplay.errors import DamageError, LockedError, NotAStoreError, StorageError

OPENERS_LOCK = "openers.lock"
WRITER_LOCK = "writer.lock"
OPENERS = "openers"
ALONE = "alone"
_WORDS = ("exclusive", "shared", "read", ALONE)

_KINDS = {"exclusive": fcntl.LOCK_EX, "shared": fcntl.LOCK_SH}
_held_here: set[tuple[int, int, int]] = set()
_held_guard = threading.Lock()


class Opener(NamedTuple):
    """Who has a store open: `since` is in seconds since 1970."""

    pid: int
    host: str
    since: float
    access: str

    def __str__(self) -> str:
        since = time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(self.since))
        return f"pid {self.pid} on {self.host}, since {since}"


def openers(path: Path) -> list[Opener]:
    """Return who has the store at `path` open now."""
    found = []
    for entry in sorted((path / OPENERS).glob("*")):
        hostile = OSError, ValueError, TypeError, RecursionError
        with contextlib.suppress(*hostile), _opened(entry) as descriptor:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                opener = Opener(**json.loads(os.pread(descriptor, 1000, 0)))
                types = list(map(type, opener))
                if types != [int, str, float, str] or opener.access not in _WORDS:
                    raise TypeError from None
                found.append(opener._replace(host="".join(filter(str.isprintable, opener.host))))
            else:
                entry.unlink()  # its opener was killed
    return found


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[int]:
    """Open a file to read, and nothing else: a pipe would be waited for."""
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(f"{file} is not a file")
        yield descriptor
    finally:
        os.close(descriptor)


class Hold:
    """The locks that an opener of a store holds until `release` or the end of its process."""

    def __init__(self, path: Path, access: str) -> None:
        try:
            status = path.stat()
        except OSError as error:
            raise NotAStoreError(f"cannot open {path}: {error.strerror}") from None
        self._key = (os.getpid(), status.st_dev, status.st_ino)
        self._files: list[IO[bytes]] = []
        self._entry: Path | None = None
        self._is_held = False
        with _held_guard:
            if self._key in _held_here:
                raise LockedError(
                    f"{path} is open in this process already: use that buffer, or close it first"
                )
            self._is_held = True
            _held_here.add(self._key)
        try:
            self._lock(path, OPENERS_LOCK, fcntl.LOCK_EX if access == ALONE else fcntl.LOCK_SH)
            if access in _KINDS:
                self._lock(path, WRITER_LOCK, _KINDS[access])
            self.is_first = not openers(path)
            self._register(path / OPENERS, access)
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Give the locks back. In a forked child, close the descriptors: the parent keeps them."""
        if not self._is_held:
            return
        self._is_held = False
        with _held_guard:
            _held_here.discard(self._key)
        is_own = self._key[0] == os.getpid()
        if self._entry is not None and is_own:
            with contextlib.suppress(OSError):
                self._entry.unlink()
        for file in self._files:
            if is_own:  # a child that was forked meanwhile may have it, too
                fcntl.flock(file, fcntl.LOCK_UN)
            file.close()

    def __del__(self) -> None:
        if getattr(self, "_is_held", False):  # an interrupt came before anybody had it
            self.release()

    def _lock(self, path: Path, name: str, kind: int) -> None:
        try:
            file = (path / name).open("rb")
        except FileNotFoundError:
            raise DamageError(
                f"{path / name} is missing: make an empty file of that name"
            ) from None
        except OSError as error:
            raise StorageError(f"cannot open {path / name}: {error.strerror}") from None
        self._files.append(file)
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except OSError:
            raise LockedError(_refusal(path, name, kind)) from None
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), os.stat(path / name)):
                return
        raise LockedError(f"{path} was replaced by another store meanwhile: open it again")

    def _register(self, directory: Path, access: str) -> None:
        """Say who has the store open. Where that cannot be written, nobody is told."""
        entry = directory / f"{os.getpid()}-{os.urandom(4).hex()}"
        with contextlib.suppress(OSError):
            directory.mkdir(exist_ok=True)
            opener = Opener(os.getpid(), socket.gethostname(), time.time(), access)
            while True:
                file = entry.open("xb", buffering=0)
                self._files.append(file)
                self._entry = entry
                fcntl.flock(file, fcntl.LOCK_EX)
                if os.fstat(file.fileno()).st_nlink:  # else it was taken for one that was killed
                    break
            file.write(json.dumps(opener._asdict()).encode())


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
