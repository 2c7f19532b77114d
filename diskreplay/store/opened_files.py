"""OpenedFiles: the files of an open store, as long as they are those at its path.

A process that works with a file that was removed or replaced does so alone: what it writes is lost,
and what it overwrites may be what others read. So each commit, and each look of a reader, first
asks whether all files that matter are still the ones that were opened.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path

from diskreplay.errors import StorageError
from diskreplay.forks import call_in_child
from diskreplay.lmdbfile import last_page_of, meta_pages, newest_of, transaction_of
from diskreplay.store.directory import DATA, LOCK, MANIFEST, StoreDirectory
from diskreplay.store.os_errors import explained
from diskreplay.store.waiting import wait_for

_opened: weakref.WeakSet[OpenedFiles] = weakref.WeakSet()
_CLOCK_NS = 2_000_000_000  # time stamps of no file system are coarser


class OpenedFiles:
    """The data file, opened to be looked at and locked, and the files that must not change.

    data:  a descriptor of the data file; -1 when it was closed, as it is in a forked child
    """

    def __init__(self, path: Path, locked: Mapping[str, tuple[int, int]]) -> None:
        """Take the path of a store, and device and inode of the lock files that are held."""
        self._path = path
        self._unchanged: tuple[int, int, int] | None = None  # the directory, when all was right
        self._lock_file = str(path / LOCK)
        self.data = -1
        _opened.add(self)
        try:
            with StoreDirectory(path) as directory:
                manifest = _identity(directory.status(MANIFEST))
                self.data = directory.open(DATA)
            status = os.fstat(self.data)
        except OSError as error:
            self.close()
            raise StorageError(f"cannot open {path}: {explained(error, path)}") from None
        self._expected = {DATA: _identity(status), MANIFEST: manifest, **locked}
        self._least_bytes = status.st_size
        self._lock_bytes = 0

    @property
    def identity(self) -> tuple[int, int]:
        """The device and the inode of the data file, which no other file has while it is open."""
        return self._expected[DATA]

    def close(self) -> None:
        """Close the data file. Twice is once."""
        descriptor, self.data = self.data, -1
        if descriptor >= 0:
            os.close(descriptor)

    @contextlib.contextmanager
    def lmdb_opens(self) -> Iterator[None]:
        """Check that LMDB, which is opened in the block and takes paths, opens these files."""
        before = self._lock_status()
        yield
        after = self._lock_status()
        if after is None or (before is not None and _identity(before) != _identity(after)):
            raise StorageError(f"{self._lock_file} was replaced meanwhile: open the store again")
        self._expected[LOCK] = _identity(after)
        self._lock_bytes = after.st_size
        self.check()

    @contextlib.contextmanager
    def commit_lock(self) -> Iterator[None]:
        """Hold the lock of every commit to this data file, whatever its lock files are."""
        try:
            wait_for(self.data, self._path, "its commit")
            yield
        finally:
            if self.data >= 0:  # a forked child has closed it, and left the lock to its parent
                with contextlib.suppress(OSError):
                    fcntl.flock(self.data, fcntl.LOCK_UN)

    def newest_transaction(self) -> int:
        """Return the number of the newest transaction in the data file."""
        return transaction_of(newest_of(meta_pages(self.data)))

    def used_pages(self) -> int:
        """Return how many pages of the data file the newest transaction uses, or leaves free."""
        return last_page_of(newest_of(meta_pages(self.data))) + 1

    def check_process(self) -> None:
        """Raise StorageError in a forked child that goes on with a call of its parent."""
        if self.data < 0:
            raise StorageError(
                f"this process was forked in the middle of a call that uses {self._path}, which "
                "goes on in its parent: fork when no call is under way, or start processes with "
                "spawn"
            )

    def check(self) -> None:
        """Raise StorageError when a file is not at its path any more, or was cut.

        Names come and go only with a change of the directory's time, which no program can set; so
        files are asked for their inodes only after such a change. Cost: about 4 microseconds.
        """
        name = DATA
        try:
            found = os.stat(self._path)
            place = found.st_dev, found.st_ino, found.st_ctime_ns
            if place != self._unchanged:
                for name, expected in self._expected.items():
                    if _identity(os.lstat(self._path / name)) != expected:
                        raise _changed(self._path / name, "is another file now")
                settled = time.time_ns() - found.st_ctime_ns > _CLOCK_NS
                self._unchanged = place if settled else None
            self.check_sizes()
        except StorageError:
            raise
        except OSError as error:
            raise _changed(self._path / name, f"cannot be reached ({error.strerror})") from None

    def check_sizes(self) -> None:
        """Raise StorageError when a file was cut: to touch a page that is gone ends by SIGBUS.

        Cost: about 2 microseconds.
        """
        name, size, least = DATA, os.fstat(self.data).st_size, self._least_bytes
        if size >= least:
            self._least_bytes = size
            found = self._own_lock_status()
            if found is None:
                return  # the lock file that is mapped is elsewhere, and as it was
            name, size, least = LOCK, found.st_size, self._lock_bytes
        if size < least:
            raise _changed(self._path / name, f"was cut: it has {size} bytes, and had {least}")

    def mend_lock_file(self) -> None:
        """Extend LMDB's lock file to its old size, if the file was cut.

        LMDB writes to the mapped file when it closes. The old content of the cut part is of no use.
        """
        with contextlib.suppress(OSError):  # the environment is closed also where this fails
            found = self._own_lock_status()
            if found is not None and found.st_size < self._lock_bytes:
                os.truncate(self._lock_file, self._lock_bytes)

    def _lock_status(self) -> os.stat_result | None:
        try:
            return os.lstat(self._lock_file)
        except FileNotFoundError:
            return None

    def _own_lock_status(self) -> os.stat_result | None:
        """Return the status of the lock file, None when another file or none is at its path."""
        found = self._lock_status()
        is_own = found is not None and _identity(found) == self._expected.get(LOCK)
        return found if is_own else None


def _drop_inherited() -> None:
    """Close the data files in a forked child, since the commit lock would outlive the parent."""
    for files in list(_opened):
        files.close()


call_in_child(_drop_inherited)


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _changed(file: Path, found: str) -> StorageError:
    return StorageError(
        f"{file} {found}: was it removed while it was open? "
        "save() writes what the buffer holds to another place"
    )
