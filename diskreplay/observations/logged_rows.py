"""LoggedRows: the observations of the rows of one store, read from the log and written to it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from diskreplay.aliases import Array, Bools, Columns, Ints
from diskreplay.errors import DamageError
from diskreplay.observations.batch_frames import Frames, put_frames
from diskreplay.observations.frames import LoggedFields
from diskreplay.observations.observation_ids import ObservationIds
from diskreplay.observations.observation_reader import ObservationReader, no_values
from diskreplay.observations.observation_window import ObservationWindow
from diskreplay.observations.observation_writer import ObservationWriter
from diskreplay.observations.waiting_observations import WaitingObservations
from diskreplay.records import ALONE, Layout, layout_of
from diskreplay.schema import Schema
from diskreplay.store import ObservationRange, Snapshot, Transaction


class LoggedRows:
    """Turns records with observation ids into rows, and rows into such records.

    window_bytes:  memory for frames
    where:         the path of the store, for messages
    """

    def __init__(self, schema: Schema, capacity: int, window_bytes: int, where: str) -> None:
        self._logged = logged = LoggedFields(schema)
        self._where = where
        self._schema = schema
        self._window = ObservationWindow(logged, capacity, window_bytes)
        self._reader = ObservationReader(logged, self._window)
        ids = ObservationIds(logged, self._reader)
        self._writer = ObservationWriter(logged, self._reader, ids, capacity)
        self.waiting = WaitingObservations(logged, self._reader, ids, capacity)
        self.nbytes = self._window.nbytes

    # Reading

    def holds(self, records: Columns, fields: Sequence[int] | None) -> Bools:
        """Return which rows have all their frames in the window.

        records:  the columns of their records, of all fields or of some
        """
        held = np.ones(len(records[0]), np.bool_)
        chosen = list(range(len(records)) if fields is None else fields)
        for logged in self._logged.fields:
            if logged.place in chosen:
                ids = records[chosen.index(logged.place)].reshape(held.size, logged.field.frames)
                held &= self._window.holds(logged.kind, ids).all(axis=1)
        return held

    def take(
        self, columns: Columns, places: Ints | None, records: Columns, fields: Sequence[int] | None
    ) -> None:
        """Write rows into columns whose frames are all in the window, as `read_into` does."""
        chosen = range(len(columns)) if fields is None else fields
        for index, column, values in zip(chosen, columns, records, strict=True):
            if not self._schema.fields[index].log:
                column[slice(None) if places is None else places] = values
        self._reader.read_into(columns, places, records, no_values, fields)

    def read_into(
        self,
        columns: Sequence[Array | Frames],
        places: Ints | None,
        records: Columns,
        write_ids: Ints,
        slots: Ints,
        snapshot: Snapshot,
        fields: Sequence[int] | None,
    ) -> None:
        """Write rows into columns, as `StoredRows.read` does.

        records:  the columns of the records of the same rows and fields
        """
        self._prepare(snapshot)
        chosen = range(len(columns)) if fields is None else fields
        for index, column, values in zip(chosen, columns, records, strict=True):
            if not self._schema.fields[index].log and not isinstance(column, Frames):
                column[slice(None) if places is None else places] = values
        lookup = snapshot.observation_values
        try:
            self._reader.read_into(columns, places, records, lookup, fields)
        except DamageError:
            for ids, faults in self._faults(records, snapshot, chosen):
                for row in np.flatnonzero(np.isin(ids, list(faults)).any(axis=1)).tolist():
                    fault = next(faults[i] for i in ids[row].tolist() if i in faults)
                    raise DamageError(
                        f"the transition of write id {write_ids[row]} in slot {slots[row]} is "
                        f"damaged: {fault}"
                    ) from None
            raise

    def put_whole(self, columns: Sequence[Array | Frames], places: Ints, values: Columns) -> None:
        """Write whole rows into columns; into Frames they are the first to be written.

        places:  int64 (n,), the place of each row in the columns
        values:  of all fields
        """
        for column, of_field in zip(columns, values, strict=True):
            if not isinstance(column, Frames):
                column[places] = of_field
        put_frames(self._logged, columns, places, values)

    def sound(self, records: Columns, snapshot: Snapshot) -> Bools:
        """Return which rows have undamaged observations only.

        records:  the columns of all fields of their records
        """
        self._prepare(snapshot)
        sound = np.ones(len(records[0]), np.bool_)
        for ids, faults in self._faults(records, snapshot, range(len(records))):
            sound &= ~np.isin(ids, list(faults)).any(axis=1)
        return sound

    def faults(self, records: Columns, snapshot: Snapshot) -> list[str]:
        """Return one sentence for each damaged observation of some rows."""
        self._prepare(snapshot)
        found: dict[int, str] = {}
        for _, faults in self._faults(records, snapshot, range(len(records))):
            found |= faults
        return [found[observation_id] for observation_id in sorted(found)]

    def _faults(
        self, records: Columns, snapshot: Snapshot, fields: Sequence[int]
    ) -> Iterator[tuple[Ints, dict[int, str]]]:
        """Yield the observation ids of each logged field, and its damaged observations."""
        for index, values in zip(fields, records, strict=True):
            field = self._schema.fields[index]
            if field.log:
                ids = values.reshape(len(values), field.frames)
                yield ids, self._reader.faults(index, ids, snapshot.observation_values)

    def _prepare(self, snapshot: Snapshot) -> None:
        """Forget what a failed commit has left; read the layout of the log once there is one."""
        self._writer.forget_failed()
        if not self._reader.entries_per_value:
            self._reader.entries_per_value = self._layout(snapshot).entries_per_value

    def _layout(self, snapshot: Snapshot) -> Layout:
        return layout_of(snapshot.meta("layout"), self._where)

    # Writing

    def open_waiting(self, snapshot: Snapshot, found: ObservationRange) -> None:
        """Open `waiting` behind the log that a snapshot has, of this range."""
        self._writer.forget_failed()
        plain = snapshot.meta("layout")
        layout = layout_of(plain, self._where) if plain else Layout(ALONE.per_value)
        self.waiting.open(found, layout, snapshot.observation_values)

    def begin(self, txn: Transaction, found: ObservationRange) -> None:
        """Begin a commit to a log of this range, of rows by `put`."""
        self._layout_before = self._layout(txn)
        self.waiting.take_back()
        self._is_waiting = False
        self._end = self._writer.begin(txn, found, self._layout_before)

    def begin_waiting(self, txn: Transaction, found: ObservationRange) -> None:
        """Begin a commit to a log of this range, of the observations that wait."""
        self._layout_before = self._layout(txn)
        self._is_waiting = True
        self._end = self.waiting.begin(txn, found, self._layout_before)

    def put(self, txn: Transaction, columns: Columns) -> Columns:
        """Put the observations of rows, and return the columns of their records."""
        return self._writer.put(txn, columns)

    def end(self, txn: Transaction, oldest: Columns | None, *, is_empty: bool) -> ObservationRange:
        """Remove the observations that no live row needs, and return the range of the log.

        oldest:    the record of the oldest live row; None where it cannot be read
        is_empty:  whether no row is live
        """
        end = self._end
        if is_empty:
            end.end_empty(txn)
        elif oldest is None:
            end.end(txn, None)
        else:
            ids = [values for index, values in enumerate(oldest) if self._schema.fields[index].log]
            end.end(txn, [int(values.max(initial=-1)) for values in ids])
        return ObservationRange(end.first, end.count)

    @property
    def new_layout(self) -> Layout | None:
        """The layout, if the commit under way decided it."""
        layout = self._end.layout
        return None if layout.entries_per_value == self._layout_before.entries_per_value else layout

    def confirm(self) -> None:
        """Keep the memory of the commit: it was done."""
        if self._is_waiting:
            self.waiting.confirm(self._end)
        else:
            self._writer.confirm()
