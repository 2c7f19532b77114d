"""Environment: the LMDB environment of one store, with a map that grows as its data file does.

LMDB maps the data file, and writes no further than the map goes. A map takes address space and no
memory, but a process has only so much address space: 128 TiB, or the limit of `ulimit -v`. So a map
is as large as its store can need, and is doubled when that was too little::

    writer    map 64 MiB  ... commit ... | set_mapsize | commit ...    no transaction is open then
    others    map 64 MiB  ... begin: the file is larger | set_mapsize | begin ...
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import lmdb

from diskreplay.errors import DamageError, DiskReplayError, StorageError
from diskreplay.store.engine import (
    MAX_READERS,
    map_bytes_for,
    no_address_space,
    open_database,
    open_databases,
    open_env,
    readers_of,
)
from diskreplay.store.opened_files import OpenedFiles
from diskreplay.store.os_errors import explained
from diskreplay.store.read_ahead import ReadAhead
from diskreplay.store.tables import TABLES
from diskreplay.store.value_places import ValuePlaces

_DAMAGE = (
    lmdb.CorruptedError,
    lmdb.InvalidError,
    lmdb.PageNotFoundError,
    lmdb.NotFoundError,
    lmdb.VersionMismatchError,
    lmdb.IncompatibleError,
    lmdb.BadDbiError,
)


class MapFullError(StorageError):
    """A transaction did not fit the map; with a larger map it can be run again."""


@contextlib.contextmanager
def errors_of(path: Path) -> Iterator[None]:
    """Raise errors of LMDB and of the system in the block as errors of diskreplay."""
    try:
        yield
    except DiskReplayError:
        raise
    except _DAMAGE as error:
        raise DamageError(f"{path} is damaged: {error}") from error
    except lmdb.ReadersFullError:
        raise StorageError(
            f"{path} is being read in {MAX_READERS} places at once, which is as many as can be: "
            "close some of its readers"
        ) from None
    except lmdb.MapFullError:
        raise MapFullError(f"the map of {path} is full") from None
    except (lmdb.Error, OSError, MemoryError) as error:
        raise StorageError(f"{path}: {explained(error, path)}") from error


class Environment:
    """The environment of an open store, its databases and its map."""

    def __init__(
        self, path: Path, files: OpenedFiles, writing: bool, flags: Mapping[str, bool]
    ) -> None:
        self._path = path
        self._files = files
        self._writing = writing
        self._flags = flags
        self._env: lmdb.Environment | None = None
        self._adopting = threading.Lock()
        self.used_bytes = 0  # of the data file, before the last commit of this process
        self._open()

    def _open(self) -> lmdb.Environment:
        # An opening for writing begins a transaction, for which LMDB would wait in C, deaf to
        # Ctrl-C; reading waits for nobody.
        with self._files.commit_lock() if self._writing else contextlib.nullcontext():
            with self._files.lmdb_opens():
                env = open_env(self._path, self._writing, self._flags)
            try:
                self.read_ahead = ReadAhead(env, self._files.data)
                self.places = ValuePlaces(self._files.data)  # of the transitions
                self._databases = open_databases(env, create=False)
                self._map_bytes: int = env.info()["map_size"]
                self._page_bytes: int = env.stat()["psize"]
            except BaseException:
                env.close()
                raise
        self._env = env
        return env

    @property
    def _live(self) -> Any:
        """The LMDB environment, opened again where its map was lost when it should grow."""
        if self._env is None:
            self._files.check()  # it has to be the file that was open before
            return self._open()
        return self._env

    def set_flags(self, flags: Mapping[str, bool]) -> None:
        """Open the environment again where the flags differ: LMDB fixes them at its opening."""
        if self._writing and flags != self._flags:
            self.close()
            self._flags = flags
            self._open()

    # Transactions

    def ensure_open(self) -> None:
        """Open the environment, if it is not: its opening takes the commit lock itself."""
        self._begin(False).abort()

    def begin(self, *, write: bool = False) -> tuple[Any, dict[str, Any]]:
        """Begin a transaction; return it, and the handles of the databases that it sees, by name.

        Another process may have made the data file larger, or an optional database, meanwhile.
        """
        while True:
            env, databases = self._env, self._databases  # another thread may adopt more
            txn = self._begin(write)
            is_same = self._env is env  # or it was opened again, and has handles of its own
            if is_same and (len(databases) == len(TABLES) or not _has_more(txn, databases)):
                return txn, databases
            txn.abort()
            del txn
            if not is_same:
                continue
            with contextlib.suppress(lmdb.MapResizedError):  # the next `_begin` follows
                self._adopt()

    def _adopt(self) -> None:
        """Open the databases that were made since the environment was opened.

        A handle that a reader opens is gone with the reader, and LMDB wants no two transactions at
        once that open one. So a writing process does it in a transaction to write, as at its
        opening, for which LMDB waits in C until the commit under way is done.
        """
        with self._adopting:
            self._databases = open_databases(self._live, create=False)

    def make_database(self, name: str, txn: Any) -> Any:
        """Make a database; return its handle, which is valid in this transaction only."""
        [table] = [table for table in TABLES if table.name == name]
        return open_database(self._live, table, txn, create=True)

    def _begin(self, write: bool) -> Any:
        """Begin a transaction, also after another process has made the data file larger."""
        self._files.check_sizes()
        env = self._live
        try:
            return env.begin(write=write, buffers=not write)
        except lmdb.ReadersFullError:
            env.reader_check()  # gives back the slots of killed processes
        except lmdb.MapResizedError:
            self._follow()
        except lmdb.PanicError:  # a commit failed in its last step: LMDB gives the file up
            self.close()
        while True:
            try:
                return self._live.begin(write=write, buffers=not write)
            except lmdb.MapResizedError:  # once more, meanwhile
                self._follow()

    def end(self, txn: Any) -> None:
        """End a reader's transaction; in a forked child leave it to the parent."""
        self._files.check_process()
        txn.abort()

    def last_transaction(self) -> int:
        """Return the number of the newest transaction in the map of the data file."""
        found: int = self._live.info()["last_txnid"]
        return found

    def open_db(self, name: bytes, txn: Any, **flags: bool) -> Any:
        """Return the handle of one more database."""
        return self._live.open_db(name, txn, **flags)

    # Readers

    def readers(self) -> str:
        """Return LMDB's table of readers."""
        found: str = self._live.readers()
        return found

    def reader_transactions(self) -> list[tuple[int, int | None]]:
        """Return the pid of each reader, with the transaction that it reads, if any."""
        return readers_of(self._live)

    def reader_check(self) -> None:
        """Free the reader slots of killed processes."""
        self._files.check_sizes()
        self._live.reader_check()

    # The map

    def make_room(self, n: int) -> None:
        """Make the map large enough for a commit of n bytes, if there is address space for it."""
        self.used_bytes = used = self._used_bytes()
        self.reserve(used + n)

    def reserve(self, n: int) -> None:
        """Make the map n bytes large, if there is address space for it: it need not grow later."""
        if n > self._map_bytes:
            self._remap(n)

    def grow(self) -> None:
        """Double the map; raise StorageError when there is no address space for it."""
        if not self._remap(2 * self._map_bytes):
            raise no_address_space(self._path, 2 * self._map_bytes)

    def _follow(self) -> None:
        """Map a data file that another process made larger than this map."""
        used = self._used_bytes()
        if not self._remap(2 * used) or self._map_bytes < used:
            raise no_address_space(self._path, map_bytes_for(used))

    def _used_bytes(self) -> int:
        # Not from the map, which ends the process where the file was cut.
        return self._files.used_pages() * self._page_bytes

    def _remap(self, n: int) -> bool:
        """Map n bytes, or as many as there is room for; return whether that is a larger map."""
        map_bytes = map_bytes_for(n)
        if map_bytes > self._map_bytes and not _is_free(map_bytes - self._map_bytes):
            self.places.close()  # commits need the address space more
        while map_bytes > self._map_bytes and not _is_free(map_bytes - self._map_bytes):
            map_bytes //= 2
        if map_bytes <= self._map_bytes:
            return False
        self.read_ahead.settle()
        self.read_ahead.forget_map()  # first: an interrupt may come once it has moved
        if any(pid == os.getpid() and txn for pid, txn in self.reader_transactions()):
            return False  # a reader of this process would lose what it reads
        try:
            self._live.set_mapsize(map_bytes)
        except lmdb.MemoryError:  # it was taken meanwhile, and LMDB has let the old map go
            self.close()
            self._open()
            return False
        self._map_bytes = map_bytes
        return True

    # Copies and the end

    def copy(self, place: Path) -> None:
        """Write a compacted copy of the data file into a directory."""
        self.ensure_open()  # follows, where others have made the data file larger
        self._live.copy(os.fsencode(place), compact=True)

    def abandon(self) -> None:
        """Leave the environment to the parent, in a forked child.

        To close it, or to let it go, would free the slot of a reader in the parent.
        """
        if self._env is not None:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._env))
            self._env = None

    def close(self, *, sync: bool = False) -> None:
        """Close the environment. Twice is once."""
        self.read_ahead.stop()  # to close under a transaction ends the process
        self.places.close()
        env = self._env
        if env is not None:
            self._files.mend_lock_file()
            try:
                if sync:
                    env.sync(True)
            finally:
                env.close()
                self._env = None  # not before it is closed: an interrupted call is done again


def _has_more(txn: Any, databases: Mapping[str, Any]) -> bool:
    """Return whether a transaction sees a database of the table that is not among these."""
    names = [table.name for table in TABLES if table.name not in databases]
    with txn.cursor() as cursor:
        return any(cursor.set_key(name.encode()) for name in names)


def _is_free(n: int) -> bool:
    """Return whether the process may have n more bytes of address space."""
    try:
        mmap.mmap(-1, n, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=0).close()
    except (OSError, OverflowError, ValueError):
        return False
    return True
