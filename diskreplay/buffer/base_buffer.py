"""BaseBuffer: the methods of both kinds of buffers that write, copy and describe."""

from __future__ import annotations

import abc
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Generic, NoReturn

import numpy as np
from numpy.typing import ArrayLike

from diskreplay.aliases import Ints, PathLike
from diskreplay.buffer.assembly import Options, check_disk_room, conversion_advice
from diskreplay.buffer.batches import BatchT
from diskreplay.buffer.guard import Guard
from diskreplay.buffer.marked_buffer import MarkedBuffer
from diskreplay.buffer.pickling import copy_refused, pickled
from diskreplay.errors import DamageError, MismatchError, SchemaError
from diskreplay.records import PAGE_BYTES
from diskreplay.sampling import Values
from diskreplay.schema import STANDARD_FIELDS, Schema, only_row
from diskreplay.store import (
    TABLES,
    Snapshot,
    Store,
    complete,
    openers,
    raising_own_errors,
    with_live,
)
from diskreplay.validation import checked_path

if TYPE_CHECKING:
    from typing_extensions import Self

_FAULTS_TOLD = 100


class BaseBuffer(MarkedBuffer[BatchT], Generic[BatchT]):
    """An open buffer: the methods that draw and mark, and those that write, copy and describe."""

    def _use(self, guard: Guard, options: Options) -> None:
        self._guard, self._options = guard, options
        self._adopted_schema: Schema | None = None  # of the last push
        # A reader writes nothing; for a store with a schema the room was checked on opening.
        self._disk_was_checked = options.access == "read" or guard.replica.rows.schema is not None

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
        """Add one transition and return its write id; a full buffer evicts its oldest.

        The first transition fixes the schema, unless it was given. Rewards and dones are single
        numbers; a step of a vector environment is several transitions, for `extend`. States,
        actions and extra fields may be nested dictionaries and tuples of arrays. Rewards must be
        finite and `done` true or false; states, actions and extra fields are stored bit for
        bit, NaN and infinity included, since sensors use them for "no reading". With
        access="shared" the commit gives the write id, and -1 is returned. Cost: O(1), and now and
        then a commit.

        Raises SchemaError for values that do not fit the schema, PriorityError for a priority that
        is negative, NaN or infinite (or any, in a ReplayBuffer), ReadOnlyError, and StorageError
        when a commit is needed first and the disk refuses. A refused call changes nothing.

        >>> buffer = ReplayBuffer(capacity=1000)
        >>> buffer.push(state=[0.1, 0.2], action=1, reward=1.0, next_state=[0.3, 0.4], done=False)
        0

        priority:  the raw priority, in a prioritized buffer; None means the largest so far
        extra:     further fields by name, the same in every push
        """
        standard = (state, action, reward, next_state, done)
        guard = self._guard
        guard.refuse_nesting()
        with guard.lock:
            writer = guard.writer()
            schema = writer.rows.schema or writer.schema_for(_by_name(standard, extra), lead=0)
            row = schema.accept_row(standard, extra)
            checked = None if priority is None else self._checked_priorities([priority], 1)
            packed_bytes = schema.packed_bytes(row) if schema.varying else 0
            if guard.commit_failed or not writer.has_room(1, packed_bytes):  # as make_room
                guard.commit()
            if schema is not self._adopted_schema:
                adopted = self._adopt(schema)
                if adopted is not schema:  # another process was first
                    row = adopted.accept_row(standard, extra)
            if packed_bytes and not writer.fits(1, packed_bytes):
                guard.commit()
                [only] = writer.commit_columns(schema.columns_of(row), checked).tolist()
                return int(only)
            guard.begin_change()
            write_id = writer.push(row, checked)
            guard.end_change()
        return write_id

    def extend(
        self,
        states: Any,
        actions: Any,
        rewards: ArrayLike,
        next_states: Any,
        dones: ArrayLike,
        priorities: ArrayLike | None = None,
        **extra: Any,
    ) -> Ints:
        """Add n transitions, all or none, and return their write ids, int64 (n,), or -1 as `push`.

        The first dimension of each argument is n, of a nested one that of each array in it;
        otherwise as `push`. Cost: O(n), vectorised.
        Transitions that need more memory than the window are committed at once, in one
        transaction, so that after a kill all of them are there or none.

        >>> buffer = ReplayBuffer(capacity=1000)
        >>> buffer.extend([[0.0], [1.0]], [0, 1], [1.0, 1.0], [[1.0], [2.0]], [False, True])
        array([0, 1])
        """
        if extra and (doubled := extra.keys() & set(STANDARD_FIELDS)):
            name = min(doubled)
            raise SchemaError(
                f"extend takes {name!r} as {name}s, with n values (found {name}=): leave it out"
            )
        standard: tuple[Any, ...] = (states, actions, rewards, next_states, dones)
        known = self._adopted_schema
        if known is not None and known.is_flat and not extra:
            row = only_row(standard if priorities is None else (*standard, priorities))
            if row:  # checking single values costs less than checking columns
                try:  # BaseBuffer.push, since the push of a subclass may call extend
                    return np.array([BaseBuffer.push(self, *row)])
                except SchemaError:
                    pass  # the check below raises again, with a message about columns
        guard = self._guard
        guard.refuse_nesting()
        with guard.lock:
            writer = guard.writer()
            schema = writer.rows.schema or writer.schema_for(_by_name(standard, extra), lead=1)
            columns = schema.accept_columns(standard, extra)
            n = len(columns[0])
            checked = None if priorities is None else self._checked_priorities(priorities, n)
            if n == 0:
                return np.zeros(0, np.int64)
            if not self._disk_was_checked:
                self._check_disk_room(schema)
            packed_bytes = int(schema.packed_sizes(columns).sum()) if schema.varying else 0
            guard.make_room(n, packed_bytes)
            if schema is not self._adopted_schema:
                adopted = self._adopt(schema)
                if adopted is not schema:  # another process was first
                    columns = adopted.accept_columns(standard, extra)
            if not writer.fits(n, packed_bytes):
                guard.commit()
                return writer.commit_columns(columns, checked)
            guard.begin_change()
            write_ids = writer.extend(columns, checked)
            guard.end_change()
            return write_ids

    def clear(self) -> None:
        """Remove all transitions. The schema stays, and so does the annealing; write ids count on.

        The largest priority starts anew. Later transitions use the disk space again.

        >>> buffer = ReplayBuffer(capacity=10)
        >>> buffer.push([0.0], 0, 1.0, [1.0], False)
        0
        >>> buffer.clear()
        >>> len(buffer), buffer.push([0.0], 0, 1.0, [1.0], False)
        (0, 1)
        """
        guard = self._guard
        guard.refuse_nesting()
        with guard.lock:
            writer = guard.writer()
            guard.make_room(0)
            writer.store.check_place()
            guard.begin_change()
            writer.clear()
            guard.end_change()

    def flush(self) -> None:
        """Commit everything now. Raises StorageError when the disk refuses; the rows are kept.

        >>> buffer = ReplayBuffer(capacity=10)
        >>> buffer.push([0.0], 0, 1.0, [1.0], False)
        0
        >>> buffer.flush()
        >>> buffer.stats()["commits"]
        1
        """
        self._guard.refuse_nesting()
        with self._guard.lock:
            self._guard.check_open()
            self._guard.commit()

    def refresh(self) -> None:
        """Load the commits of other processes now; every other call does so, too."""
        with self._guard.reading():
            pass

    @raising_own_errors
    def close(self) -> None:
        """Commit and close the store; a temporary buffer is removed. A second call does nothing."""
        self._guard.close()

    # Looking at it

    @raising_own_errors
    def stats(self) -> dict[str, Any]:
        """Return a description of the buffer, as a plain dict. Cost: O(size).

        kind, path, size, capacity, keep_rows, count, schema; disk_bytes (the data file now),
        payload_bytes (of all live transitions, without framing and values that vary in size),
        records_bytes, priorities_bytes, observations_bytes and marks_bytes (pages that hold them;
        of marks with the blocks kept for them), free_bytes (unused pages, for later commits),
        memory_bytes (window and side tables when full, and the memory that batches() with readers=
        or reuse=True keeps); durability and commit_interval; openers (a list of the openers of the
        store: pid, host, since, access, stopped); oldest_reader (the opener that keeps the pages of
        old commits: pid, host, commits_behind, stopped; or None); commits, stale_updates (over all
        runs); damaged (records left out by this buffer with on_damage="skip"); marks (how many);
        runs (when, where and how many rows each wrote, and how many of them are live, at least and
        at most); and, of a prioritized buffer, priority_min, priority_mean, priority_max (None
        where nothing is live), max_priority, alpha, beta_start, beta_end, beta_frames, epsilon,
        beta and frame.
        """
        with self._guard.reading() as view, self._snapshot_for(view) as snapshot:
            replica, live = self._guard.replica, self._live
            runs = [complete(run) for run in snapshot.runs()]
            oldest = replica.store.pinned_pages.oldest_reader()
            schema = replica.rows.schema
            return {
                "kind": replica.identity.kind,
                "path": str(self.path),
                "size": live.size,
                "capacity": self.capacity,
                "keep_rows": replica.identity.keep_rows,
                "count": live.count,
                "schema": schema.to_plain() if schema else None,
                **self._disk_stats(snapshot),
                "memory_bytes": replica.nbytes,
                **self._options.run_settings.to_plain(),
                "openers": [opener.to_plain() for opener in openers(self.path)],
                "oldest_reader": oldest.to_plain() if oldest else None,
                "commits": replica.commits,
                "stale_updates": replica.stale_updates,
                "damaged": len(replica.damaged),
                "marks": snapshot.entries("marks"),
                "runs": with_live(runs, live.first, live.count),
                **self._priority_stats(),
            }

    def check(self) -> None:
        """Raise DamageError with the faults found in memory and on disk. Cost: reads all records.

        The message names the first hundred. `verify(path)` checks more, and needs no buffer.

        >>> ReplayBuffer(capacity=10).check()
        """
        with self._guard.reading() as view:
            with self._snapshot_for(view) as snapshot:
                faults = self._guard.replica.faults(snapshot)
            if faults:
                more = f"; and {len(faults) - _FAULTS_TOLD} more" * (len(faults) > _FAULTS_TOLD)
                raise DamageError("; ".join(faults[:_FAULTS_TOLD]) + more)

    # Copies

    def save(self, path: PathLike) -> None:
        """Write the whole buffer to a new store at `path`, compacted.

        The new store opens like any other, and goes on like this one. Raises StorageError or
        NotAStoreError, and leaves nothing behind, when `path` is in use or the disk refuses.

        >>> buffer = ReplayBuffer(capacity=10)
        >>> buffer.push([0.0], 0, 1.0, [1.0], False)
        0
        >>> buffer.save("runs/copy")
        >>> len(open("runs/copy"))
        1
        """
        self._guard.refuse_nesting()
        with self._guard.lock:
            self._guard.check_open()
            self._guard.commit(anywhere=True)
            replica = self._guard.replica
            replica.store.copy(checked_path(path), replica.rows.schema_facts())

    def load(self, path: PathLike) -> None:
        """Replace the contents of the buffer by those of a store of the same schema and kind.

        Transitions, priorities, annealing, largest priority and random stream become those of the
        saved store, in one commit; of a larger store the newest transitions are taken. Write ids
        are the saved ones, moved up by a multiple of the capacity and keep_rows if this buffer has
        used them before. Its own marks stay, and no others come. Raises MismatchError and changes
        nothing when the fields or the kind differ; the saved store may keep its observations
        elsewhere, in records or in a log.

        >>> with ReplayBuffer(capacity=10, path="runs/saved") as saved:
        ...     write_id = saved.push([0.0], 0, 1.0, [1.0], False)
        >>> buffer = ReplayBuffer(capacity=20)
        >>> buffer.load("runs/saved")
        >>> len(buffer)
        1
        """
        guard = self._guard
        guard.refuse_nesting()
        with guard.lock:
            writer = guard.writer()
            store = Store(checked_path(path))
            try:
                found, kind = store.identity.kind, writer.identity.kind
                if found != kind:
                    raise MismatchError(
                        f"{store.path} holds a {found} buffer (expected {kind}): load it into a "
                        f"buffer of its own kind, or {conversion_advice(store.path, kind)}"
                    )
                guard.commit()
                writer.store.check_place()
                writer.load(store)
            finally:
                store.close()

    def __enter__(self) -> Self:
        self._guard.check_open()
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __del__(self) -> None:
        guard = getattr(self, "_guard", None)
        if guard is not None and not guard.closed:
            guard.close_at_last()

    def __reduce__(self) -> tuple[Any, ...]:
        """Return the arguments that open the same store for reading, in another process."""
        return pickled(type(self), self._options, self._guard)

    def __copy__(self) -> NoReturn:
        """Raise LockedError: two buffers would write to one store."""
        self._guard.check_open()
        raise copy_refused(self.path)

    def __deepcopy__(self, memo: dict[int, Any]) -> NoReturn:
        """Raise LockedError, as `copy.copy` does."""
        self.__copy__()

    def __repr__(self) -> str:
        size = "closed" if self._guard.closed else f"size={self._live.size}"
        return f"{type(self).__name__}(capacity={self.capacity}, {size}, path={str(self.path)!r})"

    # Inside

    @abc.abstractmethod
    def _checked_priorities(self, priorities: ArrayLike, n: int) -> Values:
        """Return the priorities of n new transitions, or raise PriorityError."""

    def _adopt(self, schema: Schema) -> Schema:
        """Use a schema from now on, or that of another process that was faster; return it."""
        if not self._disk_was_checked:
            self._check_disk_room(schema)
        self._adopted_schema = self._guard.writer().adopt(schema)
        return self._adopted_schema

    def _check_disk_room(self, schema: Schema) -> None:
        self._disk_was_checked = True
        check_disk_room(self._guard.replica, schema)

    def _priority_stats(self) -> dict[str, Any]:
        return {}

    def _disk_stats(self, snapshot: Snapshot) -> dict[str, int]:
        """Return the bytes of the data file by their use."""
        used = {table.name: snapshot.disk_bytes(table.name) for table in TABLES}
        replica = self._guard.replica
        disk_bytes, schema = replica.store.disk_bytes(), replica.rows.schema
        return {
            "disk_bytes": disk_bytes,
            "payload_bytes": self._live.size * schema.payload_bytes if schema else 0,
            "records_bytes": used["transitions"],
            "priorities_bytes": used["priorities"],
            "observations_bytes": used["observations"],
            "marks_bytes": used["marks"] + used["kept_blocks"],
            "free_bytes": max(0, disk_bytes - sum(used.values()) - 3 * PAGE_BYTES),
        }


def _by_name(standard: Iterable[Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of all fields of a first push or extend by name."""
    return {**dict(zip(STANDARD_FIELDS, standard, strict=True)), **extra}
