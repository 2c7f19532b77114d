"""BaseBuffer: the methods of both kinds of buffers that copy and describe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, NoReturn

from diskreplay.aliases import PathLike, Progress
from diskreplay.buffer.assembly import conversion_advice
from diskreplay.buffer.batches import BatchT
from diskreplay.buffer.pickling import copy_refused, pickled
from diskreplay.buffer.writing_buffer import WritingBuffer
from diskreplay.errors import DamageError, MismatchError
from diskreplay.records import PAGE_BYTES
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


class BaseBuffer(WritingBuffer[BatchT], Generic[BatchT]):
    """An open buffer: the methods that draw, mark and write, and those that copy and describe."""

    # Looking at it

    @raising_own_errors
    def stats(self) -> dict[str, Any]:
        """Return a description of the buffer, as a plain dict. Cost: O(size).

        kind, path, size, capacity, keep_rows, count, schema; disk_bytes (the data file now),
        payload_bytes (of all live transitions, without framing and values that vary in size),
        records_bytes, priorities_bytes, links_bytes, observations_bytes, marks_bytes and
        notes_bytes (pages that hold them; of marks with the blocks kept for them), free_bytes
        (unused pages, for later commits), memory_bytes (window and side tables when full, and the
        memory that batches() with readers= or reuse=True keeps); durability and commit_interval;
        openers (a list of the openers of the store: pid, host, since, access, stopped);
        oldest_reader (the opener that keeps the pages of old commits: pid, host, commits_behind,
        stopped; or None); draws (the number of the next draw of the store, which its exclusive
        writers count); commits, stale_updates, cuts (episodes whose end nobody declared), all over
        all runs; damaged (records left out by this buffer with on_damage="skip"); marks (those of
        `marks`, as dicts); notes (those of `notes`); runs (when, where and how many rows each
        wrote, and how many of them are live, at least and at most); and, of a prioritized buffer,
        priority_min, priority_mean, priority_max (None where nothing is live), max_priority, alpha,
        beta_start, beta_end, beta_frames, epsilon, beta and frame.
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
                "draws": replica.draw_number,
                "stale_updates": replica.stale_updates,
                "cuts": replica.cuts,
                "damaged": len(replica.damaged),
                "marks": [mark.to_plain() for mark in self._marks_of(snapshot)],
                "notes": replica.notes(snapshot),
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

    def load(self, path: PathLike, *, progress: Progress | None = None) -> None:
        """Replace the contents of the buffer by those of a store of the same schema and kind.

        Transitions, priorities, annealing, largest priority and random stream become those of the
        saved store, in one commit; of a larger store the newest transitions are taken. Write ids
        are the saved ones, moved up by a multiple of the capacity and keep_rows if this buffer has
        used them before. The notes become the saved ones. Its own marks stay, and no others come.
        Raises MismatchError and changes nothing when the fields or the kind differ; the saved store
        may keep its observations elsewhere, in records or in a log.

        >>> with ReplayBuffer(capacity=10, path="runs/saved") as saved:
        ...     write_id = saved.push([0.0], 0, 1.0, [1.0], False)
        >>> buffer = ReplayBuffer(capacity=20)
        >>> buffer.load("runs/saved")
        >>> len(buffer)
        1

        progress:  called now and then with the numbers of transitions written and of all
                   transitions; it must not call the buffer, and an exception of it undoes all
        """
        guard = self._guard
        guard.refuse_nesting()

        def show(done: int, total: int) -> None:
            if progress is not None:
                with guard.showing_progress():
                    progress(done, total)

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
                writer.load(store, show)
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
            "links_bytes": used["links"],
            "observations_bytes": used["observations"],
            "marks_bytes": used["marks"] + used["kept_blocks"],
            "notes_bytes": used["notes"],
            "free_bytes": max(0, disk_bytes - sum(used.values()) - 3 * PAGE_BYTES),
        }
