"""Engine: LMDB as diskreplay opens it."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lmdb

from diskreplay.errors import DamageError, LockedError, StorageError
from diskreplay.store.tables import TABLES, Table

ENGINE_VERSION: str = lmdb.__version__
MAX_READERS = 1024

_LEAST_MAP_BYTES = 64 << 20
_LEAST_ROOM_BYTES = 1 << 20
_MODE = 0o666  # less what the umask takes away
_MOST_DATABASES = 32  # a newer version may have added some
_LOCK_BYTES, _READER_BYTES = 128, 64  # of lock.mdb, see lmdb's mdb.c


def open_env(path: Path, writing: bool, flags: Mapping[str, bool]) -> lmdb.Environment:
    """Open the LMDB environment in a directory.

    A process that has just opened it reads nothing: a reader with its pid is one that was killed,
    whose slot would keep every page that is freed from now on. LMDB takes that slot for one of this
    process, and clears it only when the environment is closed.
    """
    _reserve_lock_file(path / "lock.mdb")
    env = _mapped_env(path, writing, flags)
    if os.getpid() in (pid for pid, _ in readers_of(env)):
        env.close()
        env = _mapped_env(path, writing, flags)
    env.reader_check()
    return env


def open_databases(env: lmdb.Environment, *, create: bool) -> dict[str, Any]:
    """Return the handles of all databases, by name; of an optional one only if it is there."""
    databases: dict[str, Any] = {}
    for table in TABLES:
        try:
            databases[table.name] = open_database(env, table, create=create)
        except lmdb.NotFoundError:
            if not table.is_optional:
                raise
    return databases


def open_database(env: lmdb.Environment, table: Table, txn: Any = None, *, create: bool) -> Any:
    """Return the handle of one database, opened in a transaction, by default one of its own.

    The handle of a database that is made in a transaction is gone if the transaction is aborted.
    """
    name = table.name.encode()
    database: Any = env.open_db(name, txn, integerkey=table.has_numbers, create=create)
    with contextlib.nullcontext(txn) if txn else env.begin() as reader:
        flags = {flag for flag, is_set in database.flags(reader).items() if is_set}
    if flags != ({"integerkey"} if table.has_numbers else set()):
        raise DamageError(f"the database {table.name} of {env.path()} has the flags {flags}")
    return database


def _mapped_env(path: Path, writing: bool, flags: Mapping[str, bool]) -> lmdb.Environment:
    """Open the environment with a map of twice the data file, or as much as there may be."""
    with contextlib.suppress(OSError):
        file_bytes = 0
        file_bytes = os.stat(path / "data.mdb").st_size
    map_bytes = max(_LEAST_MAP_BYTES, map_bytes_for(2 * file_bytes))
    while True:
        try:
            return lmdb.open(
                os.fsencode(path),
                map_size=map_bytes,
                readonly=not writing,
                create=writing,
                readahead=False,
                max_dbs=_MOST_DATABASES,
                max_readers=MAX_READERS,
                max_spare_txns=0,
                mode=_MODE,
                **flags,
            )
        except lmdb.MemoryError:
            map_bytes //= 2  # the process is allowed less address space
            if map_bytes < file_bytes + _LEAST_ROOM_BYTES:
                raise no_address_space(path, 2 * map_bytes) from None
        except lmdb.Error as error:
            if "already open in this process" in str(error):
                raise LockedError(
                    f"the data file of {path} is open in this process, by another name or from "
                    "before a fork in the middle of a call: use another process"
                ) from None
            if os.strerror(errno.EAGAIN) not in str(error):
                raise
            pid = os.getpid()
            raise LockedError(
                f"{path} is open in a process that has the same pid, {pid}, in another pid "
                "namespace (container), and the storage engine tells processes apart by their "
                "pids: let both share one (docker run --pid=host or --pid=container:NAME), or "
                "start this one under another pid, as the child of a shell"
            ) from None


def _reserve_lock_file(file: Path) -> None:
    """Reserve the disk space of LMDB's table of readers.

    LMDB maps a file with holes: a full disk ends the process when it touches one.
    """
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, _MODE)
    except OSError:
        return  # LMDB says why
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(descriptor, 0, _LOCK_BYTES + _READER_BYTES * MAX_READERS)
    except OSError as error:
        raise lmdb.DiskError(f"{file}: {error.strerror}") from None
    finally:
        os.close(descriptor)


def readers_of(env: lmdb.Environment) -> list[tuple[int, int | None]]:
    """Return the pid of each reader, with the transaction that it reads; None when it is idle."""
    lines = [line.split() for line in env.readers().splitlines()[1:]]
    return [(int(pid), None if txn == "-" else int(txn)) for pid, _, txn in lines]


def map_bytes_for(n: int) -> int:
    """Return the size of the smallest map that holds n bytes: a power of two.

    The data file keeps the size of its largest map, and `verify` finds a flipped bit of it by that.
    """
    return 1 << max(n - 1, 0).bit_length()


def no_address_space(path: Path, map_bytes: int) -> StorageError:
    """Return the error of a process that cannot map its data file."""
    return StorageError(
        f"the process has no address space for a map of {map_bytes >> 20} MiB, which the data file "
        f"of {path} needs: raise its limit (ulimit -v), or open fewer or smaller buffers in one "
        "process, and call again; nothing was lost"
    )
