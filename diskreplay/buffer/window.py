"""Window: the cache of rows in memory by write id: all uncommitted rows, and some others.

The row of a write id has one possible place, `write_id % rows`. The content of a write id never
changes, so a row in the window never becomes wrong and is never invalidated::

    rows = 4, owners = [8, 5, 6, 7]     write ids 5..8 are held; 9 will take the place of 5

A small row is contiguous in memory with its owner in front, so that one copy writes or reads the
row. Of large rows each field has an array of its own, as in a buffer in memory. Values that vary in
size are objects, of which a window holds the newest, up to a number of bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from diskreplay.aliases import Bools, Columns, Ints
from diskreplay.buffer.stored_rows import RowsPart
from diskreplay.buffer.window_layout import window_nbytes, window_row_bytes, window_rows
from diskreplay.errors import DamageError
from diskreplay.schema import Schema


class Window:
    """A cache of rows by write id, with an array for each field: for large rows.

    Memory is taken from the operating system as the rows fill.

    most_packed:  the most bytes of packed values that it holds
    """

    most_packed = 0

    def __init__(self, schema: Schema, capacity: int, window_bytes: int) -> None:
        self.rows = window_rows(schema, capacity, window_bytes)
        self.nbytes = window_nbytes(schema, capacity, window_bytes)  # when full
        # A large row that is read again comes from the page cache almost as fast as from here, and
        # would be copied once more to get here. So it pays only where all rows stay.
        self.keeps_read_rows = self.rows >= capacity
        self._make_arrays(schema)

    def _make_arrays(self, schema: Schema) -> None:
        self._owners: Ints = np.zeros(self.rows, np.int64)
        self._columns: Columns = [
            np.zeros((self.rows, *shape), dtype)
            for dtype, shape in (field.in_column for field in schema.fields)
        ]

    def prepared(self, values: list[Any]) -> list[Any]:
        """Return a row, as a schema accepted it, in the form that `write_row` takes."""
        return values

    def write_row(self, write_id: int, values: Sequence[Any]) -> None:
        """Write one prepared row in place of an older one."""
        row = write_id % self.rows
        self._owners[row] = 0  # as in `write`
        for column, value in zip(self._columns, values, strict=True):
            column[row] = value
        self._owners[row] = write_id + 1

    def write(self, first: int, columns: Columns) -> None:
        """Write rows of consecutive write ids, at most as many as the window has places."""
        n, row = len(columns[0]), first % self.rows
        if row + n > self.rows:
            at = self.rows - row
            self.write(first, [values[:at] for values in columns])
            self.write(first + at, [values[at:] for values in columns])
            return
        part = slice(row, row + n)
        # Without owners meanwhile: an interrupt leaves rows that nobody reads, not mixed ones.
        self._owners[part] = 0
        for column, values in zip(self._columns, columns, strict=True):
            column[part] = values
        self._owners[part] = np.arange(first + 1, first + n + 1)

    def write_below(self, write_ids: Ints, columns: Columns, limit: int) -> None:
        """Write rows, but replace no row of a write id of `limit` or above.

        Of several rows with one place, the last stays. More rows than the window has places are not
        written at all, since they would replace each other.
        """
        if write_ids.size > self.rows:
            return
        places = write_ids % self.rows
        free = self._owners[places] <= limit
        if not free.all():
            write_ids, places = write_ids[free], places[free]
            columns = [values[free] for values in columns]
        self._write_at(places, write_ids, columns)

    def _write_at(self, places: Ints, write_ids: Ints, columns: Columns) -> None:
        self._owners[places] = 0
        for column, values in zip(self._columns, columns, strict=True):
            column[places] = values
        self._owners[places] = write_ids + 1

    def holds(self, write_ids: Ints) -> Bools:
        """Return which of the write ids are held."""
        held: Bools = self._owners[write_ids % self.rows] == write_ids + 1
        return held

    def packed_since(self, write_id: int) -> int:
        """Return the bytes of packed values in the rows from a write id on, which are held."""
        return 0

    def drop_from(self, write_id: int) -> None:
        """Remove the rows from a write id on: a refused call may have left some."""
        self._owners[self._owners > write_id] = 0

    def take(self, columns: Columns, write_ids: Ints, fields: Sequence[int] | None = None) -> Bools:
        """Copy the rows that are held into columns, and return which of the write ids are held.

        columns:  C-contiguous arrays of the types of all fields or of some; the rows of the write
                  ids that are not held have arbitrary values afterwards
        """
        held = self.holds(write_ids)
        if not held.any():
            return held
        places = write_ids % self.rows
        at = None if held.all() else np.flatnonzero(held)
        chosen = range(len(columns)) if fields is None else fields
        for index, column in zip(chosen, columns, strict=True):
            if at is None:  # the mode spares numpy a copy: all places are in range
                np.take(self._columns[index], places, axis=0, out=column, mode="clip")
            else:
                column[at] = self._columns[index][places[at]]
        return held

    def take_parts(self, parts: Sequence[RowsPart]) -> list[Bools]:
        """Copy the rows that are held into the columns of some parts, see `take`."""
        if not self.holds(np.concatenate([part.write_ids for part in parts])).any():
            return [np.zeros(part.write_ids.size, np.bool_) for part in parts]
        return [self.take(part.columns, part.write_ids, part.fields) for part in parts]

    def chunks(self, first: int, end: int, size: int) -> Iterator[tuple[int, Columns]]:
        """Yield (write id of the first row, columns) over held rows [first, end), without copying.

        A chunk has at most `size` rows. Raises DamageError for a row of another write id.
        """
        while first < end:
            row = first % self.rows
            n = min(size, end - first, self.rows - row)
            if not np.array_equal(self._owners[row : row + n], np.arange(first + 1, first + n + 1)):
                raise DamageError(
                    f"the window does not hold the rows of the write ids [{first}, {first + n}): "
                    "none of them was committed; this is a fault of diskreplay, please report it"
                )
            yield first, [column[row : row + n] for column in self._columns]
            first += n


class ObjectWindow(Window):
    """A window of rows with values that vary in size, which are packed objects in their columns.

    It holds the newest rows, as far as their values take no more than `most_packed` bytes.
    """

    def _make_arrays(self, schema: Schema) -> None:
        super()._make_arrays(schema)
        self.keeps_read_rows = False
        self.most_packed = self.nbytes - self.rows * window_row_bytes(schema) // 2
        self._schema = schema
        # The bytes of all values ever written before a row, by place; and before the next row.
        self._begins: Ints = np.zeros(self.rows, np.int64)
        self._total = 0
        self._oldest = self._end = 0  # write ids: of the rows that are held

    def write_row(self, write_id: int, values: Sequence[Any]) -> None:
        """Write one row, as a schema accepted it, in place of an older one."""
        self._drop_gap(write_id)
        self._begins[write_id % self.rows] = self._total
        super().write_row(write_id, values)
        self._total += self._schema.packed_bytes(values)
        self._drop_oldest(write_id + 1)

    def write(self, first: int, columns: Columns) -> None:
        """Write rows of consecutive write ids."""
        n, row = len(columns[0]), first % self.rows
        if row + n > self.rows:
            super().write(first, columns)  # in two parts, by this method
            return
        self._drop_gap(first)
        ends = self._total + np.cumsum(self._schema.packed_sizes(columns))
        self._begins[row] = self._total
        self._begins[row + 1 : row + n] = ends[:-1]
        super().write(first, columns)
        self._total = int(ends[-1])
        self._drop_oldest(first + n)

    def packed_since(self, write_id: int) -> int:
        """Return the bytes of packed values in the rows from a write id on, which are held."""
        return self._total - int(self._begins[write_id % self.rows]) if write_id < self._end else 0

    def drop_from(self, write_id: int) -> None:
        """Remove the rows from a write id on: a refused call may have left some."""
        super().drop_from(write_id)
        self._end = min(self._end, write_id)
        free = np.flatnonzero(self._owners == 0)
        self._drop_values(free)

    def _drop_gap(self, first: int) -> None:
        """Remove the rows in the places between the last row and the next one to write."""
        if first > self._end:
            self._drop_values(np.arange(max(self._end, first - self.rows), first) % self.rows)
        self._end = max(self._end, first)

    def _drop_oldest(self, end: int) -> None:
        """Remove the oldest rows as far as the values take too many bytes."""
        oldest = max(self._oldest, end - self.rows)
        while oldest < end and self._total - self._begins[oldest % self.rows] > self.most_packed:
            self._drop_values(oldest % self.rows)
            oldest += 1
        self._oldest, self._end = oldest, end

    def _drop_values(self, places: Any) -> None:
        self._owners[places] = 0
        for index in self._schema.varying:
            self._columns[index][places] = None
