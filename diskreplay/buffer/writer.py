"""Writer: the replica of the only process that writes to its store."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from diskreplay.aliases import Bools, Columns, Ints, Progress
from diskreplay.buffer.expected_fields import ExpectedFields
from diskreplay.buffer.marks import found_mark, missing_rows, refuse_missing
from diskreplay.buffer.pending_notes import PendingNotes
from diskreplay.buffer.replica import Replica, StateChange, counts_hold, with_counts
from diskreplay.buffer.rows import Rows
from diskreplay.buffer.saved_values import saved_links, saved_notes, saved_priorities
from diskreplay.buffer.window_layout import PACKED_COMMIT_BYTES
from diskreplay.episodes import Linker, Links, LinkValues
from diskreplay.errors import MismatchError, StorageError
from diskreplay.live_range import LiveRange
from diskreplay.records import BLOCK_BYTES, LINKS
from diskreplay.sampling import Priorities, RandomStream, Values
from diskreplay.schema import Schema, fields_of
from diskreplay.store import OwnRun, Run, Snapshot, State, Store, Transaction, marks_of, rewound

_NO_SNAPSHOT = contextlib.nullcontext()


class Writer(Replica):
    """A replica ahead of its store: a pushed transition is live at once, with its write id."""

    draws_are_kept = True

    def __init__(self, *arguments: Any) -> None:
        self._run = OwnRun()
        self._run_rows = 0
        self._described_run: Run | None = None  # this run, as its last commit describes it
        # A step that an interrupt or an error may have left half done; each call begins with it.
        self.unfinished: Callable[[], None] | None = None
        self._linker = Linker()
        self.pending_notes = PendingNotes()
        super().__init__(*arguments)

    def restore(self) -> None:
        """Go back to the last commit, and to its number of the next draw."""
        self.unfinished = self.restore
        self.prefetch_queues.drop()
        self._stream = None
        self.rows.take_back()
        self.pending_notes = self.pending_notes.none()
        super().restore()
        self.unfinished = None

    def view(self) -> contextlib.AbstractContextManager[Snapshot | None]:
        """Return a context without a snapshot: no other process changes the store."""
        if self.unfinished is not None:
            self.unfinished()
        return _NO_SNAPSHOT

    def _load_state(self, state: State, snapshot: Snapshot) -> None:
        super()._load_state(state, snapshot)
        self.set_draws(state.draws, state.frame)
        self._linker.forget(state.cuts)
        self._described_run = run = self._run.committed(snapshot)
        self._run_rows = 0 if run is None else run.rows

    def _own_run(self) -> tuple[int, int]:
        """Return the number of this run, and its first uncommitted write id."""
        return (self._run.number if self._run.number >= 0 else self.runs), self.committed

    def set_draws(self, draws: int, frame: int) -> None:
        """Set the number of the next draw, and the frame."""
        self.draws, self._frame_at_start = draws, frame - draws

    def frame_of(self, number: int) -> int:
        """Return the number of batches given before a draw, over all runs."""
        return self._frame_at_start + number

    @property
    def draw_number(self) -> int:
        """The number of the next draw."""
        return self.draws

    @property
    def cuts(self) -> int:
        """The number of episodes that were cut, over all runs."""
        return self._linker.cuts(self.count)

    def notes(self, snapshot: Snapshot) -> dict[str, Any]:
        """Return the notes by name, as of the next commit."""
        return self.pending_notes.applied_to(super().notes(snapshot))

    # Writing

    def schema_for(self, values: dict[str, Any], *, lead: int) -> Schema:
        """Return the schema, or else one inferred from the first transitions."""
        return self.rows.schema or self.rows.expected.inferred(values, lead=lead)

    def adopt(self, schema: Schema) -> Schema:
        """Use a schema from now on, and return it."""
        self.rows.adopt(schema)
        return schema

    def has_room(self, n: int, packed_bytes: int = 0) -> bool:
        """Return whether n more rows, with packed values, may wait for the next commit."""
        pending = self.count - self.committed
        if self.rows.waiting is not None and not self.rows.waiting.has_room(n):
            return False
        if packed_bytes and pending:
            waiting = self.rows.window.packed_since(self.committed)
            if waiting + packed_bytes > PACKED_COMMIT_BYTES:
                return False
        return not pending or pending + n <= self.rows.most_pending

    def fits(self, n: int, packed_bytes: int = 0) -> bool:
        """Return whether n rows, with packed values, can wait at all."""
        window, waiting = self.rows.window, self.rows.waiting
        if waiting is not None and not waiting.fits(n):
            return False
        return n <= window.rows and packed_bytes <= window.most_packed

    def linked(
        self, schema: Schema, row: list[Any], truncated: bool, env: int | None
    ) -> tuple[list[Any], int]:
        """Return the next row as `push` takes it, and its link, before anything is changed."""
        prepared = self.rows.window.prepared(row)
        return prepared, self._linker.push(self.count, schema, prepared, truncated, env)

    def links_of(
        self, schema: Schema, columns: Columns, truncateds: Bools | None, env: int | Ints | None
    ) -> LinkValues:
        """Return the links of the next rows, before anything is changed."""
        return self._linker.extend(self.count, schema, columns, truncateds, env)

    def end_episode(self, env: int | None) -> None:
        """End the episode of an env: its next row begins another one."""
        self._linker.end_episode(self.count, env)

    def push(self, row: list[Any], priority: Values | None, link: int) -> int:
        """Add a row that `linked` returned, and return its write id."""
        write_id = self.count
        self.rows.window.write_row(write_id, row)
        if self.priorities is not None:
            self.priorities.stage(write_id, 1, priority)
        self.links.stage(write_id, 1, link)
        self.count = write_id + 1  # live in one step: an interrupt comes before it or after it
        return write_id

    def extend(
        self, columns: Columns, priorities: Values | None, links: LinkValues, notes: PendingNotes
    ) -> Ints:
        """Add rows that fit the window, and return their write ids.

        notes:  those that wait for the commit of the rows
        """
        first, n = self.count, len(columns[0])
        self.rows.window.write(first, columns)
        if self.priorities is not None:
            self.priorities.stage(first, n, priorities)
        self.links.stage(first, n, links)
        write_ids = np.arange(first, first + n)
        self.count, self.pending_notes = first + n, notes  # in one step, as in `push`
        return write_ids

    def commit_columns(
        self, columns: Columns, priorities: Values | None, links: LinkValues, notes: PendingNotes
    ) -> Ints:
        """Add and commit rows that do not fit the window, and notes; all else is committed."""
        first, n = self.count, len(columns[0])
        with self._restored_on_error():
            if self.priorities is not None:
                self.priorities.stage(first, n, priorities)
            self.links.stage(first, n, links)
            self.pending_notes = notes
            self._commit_rows(lambda: [columns], first, self.start, first + n)
        return np.arange(first, first + n)

    def update(self, write_ids: Ints, priorities: Values) -> int:
        """Set the priorities of live write ids, and return how many were live."""
        applied = 0
        if self.priorities is not None:
            applied = self.priorities.update(write_ids, priorities, self.live)
        self.stale_updates += write_ids.size - applied
        return applied

    def clear(self) -> None:
        """Remove all transitions; write ids go on counting."""
        self.unfinished = self.clear
        self.prefetch_queues.drop()
        for table in self.tables:
            table.mark_broken()
        self.start = self.count
        for table in self.tables:
            table.clear(self.count)
        self._linker.forget(self.cuts)
        self.unfinished = None

    def commit(self, change: StateChange | None = None) -> None:
        """Commit everything, with a change of the state if one is given."""
        live = self.live
        first = max(self.committed, live.first)
        rows = self.count - self.committed
        pending = partial(self.rows.uncommitted, first, self.count)
        self._commit(pending, rows, live, change=change, whole=False)

    def undo(self) -> None:
        """Undo the uncommitted changes."""
        self.restore()

    def rewind(self, name: str, *, drop_missing: bool) -> int:
        """Go back to a mark, in one commit; return how many of its rows are overwritten.

        Nothing is changed when the mark is missing, or rows are and may not be dropped.
        """
        path, identity = self.store.path, self.identity

        def put(txn: Transaction) -> int:
            stored = self._stored_state(txn)
            mark = found_mark(marks_of(txn, identity), name, path)
            if not drop_missing:
                refuse_missing(mark, stored, identity, path)
            missing = missing_rows(mark, stored, identity)
            run = self._run.of(txn, stored).until(mark.state.count)
            start = mark.state.live(identity).first + missing if missing else 0
            state = rewound(txn, stored, identity, mark, start)
            # What could not be opened afterwards is not committed.
            self.rows.check_count(txn, state.live(identity))
            for table in self.tables:
                if table is not self.counts:  # without those of the mark, counting begins anew
                    self._check_blocks(table, txn.seals(table.database), state.live(identity))
            state = replace(state, settings=self.settings, **self._run.counted(stored))
            if counts_hold(mark.state):
                state = with_counts(state)
            self._run.put(txn, state, run, identity)
            return missing

        self.unfinished = self._finish_rewind
        missing = self.store.commit(put)
        self._finish_rewind()
        return missing

    def _finish_rewind(self) -> None:
        """Load the store if it was rewound; else nothing has changed."""
        with self.store.snapshot() as snapshot:
            is_rewound = self.read_state(snapshot).rewinds.number != self.rewinds
        if is_rewound:
            self.restore()
        self.unfinished = None

    def reseed(self, seed: bytes) -> None:
        """Begin another random stream."""
        self._stream = RandomStream(seed)
        self.set_draws(0, self.frame)

    def load(self, store: Store, progress: Progress) -> None:
        """Replace the contents by those of another store; all must be committed.

        progress:  called with the numbers of rows written and of all rows; from 0 again where the
                   map had to grow
        """
        capacity, own = self.identity.capacity, self.rows.schema
        expected = self.rows.expected.fields if own is None else fields_of(own)
        identity = store.identity
        fields = ExpectedFields(expected, all_given=False, any_place=True)
        source = Rows(store, identity.capacity, 0, fields)
        with self._restored_on_error(), store.snapshot() as snapshot:
            self.prefetch_queues.drop()
            source.adopt_stored(snapshot)
            saved = State.parse(snapshot.meta("state"), identity)
            theirs = saved.live(identity)
            source.check_count(snapshot, theirs)
            order = self._order_of(source)
            newest = theirs.since(theirs.count - capacity)
            slots = self.identity.slots
            moved = max(0, self.count - newest.first + slots - 1) // slots * slots
            if source.schema is not None:
                self.rows.adopt(self.rows.expected.placed(source.schema))
            begin, size = newest.first + moved, newest.size
            if self.priorities is not None:
                with Priorities.read_from(store.path):
                    priorities = saved_priorities(self.priorities, snapshot, theirs, newest)
                self.priorities.clear(begin)
                if size:
                    self.priorities.stage(begin, size, priorities)
                self.priorities.largest = saved.max_priority
            with Links.read_from(store.path):
                links = saved_links(snapshot, theirs, newest)
            self.links.clear(begin)
            if self.counts is not None:
                self.counts.clear(begin)
            if size:
                self.links.stage(begin, size, links)
            self._linker.forget(self.cuts)
            self._stream = RandomStream(saved.seed)
            self.set_draws(saved.draws, saved.frame)
            notes = saved_notes(snapshot, self.store)
            self.pending_notes = self.pending_notes.changed(notes)

            def rows() -> Iterator[Columns]:
                done = 0
                for columns in source.chunks(newest, snapshot) if size else ():
                    yield [columns[i] for i in order]
                    done += len(columns[0])
                    progress(done, size)

            self._commit_rows(rows, begin, begin, begin + size, saved)

    def _order_of(self, source: Rows) -> list[int]:
        """Return the places of the columns of a saved store, in the field order of this one."""
        own = self.rows.schema or source.schema
        if own is None or source.schema is None:
            return []
        if own.types != source.schema.types:
            raise MismatchError(
                f"the fields are {source.schema} in {source.store.path} (expected {own}): load it "
                "into a buffer of its own fields"
            )
        return [source.schema.names.index(name) for name in own.names]

    def _commit_rows(
        self,
        rows: Callable[[], Iterable[Columns]],
        first: int,
        start: int,
        count: int,
        origin: State | None = None,
    ) -> None:
        """Commit rows past the window, whose priorities are staged already.

        rows:    returns the rows; it is called again when the map has to grow
        origin:  the state of the store that the rows come from, whose unknown entries are kept
        """
        self.rows.drop_from(first)
        live = replace(self.live, start=start, count=count)
        self._commit(
            lambda: self.rows.with_write_ids(rows(), first, count), count - first, live, origin
        )

    def _commit(
        self,
        rows: Callable[[], Iterable[tuple[int, Columns]]],
        n: int,
        live: LiveRange,
        origin: State | None = None,
        change: StateChange | None = None,
        *,
        whole: bool = True,
    ) -> None:
        """Commit n rows, the changed blocks of the slot tables, and the state."""
        self.prefetch_queues.finish_reads(live.first)
        cuts = self._linker.cuts(live.count)
        blocks = [(table, table.dirty_blocks(live)) for table in self.tables]

        def put(txn: Transaction) -> tuple[bytes, State, Run]:
            stored = self._stored_state(txn)
            run = self._described_run or self._run.of(txn, stored)
            run = replace(run, end=live.count, rows=self._run_rows + n)
            needed = stored.needed(live)
            observations = self.rows.put(txn, rows(), needed, stored.observations, whole=whole)
            state = replace(
                stored if origin is None else stored.keeping(stored, origin),
                seed=self.stream.seed,
                draws=self.draws,
                frame=self.frame,
                max_priority=None if self.priorities is None else self.priorities.largest,
                settings=self.settings,
                stale_updates=self.stale_updates,
                cuts=cuts,
                count=live.count,
                start=live.start,
                observations=observations,
                **self._run.counted(stored),
            )
            if self.counts is not None:
                state = with_counts(state)
            for table, changed in blocks:
                txn.put_blocks(changed, table.database, stored.marks.newest)
            if not self._links_are_stored:
                txn.put_feature(LINKS)
            if self.pending_notes:
                self.pending_notes.put(txn)
            if change is not None:
                state = change(txn, state)
            return self._run.put(txn, state, run, self.identity), state, run

        block_bytes = BLOCK_BYTES * sum(len(changed) for _, changed in blocks)
        put_bytes = self.rows.record_bytes(n, whole=whole) + block_bytes
        raw, state, self._described_run = self.store.commit(put, put_bytes)
        self.rows.confirm()
        self.pending_notes = self.pending_notes.none()
        self._own_state, self.commits = (raw, state), state.commits
        # In one step: after an interrupt in between the rows would be counted twice.
        self._run_rows, self.count, self.committed = self._run_rows + n, live.count, live.count
        self.start = live.start
        self._links_are_stored = self.rows.schema is not None
        self._counts_are_stored = self.counts is not None
        for table, changed in blocks:
            table.mark_committed(changed)

    def _stored_state(self, txn: Transaction) -> State:
        """Return the state that a commit changes."""
        stored = self.read_state(txn)
        # Only a commit of this run may be new: one that was interrupted after it was done.
        if stored.commits != self.commits and stored.run != self._run.id:
            raise StorageError(
                f"{self.store.path} was written by another process although it is held here: "
                "nothing of this buffer was committed over it; close the buffer, and open the "
                "store again"
            )
        return stored

    @contextlib.contextmanager
    def _restored_on_error(self) -> Iterator[None]:
        """Go back to the last commit if the block raises; all must be committed before it."""
        self.unfinished = self.restore
        try:
            yield
        except BaseException:
            self.restore()
            raise
        self.unfinished = None
