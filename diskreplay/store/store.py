"""Store: the LMDB environment of one buffer. It knows bytes, slots and blocks, and no schema.

tables.py names its databases. All values but records are sealed, see seals.py.
"""

from __future__ import annotations

import contextlib
import itertools
import uuid as uuids
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import getitem
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from diskreplay.aliases import Ints
from diskreplay.errors import DamageError, StorageError
from diskreplay.records import ALONE, Grouping, seal, unseal
from diskreplay.store.admission import check_known
from diskreplay.store.creation import building, check_outside
from diskreplay.store.directory import (
    FORMAT,
    check_kinds,
    check_store,
    holds_store,
    raise_format,
    read_manifest,
)
from diskreplay.store.engine import (
    MapFullError,
    Records,
    errors_of,
    integer_key,
    number_of,
    open_databases,
    open_env,
    put_records,
)
from diskreplay.store.environment import Environment
from diskreplay.store.files import DATA, LOCK
from diskreplay.store.locks import Hold
from diskreplay.store.notes import Note
from diskreplay.store.opened_files import OpenedFiles
from diskreplay.store.os_errors import ours
from diskreplay.store.pinned_pages import PinnedPages
from diskreplay.store.soundness import check_data_file
from diskreplay.store.tables import TABLES

Raw = Sequence[Any] | NDArray[np.uint8]
T = TypeVar("T")

_COMMIT_ROOM_BYTES = 4 << 20  # pages of the trees, and lists of free pages
_SYNC_FLAGS = {
    "full": {"sync": True, "metasync": True},
    "system": {"sync": True, "metasync": False},
    "process": {"sync": False, "metasync": False},
}
_CUT_AT_ONCE = 1024  # values of at most so many bytes are copied whole, and cut all at once
_TRIES = 20


