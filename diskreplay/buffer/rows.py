"""Rows: the transitions of one store by write id, from the window or else from the disk."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from diskreplay.aliases import Array, Columns, Ints
from diskreplay.buffer.expected_fields import ExpectedFields
from diskreplay.buffer.new_window import new_window
from diskreplay.buffer.packed_window import PackedWindow
from diskreplay.buffer.record_window import RecordWindow
from diskreplay.buffer.row_memory import (
    holds_records,
    logged_pending_rows,
    pending_bytes,
    whole_row_bytes,
    window_shares,
)
from diskreplay.buffer.stored_rows import RowsPart, StoredRows
from diskreplay.buffer.window import Window
from diskreplay.buffer.window_layout import Fields
from diskreplay.errors import DamageError
from diskreplay.live_range import LiveRange
from diskreplay.observations import LoggedRows, WaitingObservations
from diskreplay.records import (
    ALONE,
    LARGE_ROW,
    Codec,
    Grouping,
    new_grouping,
    schema_facts,
    stored_grouping,
)
from diskreplay.schema import Schema
from diskreplay.store import ObservationRange, Snapshot, State, Store, Transaction

_CHUNK_BYTES = 1 << 20
VARYING_CHUNK_ROWS = 256
_WRITTEN_ALONE = 16 << 10  # bytes; larger records are written one by one, which is faster
_REPAIR = "diskreplay.repair() copies the readable transitions"


class Rows:
    """The transitions of one store, once there is a schema. Not safe for threads.

    Uncommitted rows are in the window alone; committed rows are in the store, some in the window.
    """

    def __init__(
        self, store: Store, capacity: int, window_bytes: int, expected: ExpectedFields
    ) -> None:
        self.store = store
        self.expected = expected
        self.schema: Schema | None = None
        self._capacity = capacity
        self._slots = store.identity.slots
        self._window_bytes = window_bytes
        self._grouping = ALONE
        self._logged: LoggedRows | None = None  # set if some fields are in the log
        # Set where the only writer gives observation ids before the commit.
        self.waiting: WaitingObservations | None = None

    # The schema

    def adopt(self, schema: Schema) -> None:
        """Use a schema from now on, if there is none yet."""
        if self.schema is None:
            self._use(schema, new_grouping(schema))

    def adopt_stored(self, snapshot: Snapshot) -> None:
        """Use the schema of the store from now on, or none if it has none."""
        plain = snapshot.meta("schema")
        if plain is None:
            self.schema = None  # an adopted one is left from a call that failed
        elif self.schema is None:
            schema = Schema.from_stored(plain, str(self.store.path))
            self.expected.check(schema, self.store)
            codec = Codec(schema.record_schema)
            layout, where = snapshot.meta("layout"), str(self.store.path)
            grouping = stored_grouping(layout, snapshot.some_values, codec, self._slots, where)
            self._use(schema, grouping)

    def forget_rows(self) -> None:
        """Forget all rows in memory: their write ids were given again."""
        if self.schema is not None:
            self._use(self.schema, self._grouping)

    def grouping_of(self, schema: Schema) -> Grouping:
        """Return how the records of a schema share values, also before it is adopted."""
        return new_grouping(schema) if self.schema is None else self._grouping

    def schema_facts(self) -> dict[str, object]:
        """Return the entries of a store that describe the schema; {} before there is one."""
        return {} if self.schema is None else schema_facts(self.schema, self._grouping)

    def _use(self, schema: Schema, grouping: Grouping) -> None:
        self._codec = Codec(schema.record_schema)
        self._grouping = grouping
        row_bytes, frame_bytes = window_shares(schema, self._window_bytes)
        self._logged = self.waiting = None
        if schema.logged:
            where = str(self.store.path)
            self._logged = LoggedRows(schema, self._capacity, frame_bytes, where)
        if self._logged is not None and holds_records(schema):
            self.waiting = self._logged.waiting
            self.window: Window | RecordWindow = RecordWindow(
                schema, self._capacity, row_bytes, self._logged, self._open_log
            )
        else:
            self.window = new_window(schema, self._capacity, row_bytes)
        own = self._codec, self._grouping, self._logged
        self.stored = StoredRows(self.store, self._slots, *own)
        payload = whole_row_bytes(schema) if schema.logged else self._codec.record_bytes
        self.chunk_rows = max(1, _CHUNK_BYTES // max(1, payload))
        if schema.varying:  # a chunk of rows is in memory, with values of any size
            self.chunk_rows = min(self.chunk_rows, VARYING_CHUNK_ROWS)
        most = max(1, pending_bytes(schema) // max(1, payload))
        self._pending_chunk_rows = self.chunk_rows
        if self.waiting is not None:  # which counts the bytes of their frames
            most = logged_pending_rows(schema)
            self._pending_chunk_rows = max(1, _CHUNK_BYTES // self._codec.record_bytes)
        self.most_pending = min(self.window.rows, most)
        self.schema = schema

    def _open_log(self) -> None:
        with self.store.snapshot() as snapshot:
            state = State.parse(snapshot.meta("state"), self.store.identity)
            if self._logged is not None:
                self._logged.open_waiting(snapshot, state.observations)

    # Sizes

    @property
    def nbytes(self) -> int:
        """The memory of the window and of the remembered places of values, in bytes."""
        if self.schema is None:
            return 0
        logged = 0 if self._logged is None else self._logged.nbytes
        return self.window.nbytes + logged + self._grouping.places_nbytes(self._slots)

    def record_bytes(self, n: int, *, whole: bool = True) -> int:
        """Return the bytes of n records, at most one for each slot, and of their observations.

        whole:  as of `put`
        """
        if self.schema is None:
            return 0
        logged = n * self.schema.payload_bytes if self.schema.logged else 0
        if self.waiting is not None and not whole:
            logged = self.waiting.nbytes
        return min(n, self._slots) * self._codec.record_bytes + logged

    def check_count(self, snapshot: Snapshot, live: LiveRange) -> None:
        """Raise DamageError if the store has fewer records than live transitions."""
        if self.schema is None:
            if live.count:
                raise DamageError(f"the schema of {self.store.path} is missing: {_REPAIR}")
            return
        try:
            snapshot.check_records(live, self._grouping)
        except DamageError as error:
            raise DamageError(f"{error}, in {self.store.path}: {_REPAIR}") from None

    # Writing

    def drop_from(self, write_id: int) -> None:
        """Remove the rows from a write id on: a refused call may have left some in the window."""
        if self.schema is not None:
            self.window.drop_from(write_id)

    def uncommitted(self, first: int, count: int) -> Iterator[tuple[int, Columns]]:
        """Yield the rows [first, count) from the window in chunks, as it holds them.

        Each chunk comes with its first write id.
        """
        if first < count:
            yield from self.window.chunks(first, count, self._pending_chunk_rows)

    def keep(self, first: int, columns: Columns) -> None:
        """Write committed rows into the window, so that they need not be read."""
        if self.waiting is None:
            self.window.write(first, columns)

    def take_back(self) -> None:
        """Forget the observations of uncommitted rows, which were undone."""
        if self.waiting is not None:
            self.waiting.take_back()

    def with_write_ids(
        self, parts: Iterable[Columns], first: int, count: int
    ) -> Iterator[tuple[int, Columns]]:
        """Yield rows from write id `first` on in chunks, without those overwritten at `count`."""
        oldest = count - self._slots
        for columns in parts:
            n = len(columns[0])
            for at in range(max(0, oldest - first), n, self.chunk_rows):
                yield first + at, [column[at : at + self.chunk_rows] for column in columns]
            first += n

    def put(
        self,
        txn: Transaction,
        rows: Iterable[tuple[int, Columns]],
        needed: LiveRange,
        observations: ObservationRange,
        *,
        whole: bool = True,
    ) -> ObservationRange:
        """Write rows in a transaction, and the schema if the store has none.

        Returns the range of the observation log afterwards; `confirm` follows the commit.

        needed:        the live range after the commit, and what a rewind may make live again
        observations:  the range of the log before it
        whole:         False for rows out of the window, which may hold their records
        """
        if self.schema is not None and not (txn.has("schema") and txn.has("layout")):
            txn.put_schema(self.schema_facts())
        logged = self._logged
        are_records = self.waiting is not None and not whole
        if logged is not None and are_records:
            logged.begin_waiting(txn, observations)
        elif logged is not None:
            logged.begin(txn, observations)
        for first, columns in rows:
            if logged is not None and not are_records:
                columns = logged.put(txn, columns)
            if self._grouping.per_value == 1 and self._codec.record_bytes > _WRITTEN_ALONE:
                one_by_one = self._codec.encode_one_by_one(columns, first)
                txn.put_one_by_one(self._slots, first, len(columns[0]), one_by_one)
            else:
                records = self._codec.encode(columns, first)
                txn.put_records(self._slots, first, records, self._grouping)
        if logged is None:
            return observations
        oldest = self._oldest(txn, needed)
        found = logged.end(txn, oldest, is_empty=not needed.size)
        if (layout := logged.new_layout) is not None:
            txn.put_meta({"layout": {**txn.meta("layout"), **layout.to_plain()}})
        return found

    def confirm(self) -> None:
        """Keep in memory what `put` has written: the commit was done."""
        if self._logged is not None:
            self._logged.confirm()

    def _oldest(self, txn: Transaction, needed: LiveRange) -> Columns | None:
        """Return the record of the oldest row that is needed, None if it cannot be read."""
        if not needed.size:
            return None
        write_id = np.array([needed.first])
        slots = needed.slots(write_id)
        try:
            return self._codec.decode(txn.records(slots, self._grouping), write_id, slots)
        except DamageError:
            return None

    # Reading

    def fetch(
        self,
        write_ids: Ints,
        committed: int,
        snapshot: Snapshot | None,
        fields: Sequence[int] | None = None,
        out: Columns | None = None,
    ) -> Columns:
        """Return the rows of live write ids as columns, of all fields or of some.

        Rows read from the store stay in the window if it keeps such rows, and if all their fields
        were read.

        committed:  the write ids from this one on are in the window alone
        out:        columns to write into and to return, C-contiguous and of the fields' types
        """
        columns = self._whole.empty_columns(write_ids.size, fields) if out is None else out
        held = self.window.take(columns, write_ids, fields)
        if not held.all():
            missing = None if not held.any() else np.flatnonzero(~held)
            wanted = write_ids if missing is None else write_ids[missing]
            self.stored.read([RowsPart(columns, wanted, fields, missing)], snapshot)
            if fields is None and self.window.keeps_read_rows:
                found = columns if missing is None else [column[missing] for column in columns]
                self.window.write_below(wanted, found, committed)
        return columns

    def fetch_parts(
        self, parts: Sequence[RowsPart], committed: int, snapshot: Snapshot | None
    ) -> None:
        """Write some fields of live rows into columns; the rows of all parts are read together.

        Where rows that are read stay in the window, they are read with all their fields.

        parts:  each fills its columns
        """
        missing: list[RowsPart] = []
        for part, held in zip(parts, self.window.take_parts(parts), strict=True):
            if not held.any():
                missing.append(part)
            elif not held.all():
                places = np.flatnonzero(~held)
                missing.append(part._replace(places=places, write_ids=part.write_ids[places]))
        if not missing:
            return
        wanted = np.concatenate([part.write_ids for part in missing])
        if not self.window.keeps_read_rows or wanted.size > self.window.rows:
            self.stored.read(missing, snapshot)
            return
        write_ids = np.unique(wanted)
        rows = self.fetch(write_ids, committed, snapshot)
        for part in missing:
            at = np.searchsorted(write_ids, part.write_ids)
            for index, column in zip(part.chosen, part.columns, strict=True):
                column[slice(None) if part.places is None else part.places] = rows[index][at]

    def take_chains(
        self, columns: Columns, write_ids: Ints, first: Fields, last: Fields, of_all: int
    ) -> Array | None:
        """Return a field of all rows of chains, see PackedWindow; None where a row must be read."""
        if not isinstance(self.window, PackedWindow):
            return None
        return self.window.take_chains(columns, write_ids, first, last, of_all)

    def fetch_frames(
        self, write_ids: Ints, committed: int, snapshot: Snapshot | None, out: Columns
    ) -> Columns:
        """Write the rows of live write ids into columns with Frames, and return the columns.

        Large rows are read from the log, where each of their frames is once. Small ones are in the
        window, or else they will be.
        """
        if self._whole.payload_bytes > LARGE_ROW:
            others = self.take_uncommitted(out, write_ids, committed)
            if not others.size:
                return out
            with contextlib.suppress(DamageError):  # where the window may have the rows
                self.stored.read([RowsPart(out, write_ids[others], None, others)], snapshot)
                return out
        self.put_whole(out, np.arange(write_ids.size), self.fetch(write_ids, committed, snapshot))
        return out

    def take_uncommitted(self, columns: Columns, write_ids: Ints, committed: int) -> Ints:
        """Copy the rows from `committed` on, which are in the window; return the others' places."""
        is_new = write_ids >= committed
        places = np.flatnonzero(is_new)
        new = self._whole.empty_columns(places.size)
        if places.size:
            self.window.take(new, write_ids[places])
        self.put_whole(columns, places, new)
        return np.flatnonzero(~is_new)

    def put_whole(self, columns: Columns, places: Ints, values: Columns) -> None:
        """Write whole rows into columns, where they are the first to be written."""
        if self._logged is not None:
            self._logged.put_whole(columns, places, values)
        elif places.size:
            for column, of_field in zip(columns, values, strict=True):
                column[places] = of_field

    def damaged(self, write_ids: Ints, snapshot: Snapshot | None) -> Ints:
        """Return the live write ids whose record in the store is damaged."""
        held = self.window.holds(write_ids)
        return self.stored.damaged(np.unique(write_ids[~held]), snapshot)

    def chunks(self, live: LiveRange, snapshot: Snapshot) -> Iterator[Columns]:
        """Yield the rows of a live range, oldest first, a chunk at a time."""
        for write_ids in self._chunked(live):
            yield self.fetch(write_ids, live.count, snapshot)

    def faults(self, live: LiveRange, snapshot: Snapshot) -> list[str]:
        """Return one sentence for each damaged record of a live range."""
        of_chunks = (self.stored.faults(write_ids, snapshot) for write_ids in self._chunked(live))
        # Several chunks may share an observation.
        return list(dict.fromkeys(itertools.chain.from_iterable(of_chunks)))

    @property
    def _whole(self) -> Schema:
        """The schema, which is known here."""
        if self.schema is None:
            raise TypeError("there are no rows before there is a schema")
        return self.schema

    def _chunked(self, live: LiveRange) -> Iterator[Ints]:
        for first in range(live.first, live.count, self.chunk_rows if live.size else 1):
            yield np.arange(first, min(first + self.chunk_rows, live.count))
