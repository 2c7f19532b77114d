"""Store: the LMDB environment of one buffer. It knows bytes, slots and blocks, and no schema.

Databases of the environment::

    transitions   slot (uint64, native)           -> record, as the codec made it
    priorities    number of block (uint64)        -> sealed raw float32 of its slots
    runs          number of run (uint64)          -> sealed description of a run
    meta          b"identity", b"schema", b"state"-> sealed facts, plain data

"Sealed" is the msgpack array [checksum, key, content]: the checksum is the xxh3_64 of all bytes
after it, and the key tells a value that was moved to another key.
"""

from __future__ import annotations

import contextlib
import sys
import uuid as uuids
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import lmdb
import msgpack  # type: ignore[import-untyped]
import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from diskreplay.directory import DATA, Hold, building, check_data_file, holds_store, read_uuid
from diskreplay.errors import DamageError, DiskReplayError, NotAStoreError, StorageError

Ints = NDArray[np.int64]

_MAP_BYTES = 1 << 42  # address space, not disk: a store never meets its end
_SYNC_FLAGS = {
    "full": {"sync": True, "metasync": True},
    "system": {"sync": True, "metasync": False},
    "process": {"sync": False, "metasync": False},
}
DURABILITIES = tuple(_SYNC_FLAGS)
_INTEGER_KEYS = ("transitions", "priorities", "runs")
_SEAL = b"\x93\xcf"


class Snapshot:
    """One consistent view of what is committed, valid inside its `with` block only."""

    def __init__(self, store: Store, txn: Any) -> None:
        self._path = store.path
        self._databases = store._databases
        self._txn = txn

    def meta(self, name: str) -> Any:
        """Return the fact `name`, or None when it was never committed."""
        raw = self._txn.get(name.encode(), db=self._databases["meta"])
        return None if raw is None else unseal(raw, name, f"the {name} of {self._path}")

    def records(self, slots: Ints) -> list[Any]:
        """Return the record of each slot as a buffer into the store, an empty one if missing."""
        get, database = self._txn.get, self._databases["transitions"]
        return [get(key, b"", database) for key in _integer_keys(slots)]

    def seals(self) -> dict[int, bytes]:
        """Return the checksum of each priority block: which changed since an earlier snapshot."""
        cursor = self._txn.cursor(self._databases["priorities"])
        return {_number(key): bytes(raw[2:10]) for key, raw in cursor}

    def blocks(self, numbers: Iterable[int]) -> dict[int, bytes]:
        """Return the contents of priority blocks."""
        contents = {n: self._sealed("priorities", n, "priority block") for n in numbers}
        for number, content in contents.items():
            if not isinstance(content, bytes):
                raise DamageError(f"priority block {number} of {self._path} holds no bytes")
        return contents

    def runs(self) -> list[dict[str, Any]]:
        """Return the descriptions of all runs, oldest first."""
        numbers = [_number(key) for key, _ in self._txn.cursor(self._databases["runs"])]
        return [self._sealed("runs", n, "the description of run") for n in numbers]

    def _sealed(self, database: str, number: int, what: str) -> Any:
        raw = self._txn.get(_integer_key(number), b"", self._databases[database])
        return unseal(raw, number, f"{what} {number} of {self._path}")