class Snapshot:
    """One consistent view of what is committed, valid inside its `with` block only."""

    def __init__(self, store: Store, txn: Any) -> None:
        self._path = store.path
        self._databases = store._env.databases
        self._env = store._env
        self._warmer = store._env.warmer
        self._txn = txn

    def meta(self, name: str) -> Any:
        """Return the fact `name`, or None when it was never committed."""
        raw = self.raw(name)
        return None if raw is None else self._unseal(raw, name, f"the {name}")

    def raw(self, name: str) -> bytes | None:
        """Return the sealed bytes of the fact `name`, None when it was never committed."""
        return bytes(self._txn.get(name.encode(), b"", self._databases["meta"])) or None

    def facts(self) -> dict[str, Any]:
        """Return all facts, also those that this version does not know."""
        raw = {str(bytes(k), "utf-8", "replace"): value for k, value in self._cursor("meta")}
        return {name: self._unseal(raw[name], name, f"the {ascii(name)[1:-1]:.40}") for name in raw}

    def has(self, name: str) -> bool:
        """Return whether the fact `name` was ever committed."""
        return self.raw(name) is not None

    def some_values(self, n: int = 64) -> list[tuple[int, bytes]]:
        """Return up to n values of records by their keys, the first and the last among them."""
        found: dict[int, bytes] = {}
        with self._cursor("transitions") as cursor:
            if cursor.last():
                last = number_of(cursor.key())
                cursor.first()
                first = number_of(cursor.key())
                for i in range(n):
                    cursor.set_range(integer_key(first + (last - first) * i // max(1, n - 1)))
                    found[number_of(cursor.key())] = bytes(cursor.value())
        return list(found.items())

    def others(self) -> dict[bytes, Any]:
        """Return handles of the databases that a newer version has made, by name."""
        known = {table.name.encode() for table in TABLES}
        names = [bytes(name) for name, _ in self._txn.cursor() if bytes(name) not in known]
        return {name: self._env.open_db(name, self._txn, create=False) for name in names}

    def records(self, slots: Ints, grouping: Grouping = ALONE) -> Raw:
        """Return the record of each slot as a buffer: into the store, or as the row of an array.

        One that is missing is empty; in a value with others it is zero bytes.
        """
        database = self._databases["transitions"]
        if grouping.per_value == 1:
            return self._warmer.values(self._txn, database, slots)
        groups, within = grouping.places(slots)
        values = self._warmer.values(self._txn, database, groups)
        if grouping.value_bytes <= _CUT_AT_ONCE and set(map(len, values)) == {grouping.value_bytes}:
            joined = np.frombuffer(b"".join(values), f"V{grouping.record_bytes}")
            found = joined.take(np.arange(slots.size) * grouping.per_value + within)
            return found.view(np.uint8).reshape(slots.size, grouping.record_bytes)
        parts = grouping.parts
        return [*map(getitem, values, map(parts.__getitem__, within.tolist()))]

    def seals(self) -> dict[int, bytes]:
        """Return the checksum of each priority block: which changed since an earlier snapshot."""
        database = self._databases["priorities"]
        found: dict[int, bytes] = {}
        cursor = iter(self._cursor("priorities"))
        numbers = np.arange(self.entries("priorities"))
        for begin, end in self._warmer.parts(self._txn, database, numbers):
            part = itertools.islice(cursor, end - begin)
            found.update((number_of(key), bytes(raw[2:10])) for key, raw in part)
        return found

    def blocks(self, numbers: Iterable[int]) -> dict[int, bytes]:
        """Return the contents of priority blocks."""
        return dict(self.blocks_one_by_one(numbers))

    def blocks_one_by_one(self, numbers: Iterable[int]) -> Mapping[int, bytes]:
        """Return the contents of priority blocks, of which only the one in use is in memory."""
        return _Blocks(self, numbers)

    def block(self, number: int) -> bytes:
        """Return the content of one priority block; raise DamageError when it is damaged."""
        content = self._sealed("priorities", number, "priority block")
        if not isinstance(content, bytes):
            raise DamageError(f"priority block {number} of {self._path} holds no bytes")
        return content

    def runs(self) -> list[dict[str, Any]]:
        """Return the descriptions of all runs, oldest first."""
        numbers = [number_of(key) for key, _ in self._cursor("runs")]
        return [self._sealed("runs", n, "the description of run") for n in numbers]

    def run(self, number: int) -> dict[str, Any] | None:
        """Return the description of one run, None when there is none."""
        key = integer_key(number)
        if self._txn.get(key, db=self._databases["runs"]) is None:
            return None
        found: dict[str, Any] = self._sealed("runs", number, "the description of run")
        return found

    def entries(self, database: str) -> int:
        """Return how many keys a database has."""
        return int(self._txn.stat(self._databases[database])["entries"])

    def disk_bytes(self, database: str) -> int:
        """Return the size of the pages that a database is on, in bytes."""
        stat = self._txn.stat(self._databases[database])
        kinds = ("branch_pages", "leaf_pages", "overflow_pages")
        return int(sum(stat[kind] for kind in kinds) * stat["psize"])

    def _cursor(self, database: str) -> Any:
        return self._txn.cursor(self._databases[database])

    def _sealed(self, database: str, number: int, what: str) -> Any:
        raw = self._txn.get(integer_key(number), b"", self._databases[database])
        return self._unseal(raw, number, f"{what} {number}")

    def _unseal(self, raw: Any, key: str | int, what: str) -> Any:
        try:
            return unseal(raw, key, f"{what} of {self._path}")
        except DamageError as error:
            raise DamageError(
                f"{error}: restore the store from a copy, or copy what can be read of it with "
                "diskreplay.repair()"
            ) from None


class _Blocks(Mapping[int, bytes]):
    """Priority blocks by number, each of them read when it is looked up."""

    def __init__(self, snapshot: Snapshot, numbers: Iterable[int]) -> None:
        self._snapshot = snapshot
        self._numbers = list(numbers)

    def __getitem__(self, number: int) -> bytes:
        return self._snapshot.block(number)

    def __iter__(self) -> Iterator[int]:
        return iter(self._numbers)

    def __len__(self) -> int:
        return len(self._numbers)


class Transaction(Snapshot):
    """A snapshot that nobody else can change before it ends, and what is put into it."""

    def put_records(
        self, capacity: int, first: int, records: Records, grouping: Grouping = ALONE
    ) -> None:
        """Put the records of the write ids from `first` on into their slots."""
        with self._cursor("transitions") as cursor:
            put_records(cursor, first % capacity, records, capacity, grouping)

    def put_blocks(self, blocks: Mapping[int, bytes]) -> None:
        """Put priority blocks, by number."""
        for number, content in blocks.items():
            self._put("priorities", integer_key(number), seal(number, content))

    def put_meta(self, facts: Mapping[str, Any]) -> None:
        """Put facts, by name."""
        for name, fact in facts.items():
            self._put("meta", name.encode(), seal(name, fact))

    def put_run(self, number: int, description: Mapping[str, Any]) -> None:
        """Put the description of a run."""
        self._put("runs", integer_key(number), seal(number, description))

    def put_others(self, source: Snapshot) -> None:
        """Put what is in the databases of another store that this version does not know."""
        for name, database in source.others().items():
            mine = self._env.open_db(name, self._txn, **database.flags(source._txn))
            with self._txn.cursor(mine) as cursor:
                cursor.putmulti(source._txn.cursor(database))

    def _put(self, database: str, key: bytes, value: bytes) -> None:
        self._txn.put(key, value, db=self._databases[database])


class Store:
    """An open store: snapshots to read, commits to write."""

    @classmethod
    @ours
    def create(cls, path: Path, identity: Mapping[str, Any], meta: Mapping[str, Any]) -> bool:
        """Make a store at `path`, or return False when there is one already.

        `identity` never changes and `meta` is its first commit. A store that is made anew keeps its
        uuid; others get one. Nothing is left after an error.
        """
        if holds_store(path):
            return False
        uuid = str(identity.get("uuid", uuids.uuid4()))
        try:
            with building(path, uuid) as place, errors_of(path):
                _write_new(place, {"identity": {**identity, "uuid": uuid}, **meta})
        except StorageError:
            if holds_store(path):  # another process was faster
                return False
            raise
        return True

    @ours
    def __init__(self, path: Path, *, access: str = "read", durability: str = "system") -> None:
        check_store(path)
        self.path = path
        check_kinds(path)
        check_known(path)
        self._writing = access in ("exclusive", "shared")
        self._follows = access in ("shared", "read")
        self.has_to_be_there = True  # where it is not, nothing is committed
        self._hold = Hold(path, access)
        try:
            self.format, uuid = read_manifest(path)
            check_data_file(path)
            self._files = OpenedFiles(path, self._hold.files)
            self._note = Note(path, self._files.data, lasting=durability != "process")
            with errors_of(path):
                flags = _SYNC_FLAGS[durability]
                self._env = Environment(path, self._files, self._writing, flags)
            self.pinned_pages = PinnedPages(path, self._env)
            with self.snapshot() as snapshot:
                found = snapshot.meta("identity")
            if not isinstance(found, dict):
                raise DamageError(f"{path} has no identity inside its data file")
            self.identity: dict[str, Any] = found
            if self.identity.get("uuid") != uuid:
                raise DamageError(
                    f"{path / DATA} belongs to another store: its uuid is "
                    f"{self.identity.get('uuid')} (expected {uuid}, as in the manifest)"
                )
        except BaseException:
            self.close(sync=False)
            raise

    def set_durability(self, durability: str) -> None:
        """Open the environment again, where another durability needs that."""
        if _SYNC_FLAGS[durability] != self._env.flags:
            with errors_of(self.path):
                self._env.close()
                flags = _SYNC_FLAGS[durability]
                self._env = Environment(self.path, self._files, self._writing, flags)
                self._note.close()
                self._note = Note(self.path, self._files.data, lasting=durability != "process")
            self.pinned_pages = PinnedPages(self.path, self._env)

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[Snapshot]:
        """Look at what is committed now. Cost: about a microsecond."""
        with errors_of(self.path):
            txn = self._begin_newest() if self._follows else self._env.begin()
            snapshot = Snapshot(self, txn)
            try:
                yield snapshot
            except DamageError:
                self.check_place()  # what is read while it is replaced looks like damage
                raise
            finally:
                # A finished transaction holds its reader slot until the object is gone, and a
                # traceback could keep it.
                snapshot._txn = None
                self._env.end(txn)
                del txn

    def commit(self, put: Callable[[Transaction], T], n: int = 0) -> T:
        """Commit what `put` puts, all of it, or nothing when it raises; return what it returns.

        It is called again, with a larger map, when what it puts did not fit.

        n:  the bytes of what it is going to put
        """
        with errors_of(self.path):
            self._env.make_room(2 * n + _COMMIT_ROOM_BYTES)
        while True:
            try:
                with self.transaction() as txn:
                    return put(txn)
            except MapFullError:
                with errors_of(self.path):
                    self._env.grow()

    def reserve(self, n: int) -> None:
        """Prepare for a data file of n bytes: address space, and none of the disk."""
        with errors_of(self.path):
            self._env.reserve(n)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Commit at the end what the block puts, all of it, or nothing when it raises."""
        with errors_of(self.path):
            self._env.ready()
            with self._files.commit_lock():
                if self.has_to_be_there:
                    self.check_place()
                if self.format < FORMAT:
                    raise_format(self.path)  # or an older one would not see what is committed now
                    self.format = FORMAT
                # The slot of a killed reader would keep every page that is replaced from now on.
                self._env.reader_check()
                newest = self._files.newest_transaction()
                with self._note.change(), self._env.begin(write=True) as txn:
                    if txn.id() != newest + 1:
                        raise self._replaced(LOCK, "Close the store everywhere, then open it again")
                    yield Transaction(self, txn)
                    self._env.check_process()

    def check_place(self) -> None:
        """Raise StorageError when a file of the store is not at its path: commits would be lost."""
        self._files.check()

    def _replaced(self, name: str, way_out: str) -> StorageError:
        """Return the error of a data file and a lock file that tell of different transactions."""
        return StorageError(
            f"{self.path / name} is not the one that others work with: was it replaced while it "
            f"was open? {way_out}"
        )

    def _begin_newest(self) -> Any:
        """Begin to read what the data file has, too, as its newest commit, or the one before.

        A lock file that tells of an older one is not that of the writers, who know nothing of this
        reader. The data file is an older one on an overlay file system that somebody wrote to.
        """
        for _ in range(_TRIES):  # a commit may come in between
            txn = self._env.begin()
            behind = self._env.last_transaction() - txn.id()
            if 0 <= behind < 2:
                return txn
            txn.abort()
            del txn
        raise self._replaced(DATA if behind < 0 else LOCK, "Open the store again")

    @ours
    def copy(self, target: Path, facts: Mapping[str, Any]) -> None:
        """Write a compacted copy of what is committed to `target`, as a store of its own.

        facts:  put into its `meta`, where they are not there
        """
        if holds_store(target):
            raise StorageError(f"{target} holds a store already: choose a new directory")
        check_outside(target)
        uuid = str(uuids.uuid4())
        with building(target, uuid) as place, errors_of(target):
            self._env.copy(place)
            env = open_env(place, True, _SYNC_FLAGS["full"])
            try:
                with env.begin(write=True, db=env.open_db(b"meta", create=False)) as txn:
                    txn.put(b"identity", seal("identity", {**self.identity, "uuid": uuid}))
                    for name, fact in facts.items():
                        txn.put(name.encode(), seal(name, fact), overwrite=False)
            finally:
                env.close()

    @ours
    def disk_bytes(self) -> int:
        """Return the size of the data file in bytes."""
        return (self.path / DATA).lstat().st_size

    @ours
    def close(self, *, sync: bool = True) -> None:
        """Give the store back; with `sync`, what is committed is on the disk afterwards."""
        env: Environment | None = getattr(self, "_env", None)
        try:
            if env is not None:
                with errors_of(self.path):
                    env.close(sync=sync and self._writing)
        finally:
            if hasattr(self, "_note"):
                self._note.close()
            if hasattr(self, "_files"):
                self._files.close()
            self._hold.release()

    def settle(self) -> None:
        """Return when no thread but the caller reads: before a fork."""
        self._env.warmer.settle()

    def abandon(self) -> None:
        """Leave the environment to the parent, in a forked child, without closing it."""
        self._env.abandon()


def _write_new(place: Path, meta: Mapping[str, Any]) -> None:
    env = open_env(place, True, _SYNC_FLAGS["full"])
    try:
        databases = open_databases(env, create=True)
        with env.begin(write=True) as txn:
            for name, fact in meta.items():
                txn.put(name.encode(), seal(name, fact), db=databases["meta"])
    finally:
        env.close()
