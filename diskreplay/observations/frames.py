"""Frames: the values of the fields in the log as rows of bytes, and back.

A value of a field with a frame axis is a stack of frames, any other value is one frame. Fields
whose frames have the same size and the same codec share a kind: their frames can be equal, as those
of `state` and `next_state` are::

    state      uint8 (4, 84, 84), frame axis 0    four frames of 7056 bytes    kind 0
    next_state uint8 (4, 84, 84), frame axis 0    four frames of 7056 bytes    kind 0
    map        float32 (10,)                      one frame of 40 bytes        kind 1

A packed value, of a field that varies in size, is one frame too, whose size is not known before.
The kind of such frames is the type of their field, and their codec.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from diskreplay.aliases import Array, Bools, Columns, Ints
from diskreplay.observations.packed_compression import PackedCompression
from diskreplay.records import Compression, codec_named
from diskreplay.schema import MAX_VALUE_BYTES, Field, Schema

_LARGE_STACK = 8192  # bytes

Bytes = NDArray[np.uint8]
Frame: TypeAlias = bytes | bytearray | memoryview  # one of bytes is a packed value


class FrameKind(NamedTuple):
    """The frames of one size and one codec, or the packed values of one type and one codec.

    nbytes:  of a frame; the most of a packed value
    packed:  a field of the type, of packed values; None for frames of one size
    """

    codec: str | None
    nbytes: int
    packed: Field | None = None

    @property
    def compression(self) -> Compression:
        """The compression of the frames, which also checks packed values."""
        codec = codec_named(self.codec)
        return codec if self.packed is None else PackedCompression(codec, self.packed)


class LoggedField(NamedTuple):
    """A field in the log.

    A next state repeats the state of its own row, moved on by a frame. A state repeats the next
    state of the row before it.

    place:      in the schema
    kind:       the number of the kind of its frames
    source:     the place, among the fields in the log, of the field that it repeats; -1 for none
    shift:      the first frame there that it repeats; 0 in the row before it
    is_source:  whether another field repeats it
    """

    place: int
    field: Field
    kind: int
    source: int = -1
    shift: int = 0
    is_source: bool = False

    def frames_of(self, column: Array) -> Bytes:
        """Return n values as the bytes of their frames, uint8 (n, frames, frame_bytes).

        They are of one size; packed values are their bytes already.
        """
        field, n = self.field, len(column)
        if field.frame_axis:
            column = np.moveaxis(column, 1 + field.frame_axis, 1)
        column = np.ascontiguousarray(column, field.dtype.newbyteorder("<"))
        if not field.frame_bytes:
            return np.zeros((n, field.frames, 0), np.uint8)
        return column.reshape(n, field.frames, -1).view(np.uint8)

    def stack_of(self, value: Any) -> Frame:
        """Return the bytes of a value, the frames one after the other."""
        if (stack := self.stack_in(value)) is not None:
            return stack
        return self.frames_of(np.asarray(value, self.field.dtype)[None]).reshape(-1).data

    def stack_in(self, value: Any) -> memoryview | None:
        """Return the bytes of a value where they lie, None if these are not those of `stack_of`."""
        is_array = type(value) is np.ndarray and value.dtype == self.field.little_endian
        if is_array and value.size and not self.field.frame_axis and value.flags.c_contiguous:
            return memoryview(value).cast("B")
        return None

    @property
    def has_large_stacks(self) -> bool:
        """Whether values are copied one by one in less time than by a gathering of numpy."""
        return self.field.payload_bytes >= _LARGE_STACK and not self.field.frame_axis

    def write(self, column: Array, places: Ints | None, source: Bytes, rows: Ints) -> None:
        """Write values into a column, each frame as a row of a source.

        column:  C-contiguous, of the field's type
        places:  int64 (n,), the place of each value in the column; None means all, in order
        source:  uint8 (m, frame_bytes)
        rows:    int64 (n, frames), the row of each frame in the source
        """
        field = self.field
        if not field.frame_bytes or not rows.size:
            return
        if places is None and not field.frame_axis:
            target = column.reshape(rows.size, -1).view(np.uint8)
            # The mode spares numpy a copy: all rows are in range.
            np.take(source, rows.reshape(-1), axis=0, out=target, mode="clip")
            return
        found = source.take(rows.reshape(-1), axis=0).view(field.dtype.newbyteorder("<"))
        values = found.reshape(*rows.shape, *field.frame_shape)
        if field.frame_axis:
            values = np.moveaxis(values, 1, 1 + field.frame_axis)
        column[slice(None) if places is None else places] = values.reshape(-1, *field.shape)


class LoggedFields:
    """The fields of a schema that are in the log, and the kinds of their frames.

    >>> frame = {"dtype": "u1", "shape": (4, 84, 84), "frame_axis": 0}
    >>> fields = [Field("state", **frame), Field("action", "i8"), Field("reward", "f4"),
    ...           Field("next_state", **frame), Field("done", "f4")]
    >>> logged = LoggedFields(Schema(fields))
    >>> logged.kinds, logged.frames_in_row
    ([FrameKind(codec=None, nbytes=7056, packed=None)], 8)
    """

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.kinds: list[FrameKind] = []
        self.fields: list[LoggedField] = []
        for place in schema.logged:
            field = schema.fields[place]
            kind = FrameKind(field.codec, field.frame_bytes)
            if field.varies:
                packed = Field.stored("value", field.dtype, field.shape)
                kind = FrameKind(field.codec, MAX_VALUE_BYTES, packed)
            if kind not in self.kinds:
                self.kinds.append(kind)
            self.fields.append(LoggedField(place, field, self.kinds.index(kind)))
        self.frames_in_row = sum(logged.field.frames for logged in self.fields)
        sources = [self._source(place) for place in range(len(self.fields))]
        self.fields = [
            logged._replace(source=source, shift=int(source < place), is_source=place in sources)
            if source >= 0
            else logged
            for place, (logged, source) in enumerate(zip(self.fields, sources, strict=True))
        ]

    def _source(self, place: int) -> int:
        logged = self.fields[place]
        names = [logged.field.name for logged in self.fields]
        name = logged.field.name
        partner = name.removeprefix("next_") if name.startswith("next_") else f"next_{name}"
        other = names.index(partner) if partner in names else place
        theirs = self.fields[other]
        fits = other != place and theirs.kind == logged.kind
        fits = fits and theirs.field.frames == logged.field.frames > int(other < place)
        return other if fits and logged.field.frame_bytes else -1

    def stacks_of(self, columns: Columns) -> list[Any]:
        """Return, for each logged field, the bytes of the values in columns."""
        return [
            columns[logged.place]
            if logged.field.varies
            else [value.reshape(-1).data for value in logged.frames_of(columns[logged.place])]
            for logged in self.fields
        ]

    def record_with(self, row: Sequence[Any], ids: Sequence[list[int]]) -> list[Any]:
        """Return a row with observation ids in place of the values in the log."""
        record = list(row)
        for logged, of_field in zip(self.fields, ids, strict=True):
            is_stack = logged.field.frame_axis is not None
            record[logged.place] = array("q", of_field) if is_stack else of_field[0]
        return record

    def records_with(self, columns: Columns, ids: Sequence[list[list[int]]]) -> Columns:
        """Return columns with observation ids in place of the values in the log.

        ids:  of each row, of each logged field
        """
        records = list(columns)
        for at, logged in enumerate(self.fields):
            of_field = np.array([of_row[at] for of_row in ids], np.int64)
            shape = self.schema.record_schema.fields[logged.place].shape
            records[logged.place] = of_field.reshape(len(ids), *shape)
        return records

    def new_in_a_step(self) -> list[Field]:
        """Return the fields of which a step has a new frame: a next state is the next state's."""
        names = {logged.field.name for logged in self.fields}
        return [
            logged.field
            for logged in self.fields
            if logged.field.name.removeprefix("next_") == logged.field.name
            or logged.field.name.removeprefix("next_") not in names
        ]

    def of_kind(self, kind: int, fields: Any = None) -> list[LoggedField]:
        """Return the fields of a kind, of all or of some places in the schema."""
        return [
            logged
            for logged in self.fields
            if logged.kind == kind and (fields is None or logged.place in fields)
        ]


def are_equal(frames: Bytes, others: Bytes) -> Bools:
    """Return which rows have the same frames."""
    nbytes = frames.shape[-1]
    if not nbytes or not len(frames):
        return np.zeros(len(frames), np.bool_)
    width = next(width for width in (8, 4, 2, 1) if nbytes % width == 0)
    equal = frames.view(f"u{width}") == others.view(f"u{width}")
    found: Bools = equal.all(axis=(1, 2))
    return found
