"""StoreLocks: the locks that an opening of a store holds, against others that must not be there.

::

    PATH/
      openers.lock    shared by all that have the store open; exclusive with access "alone", for
                      making its files anew
      writer.lock     held for writing: exclusive with access "exclusive", shared with "shared"
      openers/        a file for each opener, see openers.py

All are `flock` locks, which end with the process that holds them, however it ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import multiprocessing
import os
import socket
import time
import weakref
from pathlib import Path

from diskreplay.errors import DamageError, LockedError, NotAStoreError, StorageError
from diskreplay.forks import call_in_child
from diskreplay.store.directory import (
    LOCK,
    OPENERS,
    OPENERS_LOCK,
    WRITER_LOCK,
    StoreDirectory,
)
from diskreplay.store.openers import ALONE, Opener, names_of, openers
from diskreplay.store.os_errors import explained, system_errors

_WRITER_KINDS = {"exclusive": fcntl.LOCK_EX, "shared": fcntl.LOCK_SH}
_held_here: dict[tuple[int, int], weakref.ref[StoreLocks]] = {}


class StoreLocks:
    """The locks of one opening, held until `release` or the end of the process."""

    def __init__(self, path: Path, access: str) -> None:
        try:
            status = path.stat()
        except FileNotFoundError:
            raise NotAStoreError(f"{path} is not there any more: choose another path") from None
        except OSError as error:
            raise StorageError(f"cannot open {path}: {explained(error, path)}") from None
        self.files: dict[str, tuple[int, int]] = {}  # device and inode of the held lock files
        self._path = path
        self._key = (status.st_dev, status.st_ino)
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
            with system_errors(f"cannot look into {path}", path), StoreDirectory(path) as directory:
                self._lock(
                    directory, OPENERS_LOCK, fcntl.LOCK_EX if access == ALONE else fcntl.LOCK_SH
                )
                if access in _WRITER_KINDS:
                    self._lock(directory, WRITER_LOCK, _WRITER_KINDS[access])
                _check_lock_file(directory)
                with contextlib.suppress(OSError):  # where no entry can be made, nobody is told
                    self._register(directory, access)
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Release the locks. Twice is once, and an interrupted call may be done again."""
        if not self._is_held:
            return
        if self._entry:
            with (
                contextlib.suppress(OSError),
                StoreDirectory(self._path) as directory,
                directory.inside(OPENERS) as entries,
            ):
                entries.unlink(self._entry)
        while self._descriptors:
            with contextlib.suppress(OSError):  # a child that was forked meanwhile may have it, too
                fcntl.flock(self._descriptors[-1], fcntl.LOCK_UN)
            os.close(self._descriptors.pop())
        _held_here.pop(self._key, None)
        self._is_held = False

    def drop(self) -> None:
        """Close the descriptors in a forked child: the locks stay with the parent."""
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

    def _register(self, directory: StoreDirectory, access: str) -> None:
        """Add an entry among the openers, and hold a lock on it."""
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
                if os.fstat(descriptor).st_nlink:
                    break
                # Before it was locked, it was removed as the entry of a killed process.
        os.write(descriptor, json.dumps(opener._asdict()).encode())


def _check_lock_file(directory: StoreDirectory) -> None:
    """Raise StorageError where LMDB would make a second lock file beside one that is in use.

    The openers of the store work with the one that was removed, and know nothing of the readers and
    writers of another.
    """
    file = directory.path / LOCK
    try:
        directory.status(LOCK)
    except FileNotFoundError:
        found = openers(directory.path)
        if found:
            raise StorageError(
                f"{file} was removed while the store is held by {names_of(found)}: close it there, "
                "then it is made anew"
            ) from None
    except OSError as error:
        raise StorageError(f"cannot look at {file}: {explained(error, directory.path)}") from None


def _refusal(path: Path, lock: str, kind: int) -> str:
    """Return why a lock of a store cannot be had, and the way out."""
    found = openers(path)
    if lock == OPENERS_LOCK and kind == fcntl.LOCK_SH:
        names = names_of(opener for opener in found if opener.access == ALONE)
        return f"the data file of {path} is being made anew by {names}: wait until that is done"
    if lock == OPENERS_LOCK:
        return f"{path} is held by {names_of(found)}: close it there, since this needs it alone"
    writers = [opener for opener in found if opener.access != "read"]
    shared = any(opener.access == "shared" for opener in writers)
    way_out = "write beside it with access='shared'" if shared else "use access='read'"
    # The mark by which multiprocessing itself refuses to start processes there. It names no parent
    # yet, and that of a process of a forkserver is another one.
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        way_out += (
            ". This process was started by spawn or forkserver and runs the script again, which "
            "must open the store under if __name__ == '__main__'"
        )
    return f"{path} is held by {names_of(writers)}: close it there, or {way_out}"


def _drop_inherited() -> None:
    for locks_of in list(_held_here.values()):
        if (locks := locks_of()) is not None:
            locks.drop()
    _held_here.clear()


call_in_child(_drop_inherited)