class Store:
    """An open store: snapshots to read, commits to write."""

    @classmethod
    def create(cls, path: Path, identity: Mapping[str, Any], meta: Mapping[str, Any]) -> bool:
        """Make a store at `path`, or return False when there is one already.

        `identity` never changes and `meta` is its first commit. Nothing is left after an error.
        """
        if holds_store(path):
            return False
        uuid = str(uuids.uuid4())
        try:
            with building(path, uuid) as place, _errors_of(path):
                _write_new(place, {"identity": {**identity, "uuid": uuid}, **meta})
        except StorageError:
            if holds_store(path):  # another process was faster
                return False
            raise
        return True

    def __init__(self, path: Path, *, writing: bool, durability: str = "system") -> None:
        if not holds_store(path):
            raise NotAStoreError(
                f"{path} holds no store: ReplayBuffer(capacity, path=...) makes one"
            )
        self.path = path
        uuid = read_uuid(path)
        self._writing = writing
        self._hold = Hold(path, writing=writing)
        try:
            check_data_file(path)
            with _errors_of(path):
                self._env = _open_env(path, writing, _SYNC_FLAGS[durability])
                self._databases = _open_databases(self._env, create=False)
            with self.snapshot() as snapshot:
                self.identity: dict[str, Any] = _mapping(snapshot.meta("identity"), path)
            if self.identity.get("uuid") != uuid:
                raise DamageError(
                    f"{path / DATA} belongs to another store: its uuid is "
                    f"{self.identity.get('uuid')} (expected {uuid}, as in the manifest)"
                )
        except BaseException:
            self.close(sync=False)
            raise

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[Snapshot]:
        """Look at what is committed now. Cost: about a microsecond."""
        with _errors_of(self.path):
            txn = self._env.begin(buffers=True)
            snapshot = Snapshot(self, txn)
            try:
                yield snapshot
            finally:
                # A finished transaction holds its reader slot until the object is gone, and a
                # traceback could keep it.
                snapshot._txn = None
                txn.abort()
                del txn

    def commit(
        self,
        capacity: int,
        records: Iterable[tuple[int, Sequence[bytes]]],
        blocks: Mapping[int, bytes],
        facts_after: Callable[[Any], Mapping[str, Any]],
        run: tuple[int, Mapping[str, Any]],
    ) -> Mapping[str, Any]:
        """Write all of it in one transaction, or raise and leave the store as it was.

        Returns the facts that were written.

        records:      (write id of the first, records) in ascending order; they go to their slots
        facts_after:  takes the state before this commit, returns the facts to write
        """
        with _errors_of(self.path), self._env.begin(write=True) as txn:
            state = txn.get(b"state", b"", self._databases["meta"])
            meta = facts_after(unseal(state, "state", f"the state of {self.path}"))
            with txn.cursor(self._databases["transitions"]) as cursor:
                for first, rows in records:
                    _put_records(cursor, first % capacity, rows, capacity)
            sealed: list[tuple[str, bytes, bytes]] = [
                *(("priorities", _integer_key(n), seal(n, block)) for n, block in blocks.items()),
                *(("meta", name.encode(), seal(name, fact)) for name, fact in meta.items()),
                ("runs", _integer_key(run[0]), seal(*run)),
            ]
            for database, key, value in sealed:
                txn.put(key, value, db=self._databases[database])
        return meta

    def copy(self, target: Path) -> None:
        """Write a compacted copy of what is committed to `target`, as a store of its own."""
        if holds_store(target):
            raise StorageError(f"{target} holds a store already: choose a new directory")
        uuid = str(uuids.uuid4())
        with building(target, uuid) as place, _errors_of(target):
            self._env.copy(str(place), compact=True)
            env = _open_env(place, True, _SYNC_FLAGS["full"])
            try:
                with env.begin(write=True, db=env.open_db(b"meta", create=False)) as txn:
                    txn.put(b"identity", seal("identity", {**self.identity, "uuid": uuid}))
            finally:
                env.close()

    def disk_bytes(self) -> int:
        """Return the size of the data file in bytes."""
        try:
            return (self.path / DATA).stat().st_size
        except OSError as error:
            raise StorageError(f"cannot look at {self.path / DATA}: {error.strerror}") from None

    def close(self, *, sync: bool = True) -> None:
        """Give the store back; with `sync`, what is committed is on the disk afterwards."""
        env: lmdb.Environment | None = getattr(self, "_env", None)
        try:
            if env is not None:
                with _errors_of(self.path):
                    if sync and self._writing:
                        env.sync(True)
                    env.close()
        finally:
            self._hold.release()

    def drop_locks(self) -> None:
        """Close the locks' descriptors in a forked child, so that they end with the parent."""
        self._hold.release()


