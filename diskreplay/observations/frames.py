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

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from diskreplay.aliases import Array, Ints
from diskreplay.observations.packed_compression import PackedCompression
from diskreplay.records import Compression, codec_named
from diskreplay.schema import MAX_VALUE_BYTES, Field, Schema

Bytes = NDArray[np.uint8]


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
    """A field in the log, its place in the schema, and the number of the kind of its frames."""

    place: int
    field: Field
    kind: int

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


class StackCopy(NamedTuple):
    """The rows whose stack begins with frames of another stack.

    field:      the place of the other field among those in the log
    rows_back:  how many rows before this one it is
    shift:      the first of its frames that is repeated
    found:      which rows are so
    """

    field: int
    rows_back: int
    shift: int
    found: list[bool]


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

    def stack_copies(self, frames: Sequence[Bytes | None]) -> list[StackCopy | None]:
        """Return, for each field, the rows that repeat what environments repeat.

        A state is the next state of the row before. A next state is the state of its own row, moved
        on by a frame. Other repetitions are found one frame at a time, which takes longer.

        frames:  of each field, uint8 (n, frames, frame_bytes); None of packed values
        """
        copies: list[StackCopy | None] = []
        names = [logged.field.name for logged in self.fields]
        for place, (_, field, kind) in enumerate(self.fields):
            name = field.name
            partner = name.removeprefix("next_") if name.startswith("next_") else f"next_{name}"
            other = names.index(partner) if partner in names else place
            own, theirs = frames[place], frames[other]
            n = field.frames
            is_alone = other == place or self.fields[other].kind != kind
            if is_alone or own is None or theirs is None or theirs.shape != own.shape:
                copies.append(None)
            elif other < place:  # the shift of a single frame would leave nothing to compare
                found = _are_equal(own[:, : n - 1], theirs[:, 1:]) if n > 1 else [False] * len(own)
                copies.append(StackCopy(other, 0, 1, found))
            else:
                copies.append(StackCopy(other, 1, 0, [False, *_are_equal(own[1:], theirs[:-1])]))
        return copies

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


def _are_equal(frames: Bytes, others: Bytes) -> list[bool]:
    """Return which rows have the same frames."""
    nbytes = frames.shape[-1]
    if not nbytes or not len(frames):
        return [False] * len(frames)
    width = next(width for width in (8, 4, 2, 1) if nbytes % width == 0)
    equal = frames.view(f"u{width}") == others.view(f"u{width}")
    found: list[bool] = equal.all(axis=(1, 2)).tolist()
    return found
