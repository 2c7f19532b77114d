"""Store: one open store, its snapshots to read and its commits to write."""

from __future__ import annotations

import contextlib
import uuid as uuids
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from diskreplay.errors import DamageError, StorageError
from diskreplay.records import seal
from diskreplay.store.creation import building, check_outside
from diskreplay.store.directory import DATA, LOCK
from diskreplay.store.engine import open_databases, open_env
from diskreplay.store.environment import Environment, MapFullError, errors_of
from diskreplay.store.known_note import KnownNote
from diskreplay.store.locks import StoreLocks
from diskreplay.store.manifest import (
    FORMAT,
    check_entries,
    check_store,
    holds_store,
    raise_format,
    read_manifest,
)
from diskreplay.store.opened_files import OpenedFiles
from diskreplay.store.os_errors import raising_own_errors
from diskreplay.store.pinned_pages import PinnedPages
from diskreplay.store.snapshot import Snapshot
from diskreplay.store.state import Identity
from diskreplay.store.transaction import Transaction
from diskreplay.store.trust import check_data_file, check_layout

T = TypeVar("T")

_COMMIT_ROOM_BYTES = 4 << 20  # pages of the trees, and lists of free pages
_SYNC_FLAGS = {
    "full": {"sync": True, "metasync": True},
    "system": {"sync": True, "metasync": False},
    "process": {"sync": False, "metasync": False},
}
_TRIES = 20


class Store:
    """An open store.

    path:              its directory
    format:            the format in its manifest
    identity:          the facts that never change, as plain data
    must_be_in_place:  whether a commit is refused when a file is not at its path any more
    pinned_pages:      the readers that keep pages of old commits
    """

    @classmethod
    @raising_own_errors
    def create(cls, path: Path, identity: Mapping[str, Any], meta: Mapping[str, Any]) -> bool:
        """Make a store at `path`, or return False when there is one already.

        `identity` never changes and `meta` is its first commit. An identity with a uuid keeps it;
        others get one. Nothing is left after an error.
        """
        if holds_store(path):
            return False
        uuid = str(identity.get("uuid", uuids.uuid4()))
        try:
            with building(path, uuid) as place, errors_of(path):
                _put_facts(place, {**identity, "uuid": uuid}, meta)
        except StorageError:
            if holds_store(path):  # another process was faster
                return False
            raise
        return True

    @raising_own_errors
    def __init__(self, path: Path, *, access: str = "read", durability: str = "system") -> None:
        self.path = path
        self.must_be_in_place = True
        self._writing = access in ("exclusive", "shared")
        self._follows = access in ("shared", "read")
        check_store(path)
        check_entries(path)
        read_manifest(path)
        check_layout(path)
        self._locks = StoreLocks(path, access)
        try:
            self.format, uuid = read_manifest(path)  # from here on nobody replaces it
            check_data_file(path)
            self._files = OpenedFiles(path, self._locks.files)
            self._note = KnownNote(path, self._files.data, lasting=durability != "process")
            with errors_of(path):
                flags = _SYNC_FLAGS[durability]
                self._env = Environment(path, self._files, self._writing, flags)
            self.pinned_pages = PinnedPages(path, self._env)
            with self.snapshot() as snapshot:
                plain = snapshot.meta("identity")
            try:
                self.identity = Identity.parse(plain)
            except DamageError as error:
                raise DamageError(f"{error}, in {path / DATA}") from None
            if self.identity.uuid != uuid:
                raise DamageError(
                    f"{path / DATA} belongs to another store: its uuid is {self.identity.uuid} "
                    f"(expected {uuid}, as in the manifest)"
                )
        except BaseException:
            self.close(sync=False)
            raise

    @raising_own_errors
    def set_durability(self, durability: str) -> None:
        """Commit with this durability from now on; nothing may be under way."""
        with errors_of(self.path):
            self._env.set_flags(_SYNC_FLAGS[durability])
        self._note.lasting = durability != "process"

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[Snapshot]:
        """Look at what is committed now. Cost: a few microseconds."""
        with errors_of(self.path):
            txn, databases = self._begin_newest() if self._follows else self._env.begin()
            snapshot = Snapshot(self.path, self._env, txn, databases)
            del txn
            try:
                yield snapshot
            except DamageError:
                self.check_place()  # what is read while it is replaced looks like damage
                raise
            finally:
                snapshot.end()

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
            self._env.ensure_open()
            with self._files.commit_lock():
                if self.must_be_in_place:
                    self.check_place()
                if self.format < FORMAT:
                    raise_format(self.path)  # or an older version would not see this commit
                    self.format = FORMAT
                # The slot of a killed reader would keep every page that is replaced from now on.
                self._env.reader_check()
                newest = self._files.newest_transaction()
                with self._note.change():
                    txn, databases = self._env.begin(write=True)
                    with txn:
                        # LMDB takes its number, and the commit that it builds on, from its lock
                        # file.
                        if txn.id() != newest + 1:
                            way_out = "Close the store everywhere, then open it again"
                            raise self._replaced(LOCK, way_out)
                        yield Transaction(self.path, self._env, txn, databases)
                        self._files.check_process()
                self._env.places.follow(newest + 1)

    def check_place(self) -> None:
        """Raise StorageError when a file of the store is not at its path: commits would be lost."""
        self._files.check()

    @property
    def data_file(self) -> tuple[int, int]:
        """The device and the inode of the data file: another store at this path has others."""
        return self._files.identity

    def _replaced(self, name: str, way_out: str) -> StorageError:
        """Return the error of a data file and a lock file that tell of different transactions."""
        return StorageError(
            f"{self.path / name} is not the one that others work with: was it replaced while it "
            f"was open? {way_out}"
        )

    def _begin_newest(self) -> tuple[Any, dict[str, Any]]:
        """Begin to read the newest commit of the data file, or the one before.

        A lock file that tells of an older one is not that of the writers, who know nothing of this
        reader. The data file is an older one on an overlay file system that somebody wrote to.
        """
        for _ in range(_TRIES):  # a commit may come in between
            txn, databases = self._env.begin()
            behind = self._env.last_transaction() - txn.id()
            if 0 <= behind < 2:
                return txn, databases
            txn.abort()
            del txn
        raise self._replaced(DATA if behind < 0 else LOCK, "Open the store again")

    @raising_own_errors
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
            _put_facts(place, replace(self.identity, uuid=uuid).to_plain(), facts)

    @raising_own_errors
    def disk_bytes(self) -> int:
        """Return the size of the data file in bytes."""
        return (self.path / DATA).lstat().st_size

    @raising_own_errors
    def close(self, *, sync: bool = True) -> None:
        """Close the store; with `sync`, what is committed is on the disk afterwards."""
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
            self._locks.release()

    # Forks

    def settle(self) -> None:
        """Return when no thread but the caller reads: before a fork."""
        self._env.read_ahead.settle()

    def abandon(self) -> None:
        """Leave the environment to the parent, in a forked child, without closing it."""
        self._env.abandon()


def _put_facts(place: Path, identity: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    """Put an identity, and facts that are missing, into a data file, made where it is absent."""
    env = open_env(place, True, _SYNC_FLAGS["full"])
    try:
        databases = open_databases(env, create=True)
        with env.begin(write=True, db=databases["meta"]) as txn:
            txn.put(b"identity", seal("identity", identity))
            for name, fact in facts.items():
                txn.put(name.encode(), seal(name, fact), overwrite=False)
    finally:
        env.close()
