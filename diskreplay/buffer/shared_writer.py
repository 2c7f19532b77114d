"""SharedWriter: the replica of a process that writes together with others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, NoReturn

import numpy as np

from diskreplay.aliases import Bools, Columns, Ints, Progress
from diskreplay.buffer.pending_changes import NEW, PendingChanges
from diskreplay.buffer.pending_notes import PendingNotes
from diskreplay.buffer.replica import Replica, StateChange
from diskreplay.buffer.row_memory import pending_bytes
from diskreplay.buffer.written_rows import WrittenRows
from diskreplay.episodes import Linker, LinkValues, links_to
from diskreplay.errors import ReadOnlyError
from diskreplay.live_range import BLOCK_SLOTS, LiveRange, blocks_in
from diskreplay.records import BLOCK_BYTES, LINKS, has_links, schema_facts
from diskreplay.sampling import Values
from diskreplay.schema import Schema
from diskreplay.store import OwnRun, Snapshot, State, Store, Transaction


class NewRows(NamedTuple):
    """Rows that a commit adds after the pending ones; priorities and links as of pending rows."""

    columns: Columns
    priorities: Values
    links: LinkValues


class SharedWriter(Replica):
    """A replica that follows the store, and pending changes that a commit adds to the store.

    A commit reads the state inside its own transaction; of this replica it needs the pending
    changes alone. Afterwards the replica loads the commit like one of another process.
    """

    unfinished: None = None  # no step needs to be finished by the next call, see Writer

    def __init__(self, *arguments: Any) -> None:
        self._run = OwnRun()
        self._pending = PendingChanges()
        self.pending_notes = PendingNotes()
        self._draws_committed = self._cuts_committed = 0
        self._linker = Linker()
        self._written = WrittenRows()
        self._rows_of_columns = 0  # committed past the pending rows
        super().__init__(*arguments)
        self.draws_are_kept = (
            self.priorities is not None
        )  # the annealing counts the draws of all processes
        if self.rows.schema is not None:
            self.adopt(self.rows.schema)

    @property
    def nbytes(self) -> int:
        """The memory of all parts in a full buffer, in bytes."""
        return super().nbytes + self._pending.nbytes

    def frame_of(self, number: int) -> int:
        """Return the number of batches given before a draw, over all runs."""
        return self._frame_at_start + number

    def _clear_tables(self) -> None:
        super()._clear_tables()
        self._pending.forget_highest()

    def _load_state(self, state: State, snapshot: Snapshot) -> None:
        known = self._run.committed(snapshot)
        self._pending.forget_updates(known.updated if known else 0)
        super()._load_state(state, snapshot)
        self._frame_at_start -= known.draws if known else 0
        self._cuts_committed = known.cuts if known else 0
        self.stale_updates += self._pending.stale - (known.stale if known else 0)
        update = self._pending.latest()
        self._apply(update.write_ids, update.priorities)
        if update.highest >= 0.0 and self.priorities is not None:
            self.priorities.raise_largest(update.highest)

    def _apply(self, write_ids: Ints, priorities: Values) -> int:
        """Set the priorities of live write ids in memory, and return how many were live."""
        table = self.priorities
        if table is None or not write_ids.size:
            return 0
        seals = self._seals.get(table.database, {})
        # These blocks differ from the stored ones now: the next load must read them.
        for number in np.unique(write_ids % table.capacity // BLOCK_SLOTS).tolist():
            seals.pop(number, None)
        return table.update(write_ids, priorities, self.live)

    @property
    def cuts(self) -> int:
        """The number of episodes that were cut, over all runs."""
        return self._stored_cuts + self._linker.cuts(self._number) - self._cuts_committed

    # Writing

    @property
    def _number(self) -> int:
        """The number of the next row of this writer, which has no write id yet."""
        return self._pending.pushed + self._rows_of_columns

    def schema_for(self, values: dict[str, Any], *, lead: int) -> Schema:
        """Return the schema, or else one inferred from the first transitions."""
        if self.rows.schema is None:
            with self.view():
                pass
        return self.rows.schema or self.rows.expected.inferred(values, lead=lead)

    def adopt(self, schema: Schema) -> Schema:
        """Use a schema in all processes, or that of a process that was faster; return it."""
        if self.rows.schema is None:

            def put(txn: Transaction) -> None:
                if txn.meta("schema") is None:
                    txn.put_schema(schema_facts(schema))

            self.store.commit(put)
            with self.view():
                pass
            schema = self.rows.schema or schema
        self._pending.adopt(schema, self.identity.capacity, pending_bytes(schema))
        return schema

    def has_room(self, n: int, packed_bytes: int = 0) -> bool:
        """Return whether n more rows, with packed values, may wait for the next commit."""
        return self._pending.has_room(n, packed_bytes)

    def fits(self, n: int, packed_bytes: int = 0) -> bool:
        """Return whether n rows, with packed values, can wait at all."""
        return self._pending.fits(n, packed_bytes)

    def linked(
        self, schema: Schema, row: list[Any], truncated: bool, env: int | None
    ) -> tuple[list[Any], int]:
        """Return the next row as `push` takes it, and its link, before anything is changed.

        Links are by the numbers of rows.
        """
        prepared = self._pending.prepared(row)
        return prepared, self._linker.push(self._number, schema, prepared, truncated, env)

    def links_of(
        self, schema: Schema, columns: Columns, truncateds: Bools | None, env: int | Ints | None
    ) -> LinkValues:
        """Return the links of the next rows, before anything is changed."""
        return self._linker.extend(self._number, schema, columns, truncateds, env)

    def end_episode(self, env: int | None) -> None:
        """End the episode of an env: its next row begins another one."""
        self._linker.end_episode(self._number, env)

    def push(self, row: list[Any], priority: Values | None, link: int) -> int:
        """Add a row that `linked` returned; the commit gives its write id."""
        self._pending.push(row, priority, link)
        return -1

    def extend(
        self, columns: Columns, priorities: Values | None, links: LinkValues, notes: PendingNotes
    ) -> Ints:
        """Add rows that fit the pending rows; the commit gives their write ids.

        notes:  those that wait for the commit of the rows
        """
        pushed = self._pending.extend(columns, priorities, links)
        self._pending.pushed, self.pending_notes = pushed, notes  # in one step, as in Writer
        write_ids = np.empty(len(columns[0]), np.int64)
        write_ids.fill(-1)
        return write_ids

    def commit_columns(
        self, columns: Columns, priorities: Values | None, links: LinkValues, notes: PendingNotes
    ) -> Ints:
        """Add and commit rows that do not fit, and notes; all else must be committed."""
        n = len(columns[0])
        values = np.full(n, NEW) if priorities is None else priorities
        try:
            self.pending_notes = notes
            self._commit(NewRows(columns, values, links))
        except BaseException as error:
            self.pending_notes = notes.none()  # where the rows are, the notes are, too
            if not isinstance(error, Exception):  # nobody knows whether the rows are there
                self._linker.forget(self._linker.cuts(self._number))
            raise
        return np.full(n, -1)

    def update(self, write_ids: Ints, priorities: Values) -> int:
        """Set the priorities of live write ids, and return how many were live."""
        live = self.live.holds(write_ids)
        late = int(np.count_nonzero(~live))
        self._pending.update(write_ids[live], priorities[live])
        self._pending.stale += late
        self.stale_updates += late
        return self._apply(write_ids, priorities)

    def clear(self) -> None:
        """Remove all transitions, in a commit of its own."""
        self.prefetch_queues.drop()
        self._commit(clear=True)
        self._linker.forget(self._linker.cuts(self._number))

    def commit(self, change: StateChange | None = None) -> None:
        """Commit everything, with a change of the state if one is given."""
        is_changed = not self._pending.is_empty or self.draws != self._draws_committed
        if is_changed or self.pending_notes or change is not None:
            self._commit(change=change)

    def undo(self) -> None:
        """Undo the uncommitted changes."""
        with self.store.snapshot() as snapshot:
            run = self._run.committed(snapshot)
        if self.draws_are_kept:  # else the store knows nothing of them
            self.draws = self._draws_committed = run.draws if run else 0
        self._pending.stale = run.stale if run else 0
        self._linker.forget(run.cuts if run else 0)
        self._pending.forget_all()
        self.pending_notes = self.pending_notes.none()
        self._loaded_state = None

    def rewind(self, name: str, *, drop_missing: bool) -> NoReturn:
        """Raise ReadOnlyError: other processes work with the transitions."""
        raise ReadOnlyError(
            f"{self.store.path} is open with access='shared': rewind() takes back what other "
            "processes have written, so it needs access='exclusive'"
        )

    def load(self, store: Store, progress: Progress) -> NoReturn:
        """Raise ReadOnlyError: other processes work with the transitions."""
        raise ReadOnlyError(
            f"{self.store.path} is open with access='shared': load() replaces transitions that "
            "other processes work with, so it needs access='exclusive'"
        )

    def _commit(
        self,
        more: NewRows | None = None,
        *,
        clear: bool = False,
        change: StateChange | None = None,
    ) -> None:
        """Commit the pending changes, then more rows, then clear, in one transaction.

        change:  of the state, which comes last
        """
        rows, pending, identity = self.rows, self._pending, self.identity
        self.prefetch_queues.finish_reads(self.count)  # others' commits decide what is evicted

        def put(txn: Transaction) -> tuple[list[Columns], int, tuple[bytes, State]]:
            state = self.read_state(txn)
            run = self._run.of(txn, state)
            sent = max(pending.sent, run.sent)
            priorities, links = pending.priorities_after(sent), pending.links_after(sent)
            parts = list(pending.rows(sent, rows.chunk_rows)) if priorities.size else []
            if more is not None:
                parts.append(more.columns)
                priorities = np.concatenate([priorities, more.priorities])
                links = np.concatenate([links, more.links])
            before = state.live(identity)
            after = before.until(state.count + priorities.size)
            if state.start != self.start:
                pending.forget_highest()  # another process has called clear()
            pending.forget_updates(run.updated)
            self.pending_notes.put(txn, run.noted)
            update = pending.latest()
            live = (update.write_ids >= after.first) & (update.write_ids < before.count)
            largest = state.max_priority
            ids = np.concatenate([update.write_ids[live], np.arange(before.count, after.count)])
            values = np.concatenate([update.priorities[live], priorities])
            highest = NEW if update.highest < 0.0 else np.float32(update.highest)
            given = np.append(priorities, highest)
            if (table := self.priorities) is not None:
                blocks_of = partial(txn.blocks, database=table.database)
                with table.read_from(self.store.path):
                    largest, blocks = table.after_update(
                        largest, blocks_of, before, ids, values, given
                    )
                txn.put_blocks(blocks, table.database, state.marks.newest)
            # Rows of a commit that was interrupted after it was done have the last ids of this run.
            self._note_written(pending.sent, sent, run.end - (sent - pending.sent))
            links = self._by_write_ids(links, sent, before.count)
            first_links = self._put_links(txn, links, before, state.marks.newest)
            late = pending.stale - run.stale + int(np.count_nonzero(~live))
            new = replace(
                state,
                count=after.count,
                start=after.count if clear else state.start,
                frame=state.frame + self.draws - run.draws,
                max_priority=None if clear else largest,
                stale_updates=state.stale_updates + late,
                cuts=state.cuts + cuts - run.cuts,
                **self._run.counted(state),
            )
            run = replace(
                run,
                end=after.count,
                rows=run.rows + priorities.size,
                sent=pending.pushed,
                updated=update.number,
                noted=self.pending_notes.number,
                draws=self.draws,
                stale=pending.stale,
                cuts=cuts,
            )
            new = replace(
                new,
                observations=rows.put(
                    txn,
                    rows.with_write_ids(parts, before.count, after.count),
                    new.needed(new.live(identity)),
                    state.observations,
                ),
            )
            if first_links:
                txn.put_feature(LINKS)
            if change is not None:
                new = change(txn, new)
            raw = self._run.put(txn, new, run, self.identity)
            return parts, before.count, (raw, new)

        n_more = 0 if more is None else more.links.size
        cuts = self._linker.cuts(self._number + n_more)
        n = pending.pushed - pending.sent + n_more
        blocks = blocks_in(identity.slots) * len(self.tables)
        put_bytes = rows.record_bytes(n) + BLOCK_BYTES * blocks  # at most
        parts, begin, self._own_state = self.store.commit(put, put_bytes)
        rows.confirm()
        for first, part in rows.with_write_ids(parts, begin, self._own_state[1].count):
            rows.keep(first, part)
        self._draws_committed = self.draws
        self._note_written(
            pending.pushed - (self._own_state[1].count - begin - n_more),
            pending.pushed + n_more,
            begin,
        )
        self._rows_of_columns += n_more
        pending.forget_all()
        self.pending_notes = self.pending_notes.none()
        if self._written.is_large:
            self._written.keep(self._linker.numbers(self._number))

    # Links

    def _note_written(self, first: int, end: int, write_id: int) -> None:
        """Note the write ids of the rows after the first `first` pending ones of this run."""
        self._written.note(first + self._rows_of_columns, end + self._rows_of_columns, write_id)

    def _by_write_ids(self, links: LinkValues, sent: int, write_id: int) -> LinkValues:
        """Return the links of the rows after the first `sent`, by the write ids that they get."""
        first = sent + self._rows_of_columns
        places = np.arange(links.size)
        before = places - np.abs(links.astype(np.int64))
        ids = np.where(before >= 0, write_id + before, self._written.write_ids(first + before))
        return links_to(ids, write_id + places, links)

    def _put_links(
        self, txn: Transaction, links: LinkValues, before: LiveRange, mark: int | None
    ) -> bool:
        """Put the links of the rows after a live range; return whether the store had none yet."""
        table, slots = self.links, self.identity.slots
        has_none = not (self._links_are_stored or has_links(txn.meta("layout")))
        ids = np.arange(before.count, before.count + links.size)

        def blocks_of(numbers: list[int]) -> Mapping[int, bytes]:
            return {} if has_none else txn.blocks(numbers, table.database)

        with table.read_from(self.store.path):
            blocks = table.overlaid(slots, blocks_of, before, ids, links)
        if has_none:
            blocks = {n: table.empty_block(n, slots) for n in before.blocks()} | blocks
        txn.put_blocks(blocks, table.database, mark)
        return has_none