def seal(key: str | int, content: Any) -> bytes:
    """Return the bytes of [checksum, key, content]."""
    body: bytes = msgpack.packb(key) + msgpack.packb(content)
    return _SEAL + xxh3_64_intdigest(body).to_bytes(8, "big") + body


def unseal(raw: Any, key: str | int, what: str) -> Any:
    """Return the content that `seal` was given; raise DamageError when the bytes are others."""
    raw = bytes(raw)
    if raw[:2] == _SEAL and raw[2:10] == xxh3_64_intdigest(raw[10:]).to_bytes(8, "big"):
        with contextlib.suppress(ValueError, msgpack.UnpackException):
            _, found, content = msgpack.unpackb(raw)
            if found == key and type(found) is type(key):
                return content
    if not raw:
        raise DamageError(f"{what} is missing")
    raise DamageError(f"{what} is damaged: its bytes are not those that were written")


def _write_new(place: Path, meta: Mapping[str, Any]) -> None:
    env = _open_env(place, True, _SYNC_FLAGS["full"])
    try:
        databases = _open_databases(env, create=True)
        with env.begin(write=True) as txn:
            for name, fact in meta.items():
                txn.put(name.encode(), seal(name, fact), db=databases["meta"])
    finally:
        env.close()


def _open_env(path: Path, writing: bool, flags: Mapping[str, bool]) -> lmdb.Environment:
    map_bytes = _MAP_BYTES
    while True:
        try:
            env = lmdb.open(
                str(path),
                map_size=map_bytes,
                readonly=not writing,
                create=writing,
                readahead=False,
                max_dbs=8,
                max_readers=1024,
                max_spare_txns=0,
                **flags,
            )
        except lmdb.MemoryError:
            map_bytes //= 2  # the process is allowed less address space
            if map_bytes < 1 << 30:
                raise
        else:
            env.reader_check()
            return env


def _open_databases(env: lmdb.Environment, *, create: bool) -> dict[str, Any]:
    databases = {
        name: env.open_db(name.encode(), integerkey=True, create=create) for name in _INTEGER_KEYS
    }
    return {**databases, "meta": env.open_db(b"meta", create=create)}


def _put_records(cursor: lmdb.Cursor, slot: int, rows: Sequence[bytes], capacity: int) -> None:
    """Put rows into slots from `slot` on, around the end of the ring.

    Slots beyond the last one in use are appended: that fills the pages, where inserting would
    leave them half empty.
    """
    last = _number(cursor.key()) if cursor.last() else -1
    at = 0
    while at < len(rows):
        append = slot > last
        room = (capacity if append else last + 1) - slot
        part = rows[at : at + room]
        keys = _integer_keys(np.arange(slot, slot + len(part)))
        consumed, added = cursor.putmulti(zip(keys, part, strict=True), append=append)
        if (consumed, added) != (len(part), len(part)):
            raise StorageError(f"the engine took {added} of {len(part)} records at slot {slot}")
        at += len(part)
        if append:
            last = slot + len(part) - 1
        slot = (slot + len(part)) % capacity


def _integer_key(number: int) -> bytes:
    return number.to_bytes(8, sys.byteorder)


def _integer_keys(numbers: Ints) -> list[bytes]:
    keys: list[bytes] = numbers.astype(np.int64, copy=False).view("V8").tolist()
    return keys


def _number(key: Any) -> int:
    return int.from_bytes(bytes(key), sys.byteorder)


def _mapping(found: Any, path: Path) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise DamageError(f"{path} has no identity inside its data file")
    return found


@contextlib.contextmanager
def _errors_of(path: Path) -> Iterator[None]:
    """Turn the engine's errors into ours."""
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
    except (lmdb.Error, MemoryError) as error:
        raise StorageError(f"{path}: the storage engine refused: {error}") from error
