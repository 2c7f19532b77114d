"""Window: the cache of rows in memory by write id: all uncommitted rows, and some others.

The row of a write id has one possible place, `write_id % rows`. The content of a write id never
changes, so a row in the window never becomes wrong and is never invalidated::

    rows = 4, owners = [8, 5, 6, 7]     write ids 5..8 are held; 9 will take the place of 5

A small row is contiguous in memory with its owner in front, so that one copy writes or reads the
row. Of large rows each field has an array of its own, as in a buffer in memory. Values that vary in
size are objects, of which a window holds the newest, up to a number of bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from diskreplay.aliases import Array, Bools, Columns, Ints
from diskreplay.buffer.stored_rows import RowsPart
from diskreplay.errors import ArgumentError, DamageError
from diskreplay.records import LARGE_ROW
from diskreplay.schema import Schema

Fields: TypeAlias = tuple[int, ...]  # places of fields in the schema

DEFAULT_WINDOW_BYTES = 256 << 20
MIN_ROWS = 64
_BEGIN_BYTES = 8
_OWNER = "owner"  # the write id + 1; 0 in a row without content
# The most bytes of packed values that wait for a commit; a window has room for them at least.
PACKED_COMMIT_BYTES = 8 << 20
_CODES = {  # format characters of the module struct, by numpy dtype
    "b1": "?", "u1": "B", "u2": "H", "u4": "I", "u8": "Q",
    "i1": "b", "i2": "h", "i4": "i", "i8": "q", "f2": "e", "f4": "f", "f8": "d",
}  # fmt: skip


@lru_cache(maxsize=64)
def _row_dtype(schema: Schema) -> np.dtype[Any]:
    """Return the layout of a row: the owner, then the fields in their order, aligned."""
    fields: list[Any] = [(_name(i), *f.in_column) for i, f in enumerate(schema.fields)]
    return np.dtype([(_OWNER, np.int64), *fields], align=True)


def window_row_bytes(schema: Schema) -> int:
    """Return the bytes of a row in a window; of one with packed values, as many again for these."""
    row_bytes = _row_dtype(schema).itemsize
    return 2 * (row_bytes + _BEGIN_BYTES) if schema.varying else row_bytes


def window_rows(schema: Schema, capacity: int, window_bytes: int) -> int:
    """Return how many rows a window of this size holds."""
    return min(capacity, max(MIN_ROWS, window_bytes // window_row_bytes(schema)))


def window_nbytes(schema: Schema, capacity: int, window_bytes: int) -> int:
    """Return the memory that a full window takes, in bytes."""
    rows = window_rows(schema, capacity, window_bytes)
    if not schema.varying:
        return rows * window_row_bytes(schema)
    of_rows = rows * window_row_bytes(schema) // 2
    return of_rows + max(PACKED_COMMIT_BYTES, window_bytes - of_rows)


def new_window(schema: Schema, capacity: int, window_bytes: int) -> Window:
    """Return a window of at most `window_bytes`, but of at least 64 rows.

    Raises ArgumentError if there is not so much memory.
    """
    kind = Window if _row_dtype(schema).itemsize > LARGE_ROW else PackedWindow
    if schema.varying:
        kind = ObjectWindow
    try:
        return kind(schema, capacity, window_bytes)
    except (MemoryError, ValueError):
        rows = window_rows(schema, capacity, window_bytes)
        raise ArgumentError(
            f"window_bytes is more memory than there is: {rows} rows of {schema.payload_bytes} "
            f"bytes (found {window_bytes}): choose a smaller one"
        ) from None


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


class _Span(NamedTuple):
    """A part of each row: the bytes from the first of some fields to the last of them.

    memory:  the part of each row as bytes, which numpy gathers faster than several fields
    dtype:   of the part
    """

    memory: NDArray[np.void]
    dtype: np.dtype[Any]

    @classmethod
    def of(cls, rows: NDArray[Any], fields: Fields) -> _Span:
        """Return the part with some fields of rows."""
        layout: Any = rows.dtype.fields
        names = [_name(index) for index in fields]
        begin = min(layout[name][1] for name in names)
        size = max(layout[name][1] + layout[name][0].itemsize for name in names) - begin
        offsets = [layout[name][1] - begin for name in names]
        formats = [layout[name][0] for name in names]
        dtype = np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": size})
        memory: Any = rows.view(np.uint8).data
        return cls(np.ndarray(rows.shape, f"V{size}", memory, begin, rows.strides), dtype)


class PackedWindow(Window):
    """A window in whose memory each row is contiguous, with its owner in front: for small rows."""

    def _make_arrays(self, schema: Schema) -> None:
        dtype = _row_dtype(schema)
        memory = np.zeros(self.rows * dtype.itemsize, np.uint8)
        self.keeps_read_rows = True
        self._row_bytes = dtype.itemsize
        self._memory = memory.data
        self._rows = memory.view(dtype)
        self._owners = self._rows[_OWNER]
        self._columns = [self._rows[_name(i)] for i in range(len(schema.fields))]
        # A `done` with a shape stays as it is, since bytes do not say whether it is true.
        self._arrays = [i for i, f in enumerate(schema.fields) if f.shape and f.name != "done"]
        self._numbers = [i for i, field in enumerate(schema.fields) if not field.shape]
        self._pack = _packer(schema)
        self._spans: dict[Fields, _Span] = {}

    def prepared(self, values: list[Any]) -> list[Any]:
        """Return a row, as a schema accepted it, with the bytes of arrays."""
        plain = values.copy()
        for index in self._arrays:
            plain[index] = plain[index].tobytes()
        if np.ndarray in map(type, plain):  # numbers that were converted
            for index in self._numbers:
                if type(value := plain[index]) is np.ndarray:
                    # The bits of NaN would not survive a number of Python.
                    plain[index] = value.item() if value == value else value.tobytes()
        return plain

    def write_row(self, write_id: int, values: Sequence[Any]) -> None:
        """Write one prepared row in place of an older one."""
        try:  # one call, which no interrupt cuts in two
            at = write_id % self.rows * self._row_bytes
            self._pack(self._memory, at, write_id + 1, *values)
        except (struct.error, TypeError):
            # A number of a type that struct does not know, or the bytes of NaN.
            columns = zip(values, self._columns, strict=True)
            self.write(write_id, [_as_column(value, column) for value, column in columns])

    def _write_at(self, places: Ints, write_ids: Ints, columns: Columns) -> None:
        found = np.empty(write_ids.size, self._rows.dtype)
        found[_OWNER] = write_ids + 1
        for index, values in enumerate(columns):
            found[_name(index)] = values
        self._rows[places] = found

    def take(self, columns: Columns, write_ids: Ints, fields: Sequence[int] | None = None) -> Bools:
        """Copy the rows that are held into columns, see Window."""
        # A window that is smaller than the batch holds little of it, if anything.
        if fields is None and self.rows >= write_ids.size:
            # Rows copied whole and then cut: faster than a gathering of each field (measured).
            rows, held = self._whole(write_ids)
            if held.any():
                for index, column in enumerate(columns):
                    column[...] = rows[_name(index)]
            return held
        held = self.holds(write_ids)
        chosen = tuple(range(len(columns)) if fields is None else fields)
        if chosen and held.any():
            self._copy(columns, write_ids % self.rows, chosen)
        return held

    def take_chains(
        self, columns: Columns, write_ids: Ints, first: Fields, last: Fields, of_all: int
    ) -> Array | None:
        """Copy fields of the ends of chains into columns, and return another one of all rows.

        Returns None, and copies nothing, where a row is not held or there are too many rows.

        columns:      of all fields
        write_ids:    int64 (steps, n), of n chains
        first, last:  the fields that are copied of the first rows of chains, and of the last ones
        of_all:       the field of all rows that is returned, as (steps, n)
        """
        if write_ids.size > self.rows:
            return None  # it holds few of them, if any
        places = write_ids % self.rows
        if not (self._owners[places] == write_ids + 1).all():
            return None
        for fields, of_step in ((first, places[0]), (last, places[-1])):
            self._copy([columns[index] for index in fields], of_step, fields)
        found: Array = self._columns[of_all][places]
        return found

    def _copy(self, columns: Columns, places: Ints, fields: Fields) -> None:
        """Copy fields of the rows at some places into columns."""
        if fields not in self._spans:
            self._spans[fields] = _Span.of(self._rows, fields)
        memory, dtype = self._spans[fields]
        rows = memory[places].view(dtype)
        for name, column in zip(dtype.names or (), columns, strict=True):
            column[...] = rows[name]

    def _whole(self, write_ids: Ints) -> tuple[NDArray[np.void], Bools]:
        """Return copies of the rows at the places of write ids, and which of these are held."""
        places = write_ids % self.rows
        rows = self._rows.view(f"V{self._row_bytes}").take(places).view(self._rows.dtype)
        return rows, rows[_OWNER] == write_ids + 1


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


def _as_column(value: Any, column: Array) -> Array:
    """Return a value of a prepared row as a part of a column, of one row."""
    if type(value) is bytes:
        return np.ndarray((1, *column.shape[1:]), column.dtype, value)
    return np.asarray(value, column.dtype)[None]


def _name(index: int) -> str:
    return f"field {index}"


def _packer(schema: Schema) -> Any:
    """Return the function of `struct` that writes a row: owner, numbers, and arrays as bytes."""
    dtype, at, form = _row_dtype(schema), 0, "="
    places: Any = dtype.fields
    for field, offset in (places[name][:2] for name in dtype.names or ()):
        code = None if field.subdtype else _CODES.get(field.str[1:])
        form += f"{offset - at}x{code or f'{field.itemsize}s'}"
        at = offset + field.itemsize
    return struct.Struct(f"{form}{dtype.itemsize - at}x").pack_into
