"""Session: the life of an open buffer, from its opening over its commits to its end.

It has a lock around the contents, and decides when to commit. What users call is in base.py and
buffer.py.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import multiprocessing
import multiprocessing.util
import os
import tempfile
import threading
import time
import traceback
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic

import numpy as np

from diskreplay.buffer.autocommit import Committer
from diskreplay.buffer.forkable import Forkable
from diskreplay.buffer.replica import Contents, SamplerT
from diskreplay.buffer.ring import Ring, new_state
from diskreplay.buffer.shared_writer import Shared
from diskreplay.buffer.sizing import estimate_of, warn_of_disk
from diskreplay.buffer.writer import Exclusive
from diskreplay.errors import (
    ArgumentError,
    ClosedError,
    DamageError,
    MismatchError,
    ReadOnlyError,
    StorageError,
    printable,
)
from diskreplay.forks import forget, process, watch
from diskreplay.records import schema_facts
from diskreplay.sampling import generator_to_plain, new_generator
from diskreplay.schema import STANDARD_FIELDS, Field, Schema, SchemaLike, fields_of
from diskreplay.store import (
    DURABILITIES,
    PinnedPagesWarning,
    Snapshot,
    Store,
    ours,
    remove_tree,
    replacing,
)
from diskreplay.validation import (
    ACCESS,
    checked_capacity,
    checked_path,
    real_number,
    whole_number,
)
from diskreplay.wording import count_of

if TYPE_CHECKING:
    from typing_extensions import Self

PathLike = str | os.PathLike[str]

_PATIENCE = 0.05  # seconds
_log = logging.getLogger("diskreplay")
_log.addHandler(logging.NullHandler())  # what is done with it is the program's to say
_child: object = None  # the process that has been told to close at its end
_open_sessions: weakref.WeakSet[Session[Any]] = weakref.WeakSet()


class Session(Forkable, Generic[SamplerT]):
    """An opening of a store, with a lock around all that it holds in memory."""

    _contents: Contents[SamplerT] | Exclusive[SamplerT] | Shared[SamplerT]

    @ours
    def __init__(
        self,
        kind: str,
        sampler: SamplerT,
        capacity: int,
        seed: int | None,
        *,
        path: PathLike | None,
        schema: SchemaLike | None,
        access: str,
        durability: str,
        commit_interval: float,
        window_bytes: int,
        on_damage: str,
        if_exists: str,
        settings: Mapping[str, Any],
    ) -> None:
        self._closed = True  # until all of it stands
        self._is_inherited = False  # by a forked child that has not opened it again yet
        self._is_abandoned = False  # and it cannot: the fork came in the middle of a call
        self._is_child = False  # of a process that writes
        self._is_disk_looked_at = access == "read"
        self._adopted: Schema | None = None  # the last schema that was, on the way of a push
        self._lock = threading.RLock()
        self._capacity = checked_capacity(capacity)
        self._interval = real_number("commit_interval", commit_interval, low=0, high=float("inf"))
        window_bytes = whole_number("window_bytes", window_bytes, at_least=0)
        self._window_bytes = window_bytes
        if seed is not None:
            seed = whole_number("seed", seed, at_least=0)
        self._check_words(path, access, durability, on_damage, if_exists)
        self._if_exists = if_exists
        self._access = access
        self._skips_damaged = on_damage == "skip"
        expected = {} if schema is None else fields_of(schema)
        self._settings = {
            **settings, "durability": durability, "commit_interval": self._interval
        }  # fmt: skip
        self._changed_at: float | None = None
        self._commit_failed = False
        self._committer = Committer(self._interval, self._commit_when_due)
        self._temporary = path is None
        given = None if path is None else checked_path(path)
        self._path = given or Path(tempfile.mkdtemp(prefix="diskreplay-"))
        watch(self)
        with self._lock:  # a fork waits until the buffer stands
            try:
                self._open(kind, sampler, new_generator(seed), durability, expected, schema)
            except BaseException:
                forget(self)
                if self._temporary:
                    remove_tree(self._path)
                raise
            self._closed = False
        _open_sessions.add(self)
        _close_at_the_end_of_children()

    def _open(
        self,
        kind: str,
        sampler: SamplerT,
        generator: np.random.Generator,
        durability: str,
        expected: Mapping[str, Field],
        schema: SchemaLike | None,
    ) -> None:
        is_new = False
        if self._access != "read":
            whole = all(name in expected for name in STANDARD_FIELDS)
            meta = schema_facts(Schema(expected.values())) if whole else {}
            facts = {
                "generator": generator_to_plain(generator),
                "sampler": sampler.state(),
                "settings": self._settings,
                "stale_updates": 0,
            }
            meta["state"] = new_state(facts)
            is_new = self._create({"kind": kind, "capacity": self._capacity}, meta)
        if self._temporary:
            durability = "process"  # it does not outlive the process anyway
        self._store = Store(self._path, access=self._access, durability=durability)
        try:
            self._expect("kind", kind)
            self._expect("capacity", self._capacity)
            whole = isinstance(schema, Schema)
            ring = Ring(self._store, self._window_bytes, expected, whole=whole)
            has = {"exclusive": Exclusive, "shared": Shared, "read": Contents}[self._access]
            self._contents = has(self._store, ring, sampler, generator, self._settings)
            if ring.schema is not None and not self._is_disk_looked_at:
                self._look_at_disk(ring.schema)
            if not is_new and self._contents.writes:
                held, number = count_of(ring.size, "transition"), ring.state["runs"]
                _log.info("%s holds %s, this is run %d", printable(self._path), held, number)
        except BaseException:
            self._store.close(sync=False)
            raise

    def _create(self, identity: Mapping[str, Any], meta: Mapping[str, Any]) -> bool:
        """Make the store, and return whether it is a new one."""
        if Store.create(self._path, identity, meta):
            return True
        if self._if_exists == "fail":
            raise MismatchError(
                f"{self._path} holds a store already (expected none, with if_exists='fail'): go on "
                "with it by if_exists='resume', or choose a new path"
            )
        if self._if_exists == "replace":
            with replacing(self._path) as place:
                Store.create(place, identity, meta)
        return self._if_exists == "replace"

    @ours
    def close(self) -> None:
        """Commit and give the store back; a temporary buffer is removed. Twice is once."""
        self._refuse_nesting()
        with self._lock:
            if self._closed:
                return
            if self._is_inherited:
                self._closed = True  # the store is the parent's
                return
            if not self._temporary:
                self._commit()
            self._let_go(sync=not self._temporary)

    def _let_go(self, *, sync: bool) -> None:
        self._closed = True
        _open_sessions.discard(self)
        try:
            self._contents.ahead.stop()
            self._committer.stop()
        finally:
            try:
                self._store.close(sync=sync)
            finally:
                forget(self)
                if self._temporary:
                    remove_tree(self._path)

    def _close_at_last(self) -> None:
        """Close when nobody is left to try again: the store is given back in any case."""
        try:
            self.close()
        finally:
            if not self._closed:
                self._let_go(sync=False)

    def __enter__(self) -> Self:
        self._check_open()
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __del__(self) -> None:
        if not getattr(self, "_closed", True):
            self._close_at_last()

    # Inside

    @property
    def _ring(self) -> Ring:
        return self._contents.ring

    @property
    def _sampler(self) -> SamplerT:
        return self._contents.sampler

    @contextlib.contextmanager
    def _view(self) -> Iterator[Snapshot | None]:
        """Hold the lock, and follow what other processes have committed."""
        self._refuse_nesting()
        with self._lock:
            self._check_open()
            if self._contents.ahead.dropped:
                self._take_back_dropped()
            with self._contents.view() as snapshot:
                yield snapshot

    def _refuse_nesting(self) -> None:
        # A signal handler runs on the thread that it interrupted, which the lock would let in.
        if self._lock._is_owned():  # type: ignore[attr-defined]
            raise StorageError(
                f"{self._path} is in use by the call that this one interrupted: "
                "set a flag in the signal handler, and act on it after that call"
            )

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError(f"the buffer at {self._path} is closed: open it again")
        if self._is_inherited:
            self._open_in_child()

    def _writable(self) -> Exclusive[SamplerT] | Shared[SamplerT]:
        if self._closed or self._is_inherited:
            self._check_open()
        if self._contents.writes:
            return self._contents  # type: ignore[return-value]
        if self._is_child:
            raise ReadOnlyError(
                f"{self._path} is written by the process from which this one was forked: a child "
                "can only read it; to write from several processes, each opens it with "
                "access='shared'"
            )
        raise ReadOnlyError(
            f"{self._path} is open with access='read': open it with access='exclusive' or "
            "'shared' to write"
        )

    def _check_words(
        self, path: PathLike | None, access: str, durability: str, on_damage: str, if_exists: str
    ) -> None:
        for name, word, words in (
            ("access", access, ACCESS),
            ("durability", durability, DURABILITIES),
            ("on_damage", on_damage, ("raise", "skip")),
            ("if_exists", if_exists, ("resume", "fail", "replace")),
        ):
            if word not in words:
                raise ArgumentError(f"{name} must be one of {', '.join(words)} (found {word!r})")
        if path is None and access != "exclusive":
            raise ArgumentError(f"access={access!r} needs the path of a store")
        if access == "read" and if_exists != "resume":
            raise ArgumentError(
                f"if_exists={if_exists!r} is for who writes (found access='read'): leave it out"
            )

    def _adopt(self, schema: Schema) -> Schema:
        """Have this schema from now on, or that of another process that was faster."""
        if not self._is_disk_looked_at:
            self._look_at_disk(schema)
        self._adopted = self._writable().adopt(schema)
        return self._adopted

    def _look_at_disk(self, schema: Schema) -> None:
        """Warn, once, when the disk has less room than the buffer takes when full."""
        self._is_disk_looked_at = True
        prioritized = self._store.identity["kind"] == "prioritized"
        packing = self._ring.packing_of(schema)
        found = estimate_of(schema, self._capacity, packing, prioritized=prioritized)
        self._store.reserve(found.disk_bytes * 5 // 4)
        warn_of_disk(found, self._path, self._store.disk_bytes())

    def _expect(self, name: str, expected: Any) -> None:
        found = self._store.identity.get(name)
        if type(found) is not type(expected):
            raise DamageError(f"the identity of {self._path} has no usable {name} ({found!r})")
        if found != expected:
            way_out = "change it with diskreplay.resize(), or load() it into a new buffer"
            if name == "kind":
                way_out = f"or {conversion(self._path, expected)}"
            raise MismatchError(
                f"{name} is {found} in {self._path} (expected {expected}): open it with "
                f"diskreplay.open({str(self._path)!r}), {way_out}"
            )

    def _open_in_child(self) -> None:
        """Open the store again, to read it, in place of what was inherited from the parent."""
        self._refuse_abandoned()
        self._is_child = self._is_child or self._contents.writes
        self._temporary = False
        self._committer = Committer(self._interval, self._commit_when_due)
        self._store = Store(self._path)
        try:
            ring = Ring(self._store, self._window_bytes, {})
            sampler = self._sampler.sibling(self._capacity)
            generator = new_generator(None)
            self._contents = Contents(self._store, ring, sampler, generator, self._settings)
            self._changed_at = None
            self._is_inherited = False
        except BaseException:
            self._store.close(sync=False)
            raise

    def _make_room(self, n: int) -> None:
        if self._commit_failed or not self._writable().has_room(n):
            self._commit()

    def _touch(self) -> None:
        """Remember, before a change, that there will be something to commit."""
        if self._changed_at is None:
            if self._interval > 0.0:
                self._committer.wake()  # it waits for the lock that is held here
            self._changed_at = time.monotonic()

    def _settle(self) -> None:
        """End a change: with interval 0 it is committed, or undone when that fails."""
        if self._interval == 0.0:
            try:
                self._commit()
            except BaseException:
                self._writable().undo()
                self._is_committed()
                raise

    def _take_back_dropped(self) -> None:
        """Give back the draws of batches whose iterators are gone."""
        contents = self._contents
        while contents.ahead.dropped:
            lane = contents.ahead.dropped[0]
            if lane.ready and contents.keeps_draws:
                self._touch()  # what others drew meanwhile counts only now
            contents.take_back([lane])
            contents.ahead.forget(lane)
            del contents.ahead.dropped[0]

    def _commit(self, *, anywhere: bool = False) -> None:
        if self._contents.ahead.dropped:
            self._take_back_dropped()
        if self._changed_at is None:
            return
        self._store.has_to_be_there = not anywhere
        try:
            self._writable().commit()
        finally:
            self._store.has_to_be_there = True
        self._is_committed()
        self._store.pinned_pages.warn()

    def _is_committed(self) -> None:
        self._changed_at = None
        self._commit_failed = False

    def _commit_when_due(self) -> float | None:
        """Commit if it is time; return the seconds until it will be, None when nothing waits."""
        # Not to wait for ever: `stop` waits for this thread, called by one that holds the lock.
        if not self._lock.acquire(timeout=_PATIENCE):
            return 0.0
        try:
            if self._closed or self._changed_at is None:
                return None
            left = self._changed_at + self._interval - time.monotonic()
            if left > 0:
                return left
            try:
                self._commit()
            except PinnedPagesWarning:  # where warnings are errors, there is nobody to raise it to
                return None
            except Exception:
                self._commit_failed = True  # the next writing call meets the error itself
                return self._interval
            return None
        finally:
            self._lock.release()


def conversion(path: Path, kind: Any) -> str:
    """Return the words that advise to make a store one of another kind."""
    return (
        f"make it {kind} with diskreplay.convert({str(path)!r}, {kind!r}), or with "
        f'"diskreplay convert {path} --to {kind}"'
    )


def is_open_here(path: Path) -> bool:
    """Return whether a buffer of this process has the store at `path` open."""
    return any(
        session._path == path and not session._is_inherited for session in list(_open_sessions)
    )


def _close_at_the_end_of_children() -> None:
    """Have `_close_all` called in a child of multiprocessing; a forked one ends without atexit."""
    global _child
    if _child is not process() and multiprocessing.parent_process() is not None:
        multiprocessing.util.Finalize(None, _close_all, exitpriority=0)
        _child = process()


@atexit.register
def _close_all() -> None:
    """Commit what a program left open at its regular end."""
    for session in list(_open_sessions):
        try:
            session._close_at_last()
        except Exception:
            traceback.print_exc()  # the others are closed all the same
