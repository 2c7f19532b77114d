"""Rows: the transitions of one store by write id, from the window or else from the disk."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from diskreplay.aliases import Columns, Ints
from diskreplay.buffer.window import new_window
from diskreplay.errors import DamageError, MismatchError
from diskreplay.live_range import LiveRange
from diskreplay.records import ALONE, Codec, Grouping, new_grouping, schema_facts, stored_grouping
from diskreplay.schema import Field, Schema
from diskreplay.store import Snapshot, Store, Transaction

# The most that pushes let wait. The push that commits them takes about 5 ms longer.
COMMIT_BYTES = 2 << 20
_CHUNK_BYTES = 1 << 20
_WRITTEN_ALONE = 16 << 10  # bytes; larger records are written one by one, which is faster
_REPAIR = "diskreplay.repair() copies the readable transitions"


class ExpectedFields:
    """The fields that a user gave, all or some; the fields of the store must equal them."""

    def __init__(self, fields: dict[str, Field], *, all_given: bool) -> None:
        self.fields = fields
        self._all_given = all_given

    def check(self, schema: Schema, store: Store) -> None:
        """Raise MismatchError if the schema of a store has other fields."""
        way_out = f"open it with diskreplay.open({str(store.path)!r}), or choose a new path"
        for name, field in self.fields.items():
            stored = schema[name].type if name in schema.names else "no such field"
            if stored != field.type:
                raise MismatchError(
                    f"field {name!r} is {stored} in {store.path} (expected {field.type}): {way_out}"
                )
        if self._all_given and set(schema.names) != set(self.fields):
            raise MismatchError(
                f"the fields are {', '.join(schema.names)} in {store.path} (expected "
                f"{', '.join(self.fields)}): {way_out}"
            )


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
        self._window_bytes = window_bytes
        self._grouping = ALONE

    # The schema

    def adopt(self, schema: Schema) -> None:
        """Use a schema from now on, if there is none yet."""
        if self.schema is None:
            self._use(Codec(schema), new_grouping(schema))

    def adopt_stored(self, snapshot: Snapshot) -> None:
        """Use the schema of the store from now on, or none if it has none."""
        plain = snapshot.meta("schema")
        if plain is None:
            self.schema = None  # an adopted one is left from a call that failed
        elif self.schema is None:
            schema = Schema.from_stored(plain, str(self.store.path))
            self.expected.check(schema, self.store)
            codec = Codec(schema)
            layout, where = snapshot.meta("layout"), str(self.store.path)
            grouping = stored_grouping(layout, snapshot.some_values, codec, self._capacity, where)
            self._use(codec, grouping)

    def grouping_of(self, schema: Schema) -> Grouping:
        """Return how the records of a schema share values, also before it is adopted."""
        return new_grouping(schema) if self.schema is None else self._grouping

    def schema_facts(self) -> dict[str, object]:
        """Return the entries of a store that describe the schema; {} before there is one."""
        return {} if self.schema is None else schema_facts(self.schema, self._grouping)

    def _use(self, codec: Codec, grouping: Grouping) -> None:
        self._codec = codec
        self._grouping = grouping
        self.window = new_window(codec.schema, self._capacity, self._window_bytes)
        self.chunk_rows = max(1, _CHUNK_BYTES // codec.record_bytes)
        self.most_pending = min(self.window.rows, max(1, COMMIT_BYTES // codec.record_bytes))
        self.schema = codec.schema

    # Sizes

    @property
    def nbytes(self) -> int:
        """The memory of the window and of the remembered places of values, in bytes."""
        if self.schema is None:
            return 0
        return self.window.nbytes + self._grouping.places_nbytes(self._capacity)

    def record_bytes(self, n: int) -> int:
        """Return the bytes of n records, at most one for each slot."""
        return min(n, self._capacity) * self._codec.record_bytes if self.schema else 0

    def check_count(self, snapshot: Snapshot, live: LiveRange) -> None:
        """Raise DamageError if the store has fewer records than live transitions."""
        if self.schema is None:
            if live.count:
                raise DamageError(f"the schema of {self.store.path} is missing: {_REPAIR}")
            return
        needed = self._grouping.live_groups(live.first, live.count, live.capacity)
        found = snapshot.entries("transitions")
        if needed > found:
            values = "records" if self._grouping.per_value == 1 else "groups of records"
            raise DamageError(
                f"{self.store.path} has {found} {values} (expected {needed} or more): {_REPAIR}"
            )

    # Writing

    def drop_from(self, write_id: int) -> None:
        """Remove the rows from a write id on: a refused call may have left some in the window."""
        if self.schema is not None:
            self.window.drop_from(write_id)

    def uncommitted(self, first: int, count: int) -> Iterator[tuple[int, Columns]]:
        """Yield the rows [first, count) from the window in chunks, each with its first write id."""
        if first < count:
            yield from self.window.chunks(first, count, self.chunk_rows)

    def with_write_ids(
        self, parts: Iterable[Columns], first: int, count: int
    ) -> Iterator[tuple[int, Columns]]:
        """Yield rows from write id `first` on in chunks, without those evicted at `count`."""
        oldest = count - self._capacity
        for columns in parts:
            n = len(columns[0])
            for at in range(max(0, oldest - first), n, self.chunk_rows):
                yield first + at, [column[at : at + self.chunk_rows] for column in columns]
            first += n

    def put(self, txn: Transaction, rows: Iterable[tuple[int, Columns]]) -> None:
        """Write rows in a transaction, and the schema if the store has none."""
        for first, columns in rows:
            if self._grouping.per_value == 1 and self._codec.record_bytes > _WRITTEN_ALONE:
                one_by_one = self._codec.encode_one_by_one(columns, first)
                txn.put_one_by_one(self._capacity, first, len(columns[0]), one_by_one)
            else:
                records = self._codec.encode(columns, first)
                txn.put_records(self._capacity, first, records, self._grouping)
        if self.schema is not None and not (txn.has("schema") and txn.has("layout")):
            txn.put_meta(self.schema_facts())

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
        columns = self._codec.schema.empty_columns(write_ids.size, fields) if out is None else out
        held = self.window.take(columns, write_ids, fields)
        if not held.all():
            missing = None if not held.any() else np.flatnonzero(~held)
            wanted = write_ids if missing is None else write_ids[missing]
            self.read_into(columns, missing, wanted, snapshot, fields)
            if fields is None and self.window.keeps_read_rows:
                found = columns if missing is None else [column[missing] for column in columns]
                self.window.write_below(wanted, found, committed)
        return columns

    def read_into(
        self,
        columns: Columns,
        places: Ints | None,
        write_ids: Ints,
        snapshot: Snapshot | None = None,
        fields: Sequence[int] | None = None,
    ) -> None:
        """Read committed rows from the store into columns, see `Codec.decode_into`."""
        slots = write_ids % self._capacity
        with contextlib.nullcontext(snapshot) if snapshot else self.store.snapshot() as view:
            try:
                try:
                    records = view.remembered_records(slots, self._grouping)
                    self._codec.decode_into(columns, places, records, write_ids, slots, fields)
                except DamageError:  # look each value up again: the place may be what is wrong
                    records = view.records(slots, self._grouping)
                    self._codec.decode_into(columns, places, records, write_ids, slots, fields)
            except DamageError as error:
                raise DamageError(
                    f"{error}, in {self.store.path}: on_damage='skip' draws batches without "
                    "it, and diskreplay.repair() copies the others"
                ) from None

    def take_uncommitted(self, columns: Columns, write_ids: Ints, committed: int) -> Ints:
        """Copy the rows from `committed` on, which are in the window; return the others' places."""
        is_new = write_ids >= committed
        places = np.flatnonzero(is_new)
        if places.size:
            new = self._codec.schema.empty_columns(places.size)
            self.window.take(new, write_ids[places])
            for column, values in zip(columns, new, strict=True):
                column[places] = values
        return np.flatnonzero(~is_new)

    def damaged(self, write_ids: Ints, snapshot: Snapshot | None) -> Ints:
        """Return the live write ids whose record in the store is damaged."""
        held = self.window.holds(write_ids)
        wanted = np.unique(write_ids[~held])
        slots = wanted % self._capacity
        with contextlib.nullcontext(snapshot) if snapshot else self.store.snapshot() as view:
            return wanted[~self._codec.sound(view.records(slots, self._grouping), wanted)]

    def chunks(self, live: LiveRange, snapshot: Snapshot) -> Iterator[Columns]:
        """Yield the rows of a live range, oldest first, a chunk at a time."""
        for write_ids in self._chunked(live):
            yield self.fetch(write_ids, live.count, snapshot)

    def faults(self, live: LiveRange, snapshot: Snapshot) -> list[str]:
        """Return one sentence for each damaged record of a live range."""
        found: list[str] = []
        for write_ids in self._chunked(live):
            slots = write_ids % self._capacity
            records = snapshot.records(slots, self._grouping)
            found += self._codec.faults(records, write_ids, slots)
        return found

    def _chunked(self, live: LiveRange) -> Iterator[Ints]:
        for first in range(live.first, live.count, self.chunk_rows if live.size else 1):
            yield np.arange(first, min(first + self.chunk_rows, live.count))
