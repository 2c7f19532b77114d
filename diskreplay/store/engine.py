"""Engine: LMDB as diskreplay uses it: how it is opened, its keys, what its errors mean."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
from numpy.typing import NDArray

from diskreplay.errors import DamageError, DiskReplayError, LockedError, StorageError
from diskreplay.records import ALONE, Grouping
from diskreplay.store.os_errors import explained
from diskreplay.store.tables import TABLES
from diskreplay.wording import count_of

Ints = NDArray[np.int64]
Records = Sequence[bytes] | NDArray[np.uint8]  # an array has a record a row

ENGINE_VERSION: str = lmdb.__version__
_LEAST_MAP_BYTES = 64 << 20
_LEAST_ROOM_BYTES = 1 << 20
_MAX_READERS = 1024
_MODE = 0o666  # less what the umask takes away
_MOST_DATABASES = 32  # a newer version may have added some
_LOCK_BYTES, _READER_BYTES = 128, 64  # of lock.mdb, see lmdb's mdb.c


class MapFullError(StorageError):
    """A transaction did not fit the map; with a larger one it can be run again."""


def open_env(path: Path, writing: bool, flags: Mapping[str, bool]) -> lmdb.Environment:
    """Open the environment in a directory.

    A process that has just opened it reads nothing: a reader with its pid is one that was killed,
    whose place would keep every page that is freed from now on. The engine takes it for its own,
    and so leaves it alone until it is closed.
    """
    _reserve(path / "lock.mdb")
    env = _mapped_env(path, writing, flags)
    if os.getpid() in (pid for pid, _ in readers_of(env)):
        env.close()
        env = _mapped_env(path, writing, flags)
    env.reader_check()
    return env


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
                max_readers=_MAX_READERS,
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


def map_bytes_for(n: int) -> int:
    """Return the size of the smallest map that holds n bytes: a power of two.

    The data file keeps the size of its largest map, and `verify` knows it for sound by that.
    """
    return 1 << max(n - 1, 0).bit_length()


def no_address_space(path: Path, map_bytes: int) -> StorageError:
    """Return the error of a process that cannot map its data file."""
    return StorageError(
        f"the process has no address space for a map of {map_bytes >> 20} MiB, which the data file "
        f"of {path} needs: raise its limit (ulimit -v), or open fewer or smaller buffers in one "
        "process, and call again; nothing was lost"
    )


def readers_of(env: lmdb.Environment) -> list[tuple[int, int | None]]:
    """Return the pid of each reader, with the transaction that it reads; None when it is idle."""
    lines = [line.split() for line in env.readers().splitlines()[1:]]
    return [(int(pid), None if txn == "-" else int(txn)) for pid, _, txn in lines]


def _reserve(lock_file: Path) -> None:
    """Have the disk space of the engine's table of readers, which it would not miss in time.

    The engine maps a file with holes: a full disk ends the process when it touches one.
    """
    try:
        descriptor = os.open(lock_file, os.O_RDWR | os.O_CREAT, _MODE)
    except OSError:
        return  # the engine finds a word for it
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(descriptor, 0, _LOCK_BYTES + _READER_BYTES * _MAX_READERS)
    except OSError as error:
        raise lmdb.DiskError(f"{lock_file}: {error.strerror}") from None
    finally:
        os.close(descriptor)


def open_databases(env: lmdb.Environment, *, create: bool) -> dict[str, Any]:
    """Return the handles of all databases, by name."""
    databases: dict[str, Any] = {
        table.name: env.open_db(table.name.encode(), integerkey=table.has_numbers, create=create)
        for table in TABLES
    }
    with env.begin() as txn:
        for table in TABLES:
            found = databases[table.name].flags(txn)
            flags = {flag for flag, is_set in found.items() if is_set}
            if flags != ({"integerkey"} if table.has_numbers else set()):
                raise DamageError(
                    f"the database {table.name} of {env.path()} has the flags {flags}"
                )
    return databases


def put_records(
    cursor: lmdb.Cursor,
    slot: int,
    records: Records,
    capacity: int,
    grouping: Grouping = ALONE,
) -> None:
    """Put records into slots from `slot` on, around the end of the ring."""
    if grouping.per_value == 1:
        rows = rows_of(records) if isinstance(records, np.ndarray) else records
        _put(cursor, slot, rows, capacity)
        return
    if not isinstance(records, np.ndarray):
        records = np.frombuffer(b"".join(records), np.uint8).reshape(-1, grouping.record_bytes)
    at = 0
    while at < len(records):
        part = records[at : at + capacity - slot]
        values = _values_of(cursor, slot, part, capacity, grouping)
        _put(cursor, slot // grouping.per_value, values, grouping.groups(capacity))
        at += len(part)
        slot = 0


def _values_of(
    cursor: lmdb.Cursor, slot: int, part: NDArray[np.uint8], capacity: int, grouping: Grouping
) -> list[bytes]:
    """Return the values that hold the records of contiguous slots, and what is there beside them.

    A value has its full length from the first record on: one that grew would split its page.
    """

    def value_around(slot: int, part: NDArray[np.uint8]) -> bytes:
        group, within = divmod(slot, grouping.per_value)
        found = bytes(cursor.value()) if cursor.set_key(integer_key(group)) else b""
        slots = grouping.slots_in(group, capacity)
        value = np.zeros((slots, grouping.record_bytes), np.uint8)
        value.reshape(-1)[: len(found)] = np.frombuffer(found, np.uint8)[: value.size]
        value[within : within + len(part)] = part
        return value.tobytes()

    before = min(-slot % grouping.per_value, len(part))
    whole = len(part) - (len(part) - before) % grouping.per_value
    groups = part[before:whole].reshape(-1, grouping.per_value * grouping.record_bytes)
    values = [value_around(slot, part[:before])] if before else []
    values += rows_of(groups)
    if whole < len(part):
        values.append(value_around(slot + whole, part[whole:]))
    return values


def rows_of(array: NDArray[np.uint8]) -> list[bytes]:
    """Return the rows of a contiguous array of bytes."""
    rows: list[bytes] = array.view(f"V{array.shape[1]}")[:, 0].tolist()
    return rows


def _put(cursor: lmdb.Cursor, slot: int, rows: Sequence[bytes], capacity: int) -> None:
    """Put values under the keys from `slot` on, around the end of the ring.

    Keys beyond the last one in use are appended: that fills the pages, where inserting would
    leave them half empty.
    """
    last = number_of(cursor.key()) if cursor.last() else -1
    at = 0
    while at < len(rows):
        append = slot > last
        room = (capacity if append else last + 1) - slot
        part = rows[at : at + room]
        keys = integer_keys(np.arange(slot, slot + len(part)))
        consumed, added = cursor.putmulti(zip(keys, part, strict=True), append=append)
        if (consumed, added) != (len(part), len(part)):
            raise StorageError(f"the engine took {added} of {len(part)} records at slot {slot}")
        at += len(part)
        if append:
            last = slot + len(part) - 1
        slot = (slot + len(part)) % capacity


def integer_key(number: int) -> bytes:
    """Return the key of a number in a database of integer keys."""
    return number.to_bytes(8, sys.byteorder)


def integer_keys(numbers: Ints) -> list[bytes]:
    """Return the keys of numbers."""
    keys: list[bytes] = numbers.astype(np.int64, copy=False).view("V8").tolist()
    return keys


def number_of(key: Any) -> int:
    """Return the number of a key; raise DamageError when it is none."""
    if len(key) != 8:
        raise DamageError(f"a key of {count_of(len(key), 'byte')} is no number (expected 8)")
    return int.from_bytes(bytes(key), sys.byteorder)


@contextlib.contextmanager
def errors_of(path: Path) -> Iterator[None]:
    """Turn the errors of the engine, and of the system, into ours."""
    try:
        yield
    except DiskReplayError:
        raise
    except (
        lmdb.CorruptedError,
        lmdb.InvalidError,
        lmdb.PageNotFoundError,
        lmdb.NotFoundError,
        lmdb.VersionMismatchError,
        lmdb.IncompatibleError,
        lmdb.BadDbiError,
    ) as error:
        raise DamageError(f"{path} is damaged: {error}") from error
    except lmdb.ReadersFullError:
        raise StorageError(
            f"{path} is being read in {_MAX_READERS} places at once, which is as many as can be: "
            "close some of its readers"
        ) from None
    except lmdb.MapFullError:
        raise MapFullError(f"the map of {path} is full") from None
    except (lmdb.Error, OSError, MemoryError) as error:
        raise StorageError(f"{path}: {explained(error, path)}") from error
