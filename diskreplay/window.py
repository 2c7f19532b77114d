"""Window: columns in memory for rows not yet committed and for recently read rows.

The row of a write id has one possible place, `write_id % rows`. What belongs to a write id never
changes, so a row that is held is right for ever and nothing has to be invalidated::

    rows = 4, owners = [8, 5, 6, 7]     write ids 5..8 are held; 9 will take the place of 5
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diskreplay.errors import ArgumentError
from diskreplay.schema import Array, Schema

Ints = NDArray[np.int64]

_OWNER_BYTES = 8
MIN_ROWS = 64


def window_rows(schema: Schema, capacity: int, window_bytes: int) -> int:
    """Return how many rows a window of this much memory holds."""
    affordable = window_bytes // (schema.payload_bytes + _OWNER_BYTES)
    return min(capacity, max(MIN_ROWS, affordable))


class Window:
    """Rows by write id, in at most `window_bytes` of memory, but never fewer than 64 rows.

    Memory is taken from the operating system as the rows fill.
    """

    def __init__(self, schema: Schema, capacity: int, window_bytes: int) -> None:
        self.rows = window_rows(schema, capacity, window_bytes)
        try:
            self._columns = [np.zeros((self.rows, *f.shape), f.dtype) for f in schema.fields]
            self._owners = np.zeros(self.rows, np.int64)  # the write id + 1; 0 is nobody
        except MemoryError:
            raise ArgumentError(
                f"window_bytes is more memory than there is: {self.rows} rows of "
                f"{schema.payload_bytes} bytes (found {window_bytes}): choose a smaller one"
            ) from None

    @property
    def nbytes(self) -> int:
        """The memory that a full window takes, in bytes."""
        return self._owners.nbytes + sum(column.nbytes for column in self._columns)

    def write_row(self, write_id: int, values: Sequence[Any]) -> None:
        """Hold one row, in place of whichever had its place."""
        row = write_id % self.rows
        self._owners[row] = 0  # an interrupt on the way leaves a row of nobody, not a mixed one
        for column, value in zip(self._columns, values, strict=True):
            column[row] = value
        self._owners[row] = write_id + 1

    def write(self, write_ids: Ints, columns: Sequence[Array]) -> None:
        """Hold many rows; of several with one place the last stays."""
        rows = write_ids % self.rows
        self._owners[rows] = 0
        for column, values in zip(self._columns, columns, strict=True):
            column[rows] = values
        self._owners[rows] = write_ids + 1

    def write_below(self, write_ids: Ints, columns: Sequence[Array], limit: int) -> None:
        """Hold rows as `write` does, but take no place from a write id of `limit` or above."""
        free = self._owners[write_ids % self.rows] <= limit
        if free.all():
            self.write(write_ids, columns)
        else:
            self.write(write_ids[free], [values[free] for values in columns])

    def drop_from(self, write_id: int) -> None:
        """Hold no row of this write id or a later one: a refused call may have left some."""
        self._owners[self._owners > write_id] = 0

    def take(self, write_ids: Ints) -> tuple[list[Array], NDArray[np.bool_]]:
        """Return fresh columns for the write ids, and which of them are held.

        The values of those that are not held are arbitrary, for the caller to fill in.
        """
        rows = write_ids % self.rows
        held = self._owners.take(rows) == write_ids + 1
        return [column.take(rows, axis=0) for column in self._columns], held

    def chunks(self, first: int, end: int, size: int) -> Iterator[tuple[int, list[Array]]]:
        """Yield (write id of the first row, columns) over held rows [first, end), without copying.

        A chunk has at most `size` rows.
        """
        while first < end:
            row = first % self.rows
            n = min(size, end - first, self.rows - row)
            yield first, [column[row : row + n] for column in self._columns]
            first += n
