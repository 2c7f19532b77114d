"""RecordWindow: the window of large rows whose observations are in the log, as their records.

A record has the ids of its observations, and the observation window has their frames, each once. So
a push copies what is new, and the window has room for several times as many rows. A row is held as
long as its record and all of its frames are; those of a row that waits for a commit stay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from diskreplay.aliases import Bools, Columns, Ints
from diskreplay.buffer.new_window import new_window
from diskreplay.buffer.stored_rows import RowsPart
from diskreplay.observations import LoggedRows
from diskreplay.schema import Schema


class RecordWindow:
    """A cache of rows by write id with the methods of a Window; whole rows go in and come out.

    Rows that were read do not come here, only rows that were pushed.

    open_log:  opens `logged.waiting` behind the log of the last commit
    """

    keeps_read_rows = False
    most_packed = 0

    def __init__(
        self,
        schema: Schema,
        capacity: int,
        window_bytes: int,
        logged: LoggedRows,
        open_log: Callable[[], None],
    ) -> None:
        self._schema = schema.record_schema
        self._records = new_window(self._schema, capacity, window_bytes)
        self._logged, self._waiting = logged, logged.waiting
        self._open_log = open_log
        self.rows, self.nbytes = self._records.rows, self._records.nbytes

    def prepared(self, values: list[Any]) -> list[Any]:
        """Return a row, as a schema accepted it, in the form that `write_row` takes."""
        return self._waiting.prepared(values)

    def write_row(self, write_id: int, values: Sequence[Any]) -> None:
        """Write one prepared row in place of an older one."""
        if not self._waiting.is_open:
            self._open_log()
        record = self._waiting.record_of(values)
        self._records.write_row(write_id, self._records.prepared(record))

    def write(self, first: int, columns: Columns) -> None:
        """Write rows of consecutive write ids, which fit."""
        if not self._waiting.is_open:
            self._open_log()
        self._records.write(first, self._waiting.records_of(columns))

    def write_below(self, write_ids: Ints, columns: Columns, limit: int) -> None:
        """Do nothing: rows that were read do not come here."""

    def holds(self, write_ids: Ints) -> Bools:
        """Return which of the write ids are held."""
        records = self._schema.empty_columns(write_ids.size)
        return self._held(records, write_ids, None)

    def packed_since(self, write_id: int) -> int:
        """Return 0: no values vary in size."""
        return 0

    def drop_from(self, write_id: int) -> None:
        """Remove the rows from a write id on: a refused call may have left some."""
        self._records.drop_from(write_id)

    def take(self, columns: Columns, write_ids: Ints, fields: Sequence[int] | None = None) -> Bools:
        """Copy the rows that are held into columns, see Window."""
        records = self._schema.empty_columns(write_ids.size, fields)
        held = self._held(records, write_ids, fields)
        if held.any():
            places = None if held.all() else np.flatnonzero(held)
            found = records if places is None else [column[places] for column in records]
            self._logged.take(columns, places, found, fields)
        return held

    def take_parts(self, parts: Sequence[RowsPart]) -> list[Bools]:
        """Copy the rows that are held into the columns of some parts, see `take`."""
        return [self.take(part.columns, part.write_ids, part.fields) for part in parts]

    def _held(self, records: Columns, write_ids: Ints, fields: Sequence[int] | None) -> Bools:
        """Read records into columns, and return which rows are held."""
        held = self._records.take(records, write_ids, fields)
        if held.all():
            return self._logged.holds(records, fields)
        places = np.flatnonzero(held)
        held[places] = self._logged.holds([column[places] for column in records], fields)
        return held

    def chunks(self, first: int, end: int, size: int) -> Iterator[tuple[int, Columns]]:
        """Yield the records of the rows [first, end), see Window."""
        return self._records.chunks(first, end, size)
