"""BaseBuffer: what both buffers do with transitions: push, extend, save, load, stats."""

from __future__ import annotations

import contextlib
from typing import Any, Generic

import numpy as np
from numpy.typing import ArrayLike, NDArray

from diskreplay.buffer.batches import BatchT
from diskreplay.buffer.pickling import Pickled
from diskreplay.buffer.reader import Reader
from diskreplay.buffer.replica import SamplerT
from diskreplay.buffer.session import PathLike, conversion
from diskreplay.buffer.shared_writer import Shared
from diskreplay.buffer.writer import Exclusive
from diskreplay.errors import (
    DamageError,
    MismatchError,
    ReadOnlyError,
    SchemaError,
)
from diskreplay.records import PAGE_BYTES
from diskreplay.schema import STANDARD_FIELDS, only_row
from diskreplay.store import (
    RUN_SETTINGS,
    TABLES,
    Snapshot,
    Store,
    complete,
    openers,
    ours,
    with_live,
)
from diskreplay.validation import checked_path

Ints = NDArray[np.int64]

_FAULTS_TOLD = 100


class BaseBuffer(Pickled, Reader[SamplerT, BatchT], Generic[SamplerT, BatchT]):
    """A reader with the methods that write, copy and look at the whole."""

    # Writing

    def push(
        self,
        state: Any,
        action: Any,
        reward: Any,
        next_state: Any,
        done: Any,
        priority: float | None = None,
        **extra: Any,
    ) -> int:
        """Add one transition and return its write id; the oldest goes when the buffer is full.

        The first transition fixes the schema, unless it was given. Rewards and dones are single
        numbers; a step of a vector environment is several transitions, for `extend`. Rewards must
        be finite and `done` true or false; states, actions and extra fields are stored bit for
        bit, NaN and infinity included, since sensors use them for "no reading". With
        access="shared" the commit gives the write id, and -1 is returned. Cost: O(1), and now and
        then a commit.

        Raises SchemaError for values that do not fit the schema, PriorityError for a priority that
        is negative, NaN or infinite (or any, in a ReplayBuffer), ReadOnlyError, and StorageError
        when room has to be made and the disk refuses. A refused call changes nothing.

        >>> buffer = ReplayBuffer(capacity=1000)
        >>> buffer.push(state=[0.1, 0.2], action=1, reward=1.0, next_state=[0.3, 0.4], done=False)
        0

        priority:  the raw priority, where the buffer is prioritized; None is the largest so far
        extra:     further fields by name, the same in every push
        """
        standard = (state, action, reward, next_state, done)
        if self._lock._is_owned():  # type: ignore[attr-defined]
            self._refuse_nesting()
        with self._lock:
            contents = self._writable()
            schema = contents.ring.schema
            if schema is None:
                named = dict(zip(STANDARD_FIELDS, standard, strict=True))
                schema = contents.schema_for(named | extra, lead=0)
            row = schema.accept_values(standard, extra)
            given = None if priority is None else contents.sampler.accept([priority], 1)
            if self._commit_failed or not contents.has_room(1):
                self._commit()
            if schema is not self._adopted and (adopted := self._adopt(schema)) is not schema:
                row = adopted.accept_values(standard, extra)  # another process was first
            self._touch()
            write_id = contents.push(row, given)
            self._settle()
        return write_id

    def extend(
        self,
        states: ArrayLike,
        actions: ArrayLike,
        rewards: ArrayLike,
        next_states: ArrayLike,
        dones: ArrayLike,
        priorities: ArrayLike | None = None,
        **extra: ArrayLike,
    ) -> Ints:
        """Add n transitions, all or none, and return their write ids, int64 (n,), or -1 as `push`.

        Each argument has n as its first dimension; otherwise as `push`. Cost: O(n), vectorised.
        What is larger than the window is committed at once, in one transaction, so that after a
        kill there is all of it or nothing.

        >>> buffer = ReplayBuffer(capacity=1000)
        >>> buffer.extend([[0.0], [1.0]], [0, 1], [1.0, 1.0], [[1.0], [2.0]], [False, True])
        array([0, 1])
        """
        if extra and (doubled := extra.keys() & set(STANDARD_FIELDS)):
            name = min(doubled)
            raise SchemaError(f"extend takes {name!r} as {name}s, n of them")
        standard: tuple[ArrayLike, ...] = (states, actions, rewards, next_states, dones)
        if self._adopted is not None and not extra:
            row = only_row(standard if priorities is None else (*standard, priorities))
            if row:  # it costs less to look at values than at columns
                try:  # not what a subclass makes of push, which may call this
                    return np.array([BaseBuffer.push(self, *row)])
                except SchemaError:
                    pass  # the error below is about columns
        if self._lock._is_owned():  # type: ignore[attr-defined]
            self._refuse_nesting()
        with self._lock:
            contents = self._writable()
            schema = contents.ring.schema
            if schema is None:
                named = dict(zip(STANDARD_FIELDS, standard, strict=True))
                schema = contents.schema_for(named | extra, lead=1)
            columns = schema.accept_arrays(standard, extra)
            n = len(columns[0])
            given = None if priorities is None else contents.sampler.accept(priorities, n)
            if n == 0:
                return np.zeros(0, np.int64)
            if not self._is_disk_looked_at:
                self._look_at_disk(schema)
            if self._commit_failed or not contents.has_room(n):
                self._commit()
            if schema is not self._adopted and (adopted := self._adopt(schema)) is not schema:
                columns = adopted.accept_arrays(standard, extra)  # another process was first
            if not contents.fits(n):
                self._commit()
                self._store.check_place()
                return contents.commit_columns(columns, given)
            self._touch()
            write_ids = contents.extend(columns, given)
            self._settle()
            return write_ids

    def clear(self) -> None:
        """Remove all transitions. The schema stays, and so does the annealing; write ids count on.

        The largest priority starts anew. Disk space is used again by what is pushed next.
        """
        self._refuse_nesting()
        with self._lock:
            contents = self._writable()
            self._make_room(0)
            self._store.check_place()
            self._touch()
            contents.clear()
            if isinstance(contents, Shared):
                self._is_committed()
            else:
                self._settle()

    def flush(self) -> None:
        """Commit everything now. Raises StorageError when the disk refuses; the rows are kept."""
        self._refuse_nesting()
        with self._lock:
            self._check_open()
            self._commit()

    def refresh(self) -> None:
        """Take over now what other processes have committed; every other call does so, too."""
        with self._view():
            pass

    # Looking at it

    @ours
    def stats(self) -> dict[str, Any]:
        """Return what there is to know about the buffer, as a plain dict. Cost: O(size).

        kind, path, size, capacity, count, schema; disk_bytes (the data file now), payload_bytes
        (of all live transitions, without framing), records_bytes and priorities_bytes (pages that
        hold them), free_bytes (pages that nothing is on, for later commits), memory_bytes (window
        and side tables when full); durability and commit_interval; openers (a list of who has it
        open: pid, host, since, access, stopped); oldest_reader (who keeps the pages of old commits:
        pid, host, commits_behind, stopped; or None); commits, stale_updates (over all runs);
        damaged (left out by this buffer with on_damage="skip"); runs (when, where and how many rows
        each wrote, and how many of them are live, at least and at most); and, where the buffer is
        prioritized, priority_min, priority_mean, priority_max (None where nothing is live),
        max_priority, alpha, beta_start, beta_end, beta_frames, epsilon, beta and frame.
        """
        with self._view() as view, self._seen(view) as snapshot:
            ring = self._ring
            runs = [complete(run) for run in snapshot.runs()]
            oldest = self._store.pinned_pages.oldest_reader()
            return {
                "kind": self._store.identity["kind"],
                "path": str(self._path),
                "size": ring.size,
                "capacity": self._capacity,
                "count": ring.count,
                "schema": ring.schema.to_plain() if ring.schema else None,
                **self._disk(snapshot),
                "memory_bytes": self._contents.nbytes,
                **{name: self._settings[name] for name in RUN_SETTINGS},
                "openers": [opener.to_plain() for opener in openers(self._path)],
                "oldest_reader": oldest.to_plain() if oldest else None,
                "commits": ring.commits,
                "stale_updates": self._contents.stale_updates,
                "damaged": len(self._contents.damaged),
                "runs": with_live(runs, ring.first, ring.count),
                **self._more_stats(),
            }

    def check(self) -> None:
        """Raise DamageError with the faults found in memory and on disk. Cost: reads it all.

        The first hundred are told one by one. `verify(path)` looks at more, and needs no buffer.
        """
        with self._view() as view:
            ring = self._ring
            with self._seen(view) as snapshot:
                faults = ring.faults(snapshot)
                for what in (
                    lambda: self._sampler.check(ring.first, ring.count),
                    lambda: snapshot.blocks(self._sampler.live_blocks(ring.first, ring.committed)),
                    snapshot.runs,
                ):
                    try:
                        what()
                    except DamageError as error:
                        faults.append(str(error))
            if faults:
                more = f"; and {len(faults) - _FAULTS_TOLD} more" * (len(faults) > _FAULTS_TOLD)
                raise DamageError("; ".join(faults[:_FAULTS_TOLD]) + more)

    # Copies

    def save(self, path: PathLike) -> None:
        """Write all that is in the buffer to a new store at `path`, compacted.

        What is saved opens like any store, and goes on like this one. Raises StorageError or
        NotAStoreError, and leaves nothing behind, when `path` is in use or the disk refuses.
        """
        self._refuse_nesting()
        with self._lock:
            self._check_open()
            self._commit(anywhere=True)
            self._store.copy(checked_path(path), self._ring.schema_facts())

    def load(self, path: PathLike) -> None:
        """Replace the contents by those of a saved store of the same schema and kind.

        Transitions, priorities, annealing, largest priority and random stream become those of the
        saved store, in one commit; of a larger store the newest transitions are taken. Write ids
        are the saved ones, moved up by a multiple of the capacity where they were given out here
        before. Raises MismatchError and changes nothing when schema or kind differ.
        """
        self._refuse_nesting()
        with self._lock:
            contents = self._writable()
            if not isinstance(contents, Exclusive):
                raise ReadOnlyError(
                    f"{self._path} is open with access='shared': load() replaces what other "
                    "processes work with, so it needs access='exclusive'"
                )
            store = Store(checked_path(path))
            try:
                found, kind = store.identity.get("kind"), self._store.identity["kind"]
                if found != kind:
                    raise MismatchError(
                        f"{store.path} holds a {found} buffer (expected {kind}): load it into a "
                        f"buffer of its own kind, or {conversion(store.path, kind)}"
                    )
                self._commit()
                self._store.check_place()
                contents.load(store)
            finally:
                store.close()

    def __repr__(self) -> str:
        size = "closed" if self._closed else f"size={self._ring.size}"
        return f"{type(self).__name__}(capacity={self._capacity}, {size}, path={str(self._path)!r})"

    # Inside

    def _seen(self, view: Snapshot | None) -> contextlib.AbstractContextManager[Snapshot]:
        """Give the snapshot that was taken over, or, for who writes alone, that of its commit."""
        return contextlib.nullcontext(view) if view else self._store.snapshot()

    def _more_stats(self) -> dict[str, Any]:
        return {}

    def _disk(self, snapshot: Snapshot) -> dict[str, int]:
        """Return what the data file is used for, in bytes."""
        used = {table.name: snapshot.disk_bytes(table.name) for table in TABLES}
        disk_bytes = self._store.disk_bytes()
        schema = self._ring.schema
        return {
            "disk_bytes": disk_bytes,
            "payload_bytes": self._ring.size * schema.payload_bytes if schema else 0,
            "records_bytes": used["transitions"],
            "priorities_bytes": used["priorities"],
            "free_bytes": max(0, disk_bytes - sum(used.values()) - 3 * PAGE_BYTES),
        }
