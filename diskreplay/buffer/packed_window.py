"""PackedWindow: the window of small rows, each of them contiguous in memory.

The owner is in front, so that one copy writes or reads a row.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from diskreplay.aliases import Array, Bools, Columns, Ints
from diskreplay.buffer.window import Window
from diskreplay.buffer.window_layout import OWNER, Fields, name_of_field, row_dtype
from diskreplay.schema import Schema

_CODES = {  # format characters of the module struct, by numpy dtype
    "b1": "?", "u1": "B", "u2": "H", "u4": "I", "u8": "Q",
    "i1": "b", "i2": "h", "i4": "i", "i8": "q", "f2": "e", "f4": "f", "f8": "d",
}  # fmt: skip


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
        names = [name_of_field(index) for index in fields]
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
        dtype = row_dtype(schema)
        memory = np.zeros(self.rows * dtype.itemsize, np.uint8)
        self.keeps_read_rows = True
        self._row_bytes = dtype.itemsize
        self._memory = memory.data
        self._rows = memory.view(dtype)
        self._owners = self._rows[OWNER]
        self._columns = [self._rows[name_of_field(i)] for i in range(len(schema.fields))]
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
        found[OWNER] = write_ids + 1
        for index, values in enumerate(columns):
            found[name_of_field(index)] = values
        self._rows[places] = found

    def take(self, columns: Columns, write_ids: Ints, fields: Sequence[int] | None = None) -> Bools:
        """Copy the rows that are held into columns, see Window."""
        # A window that is smaller than the batch holds little of it, if anything.
        if fields is None and self.rows >= write_ids.size:
            # Rows copied whole and then cut: faster than a gathering of each field (measured).
            rows, held = self._whole(write_ids)
            if held.any():
                for index, column in enumerate(columns):
                    column[...] = rows[name_of_field(index)]
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
        return rows, rows[OWNER] == write_ids + 1


def _as_column(value: Any, column: Array) -> Array:
    """Return a value of a prepared row as a part of a column, of one row."""
    if type(value) is bytes:
        return np.ndarray((1, *column.shape[1:]), column.dtype, value)
    return np.asarray(value, column.dtype)[None]


def _packer(schema: Schema) -> Any:
    """Return the function of `struct` that writes a row: owner, numbers, and arrays as bytes."""
    dtype, at, form = row_dtype(schema), 0, "="
    places: Any = dtype.fields
    for field, offset in (places[name][:2] for name in dtype.names or ()):
        code = None if field.subdtype else _CODES.get(field.str[1:])
        form += f"{offset - at}x{code or f'{field.itemsize}s'}"
        at = offset + field.itemsize
    return struct.Struct(f"{form}{dtype.itemsize - at}x").pack_into
