"""Environment: the engine's environment of one store, with a map that grows as its data file does.

The engine maps the data file, and writes no further than the map goes. A map takes address space
and no memory, but of that, too, a process has only so much: 128 TiB, or what `ulimit -v` allows. So
a map is as large as its store can need, and twice as large when that was too little::

    writer    map 64 MiB  ... commit ... | set_mapsize | commit ...    no transaction is open then
    others    map 64 MiB  ... begin: the file is larger | set_mapsize | begin ...
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lmdb

from diskreplay.errors import StorageError
from diskreplay.forks import process
from diskreplay.store.engine import (
    map_bytes_for,
    no_address_space,
    open_databases,
    open_env,
    readers_of,
)
from diskreplay.store.opened_files import OpenedFiles
from diskreplay.store.read_ahead import Warmer


class Environment:
    """The environment of one store, its databases, and what has its pages read."""

    def __init__(
        self, path: Path, files: OpenedFiles, writing: bool, flags: Mapping[str, bool]
    ) -> None:
        self._path = path
        self._files = files
        self._writing = writing
        self.flags = flags
        self._env: lmdb.Environment | None = None
        self._process = process()
        self.used_bytes = 0  # of the data file, before the last commit of this process
        self._open()

    def _open(self) -> lmdb.Environment:
        # Who writes waits for those who are at it; who reads must not.
        with self._files.commit_lock() if self._writing else contextlib.nullcontext():
            with self._files.engine_opens():
                env = open_env(self._path, self._writing, self.flags)
            try:
                self.warmer = Warmer(env, self._files.data)
                self.databases = open_databases(env, create=False)
                self._map_bytes: int = env.info()["map_size"]
                self._page_bytes: int = env.stat()["psize"]
            except BaseException:
                env.close()
                raise
        self._env = env
        return env

    @property
    def _live(self) -> lmdb.Environment:
        """The engine's environment; opened again where its map was lost when it should grow."""
        if self._env is None:
            self._files.check()  # what is opened has to be what was open before
            return self._open()
        return self._env

    def ready(self) -> None:
        """Have the environment open, before a lock is taken that its opening takes, too."""
        self.begin().abort()

    def begin(self, *, write: bool = False) -> Any:
        """Begin a transaction, after other processes have made the data file larger, too."""
        env: Any = self._live
        self._files.check_sizes()
        try:
            return env.begin(write=write, buffers=not write)
        except lmdb.ReadersFullError:
            env.reader_check()  # gives back the slots of killed processes
        except lmdb.MapResizedError:
            self._follow()
        except lmdb.PanicError:  # a commit failed in its last step: the engine gives the file up
            self.close()
        while True:
            env = self._live
            try:
                return env.begin(write=write, buffers=not write)
            except lmdb.MapResizedError:  # once more, meanwhile
                self._follow()

    def end(self, txn: Any) -> None:
        """End a reader's transaction; in a forked child leave it to the parent."""
        self.check_process()
        txn.abort()

    def check_process(self) -> None:
        """Raise StorageError in a forked child that goes on with a call of its parent."""
        if self._process is not process():
            raise StorageError(
                f"this process was forked in the middle of a call that uses {self._path}, which "
                "goes on in its parent: fork when no call is under way, or start processes with "
                "spawn"
            )

    def abandon(self) -> None:
        """Leave the environment to the parent, in a forked child.

        To close it, or to let it go, would free the place of a reader in the parent.
        """
        if self._env is not None:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._env))
            self._env = None

    def make_room(self, n: int) -> None:
        """Have room for a commit of n bytes in the map, where there is address space for it."""
        self.used_bytes = used = self._used_bytes()
        if used + n > self._map_bytes:
            self._remap(used + n)

    def reserve(self, n: int) -> None:
        """Have a map of n bytes, where there is address space for it: it need not grow later."""
        if n > self._map_bytes:
            self._remap(n)

    def grow(self) -> None:
        """Have a map twice as large; raise StorageError when there is no address space for it."""
        if not self._remap(2 * self._map_bytes):
            raise no_address_space(self._path, 2 * self._map_bytes)

    def _follow(self) -> None:
        """Have a map for a data file that another process made larger than this one's."""
        used = self._used_bytes()
        if not self._remap(2 * used) or self._map_bytes < used:
            raise no_address_space(self._path, map_bytes_for(used))

    def _used_bytes(self) -> int:
        # Not from the map, which ends the process where the file was cut.
        return self._files.used_pages() * self._page_bytes

    def _remap(self, n: int) -> bool:
        """Have a map of n bytes, or as near to it as can be; return whether it is a larger one."""
        map_bytes = map_bytes_for(n)
        while map_bytes > self._map_bytes and not _is_free(map_bytes - self._map_bytes):
            map_bytes //= 2
        if map_bytes <= self._map_bytes:
            return False
        self.warmer.settle()
        if any(pid == os.getpid() and txn for pid, txn in readers_of(self._live)):
            return False  # what it has read would be gone
        try:
            self._live.set_mapsize(map_bytes)
        except lmdb.MemoryError:  # it was taken meanwhile, and the engine has let the old one go
            self.close()
            self._open()
            return False
        self.warmer.forget_map()
        self._map_bytes = map_bytes
        return True

    def readers(self) -> str:
        """Return the engine's table of readers."""
        found: str = self._live.readers()
        return found

    def reading(self) -> list[tuple[int, int | None]]:
        """Return the pid of each reader, with the transaction that it reads, if any."""
        return readers_of(self._live)

    def reader_check(self) -> None:
        """Give back the slots of readers that were killed."""
        self._files.check_sizes()
        self._live.reader_check()

    def open_db(self, name: bytes, txn: Any, **flags: bool) -> Any:
        """Return the handle of one more database."""
        env: Any = self._live
        return env.open_db(name, txn, **flags)

    def last_transaction(self) -> int:
        """Return the number of the newest transaction in the map of the data file."""
        found: int = self._live.info()["last_txnid"]
        return found

    def copy(self, place: Path) -> None:
        """Write a compacted copy of the data file into a directory."""
        self.begin().abort()  # follows, where others have made the data file larger
        env: Any = self._live
        env.copy(os.fsencode(place), compact=True)

    def close(self, *, sync: bool = False) -> None:
        """Give the environment back. Twice is once."""
        self.warmer.stop()  # to close under a transaction ends the process
        env = self._env
        if env is not None:
            self._files.mend_lock_file()
            try:
                if sync:
                    env.sync(True)
            finally:
                env.close()
                self._env = None  # not before it is: an interrupted call is done again


def _is_free(n: int) -> bool:
    """Return whether the process may have n more bytes of address space."""
    try:
        mmap.mmap(-1, n, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=0).close()
    except (OSError, OverflowError, ValueError):
        return False
    return True
