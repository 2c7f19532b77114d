"""The frames of a batch: Frames in place of the array of a logged field, for whole stacks later.

The fields of a kind share a FrameMemory, which has each frame of their observations once::

    frames   a b c d e f ...    of states and next states alike
    rows     of the first state 0 1 2 3, of its next state 1 2 3 4
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from diskreplay.aliases import Array, Columns, Ints
from diskreplay.observations.frames import Bytes, LoggedField, LoggedFields, are_equal
from diskreplay.schema import Field

_SIZES = 4  # so many in each multiple of the batch size; JAX compiles a program for each size
ArraySpec: TypeAlias = tuple[np.dtype[Any], tuple[int, ...]]  # dtype and shape


class FrameMemory:
    """The frames of one kind in a batch, as rows of bytes.

    room:    uint8 (m, frame_bytes), with room for the frames of a batch of which all differ
    counts:  int64 (2,): how many frames are of rows in memory; how many there are with those that
             were read. The reading begins anew at the first of these numbers
    step:    the number of frames is rounded up to a multiple of it
    """

    def __init__(self, room: Bytes, counts: Ints, step: int) -> None:
        self._room = room
        self._counts = counts
        self._step = step

    @property
    def frames(self) -> Bytes:
        """The frames, the last of them zeros where their number was rounded up."""
        return self._room[: self._rounded(int(self._counts[1]))]

    def clear(self) -> None:
        """Remove all frames."""
        self._counts[:] = 0

    def append(self, frames: Bytes) -> Ints:
        """Append frames of rows in memory, and return their places."""
        begin = int(self._counts[0])
        end = begin + len(frames)
        self._room[begin:end] = frames
        self._counts[0] = end
        self.end(end)
        return np.arange(begin, end)

    def begin(self, n: int) -> tuple[int, Bytes]:
        """Return the place and the room of n frames that are read; those read before are gone."""
        begin = int(self._counts[0])
        return begin, self._room[begin : begin + n]

    def end(self, count: int) -> None:
        """Set the number of frames; they must be written."""
        self._room[count : self._rounded(count)] = 0
        self._counts[1] = count

    def copy(self) -> FrameMemory:
        """Return a memory of its own with the same frames."""
        return FrameMemory(self.frames.copy(), self._counts.copy(), self._step)

    def _rounded(self, count: int) -> int:
        return min(len(self._room), -(-count // self._step) * self._step)


class Frames:
    """The values of a field in a batch as distinct frames, and the place of each frame of a value.

    Batches of `batches(..., frames=True)` have them in place of the arrays of fields in the log, to
    copy each frame to a device once, and to put the values together there, with any library of
    arrays: `frames[rows]`, whose axis 1 is then moved to 1 + `axis`. States and next states have
    the same `frames`, if their fields are alike. Frames of transitions that are not committed, or
    are smaller than 8 KiB, may be there more than once.

    >>> from diskreplay import ReplayBuffer
    >>> steps = np.arange(6, dtype=np.uint8)[:, None, None] * np.ones((64, 64), np.uint8)
    >>> buffer = ReplayBuffer(capacity=10, frame_axis=0)
    >>> for i in range(2):
    ...     write_id = buffer.push(steps[i : i + 4], 0, 1.0, steps[i + 1 : i + 5], False)
    >>> buffer.flush()
    >>> batch = next(buffer.batches(2, frames=True))
    >>> states = batch.states
    >>> states.frames.shape, states.rows.shape, states.whole().shape
    ((6, 64, 64), (2, 4), (2, 4, 64, 64))
    >>> bool((states.frames[states.rows] == states.whole()).all())
    True

    rows:  int32 (n, k) for values that are stacks of k frames, the place of each frame in `frames`;
           (n,) for a field without a frame axis, of which each value is one frame
    axis:  the frame axis of a value; None without one
    """

    def __init__(self, memory: FrameMemory, rows: NDArray[np.int32], logged: LoggedField) -> None:
        self.rows = rows
        self.axis = logged.field.frame_axis
        self._memory = memory
        self._logged = logged

    @property
    def frames(self) -> Array:
        """The distinct frames of the batch, of the field's dtype, (m, *shape of a frame).

        Their number is rounded up to one of few, for libraries that compile a program for each
        shape: no row refers to the frames of zeros at the end.
        """
        field, found = self._logged.field, self._memory.frames
        dtype = field.dtype.newbyteorder("<")
        return np.ndarray((len(found), *field.frame_shape), dtype, found)

    def whole(self) -> Array:
        """Return the n values as one array, as `sample` does."""
        found = np.empty((len(self.rows), *self._logged.field.shape), self._logged.field.dtype)
        rows = self.rows.reshape(len(found), -1).astype(np.int64)
        self._logged.write(found, None, self._memory.frames, rows)
        return found

    def __repr__(self) -> str:
        found = self.frames
        return (
            f"Frames(frames={found.dtype}{list(found.shape)}, "
            f"rows={self.rows.dtype}{list(self.rows.shape)}, axis={self.axis})"
        )


def memory_of(columns: Sequence[Array | Frames], places: Iterable[int]) -> FrameMemory | None:
    """Return the memory of the columns at some places, which share one; None for arrays."""
    for place in places:
        column = columns[place]
        if isinstance(column, Frames):
            return column._memory
    return None


def memories_in(columns: Iterable[Array | Frames]) -> list[FrameMemory]:
    """Return the memories of the frames in some columns, each once."""
    found = [column._memory for column in columns if isinstance(column, Frames)]
    return list({id(memory): memory for memory in found}.values())


def write_rows(column: Frames, places: Ints | None, rows: Ints) -> None:
    """Write the rows of values at some places, None for all; the memory has their frames."""
    where = slice(None) if places is None else places
    column.rows[where] = rows.reshape(len(rows), *column.rows.shape[1:])


def copied_frames(found: Frames, memories: dict[int, FrameMemory]) -> Frames:
    """Return a copy of Frames; `memories` has the copies of their memories, by the id of each."""
    key = id(found._memory)
    if key not in memories:
        memories[key] = found._memory.copy()
    return Frames(memories[key], found.rows.copy(), found._logged)


def frames_to_plain(found: Frames, memories: dict[int, int]) -> list[Any]:
    """Return Frames as arrays and plain values.

    memories:  numbers those that were described before, by the id of each; they come once
    """
    memory, field = found._memory, found._logged.field
    frames = memory.frames if id(memory) not in memories else None
    number = memories.setdefault(id(memory), len(memories))
    described = [field.name, field.dtype.str, list(field.shape), field.frame_axis, field.codec]
    return [number, frames, found.rows, [found._logged.place, found._logged.kind], described]


def frames_from_plain(plain: Sequence[Any], memories: dict[int, FrameMemory]) -> Frames:
    """Return the Frames that `frames_to_plain` described; `memories` keeps those that came."""
    number, frames, rows, (place, kind), (name, dtype, shape, axis, codec) = plain
    if frames is not None:
        memories[number] = FrameMemory(frames, np.array([0, len(frames)]), 1)
    field = Field.stored(name, dtype, tuple(shape), log=True, frame_axis=axis, codec=codec)
    return Frames(memories[number], rows, LoggedField(place, field, kind))


def shapes_of_frames(logged: LoggedFields, n: int) -> list[ArraySpec]:
    """Return the dtypes and shapes of the arrays that `frame_columns` takes for n transitions."""
    int32, uint8, int64 = map(np.dtype, (np.int32, np.uint8, np.int64))
    rows: list[ArraySpec] = []
    room = [0] * len(logged.kinds)
    for one in logged.fields:
        field = one.field
        rows.append((int32, (n,) if field.frame_axis is None else (n, field.frames)))
        room[one.kind] += n * field.frames
    of_kinds = zip(room, logged.kinds, strict=True)
    frames: list[ArraySpec] = [(uint8, (most, kind.nbytes)) for most, kind in of_kinds]
    return [(int64, (len(frames), 2)), *rows, *frames]


def frame_columns(logged: LoggedFields, n: int, arrays: Sequence[Array]) -> dict[int, Frames]:
    """Return the Frames of n transitions in some arrays, by their places in the schema."""
    counts, *others = arrays
    rows, rooms = others[: len(logged.fields)], others[len(logged.fields) :]
    step = max(1, n // _SIZES)
    memories = [FrameMemory(*parts, step) for parts in zip(rooms, counts, strict=True)]
    return {
        one.place: Frames(memories[one.kind], of_field, one)
        for one, of_field in zip(logged.fields, rows, strict=True)
    }


def put_frames(
    logged: LoggedFields, columns: Sequence[Array | Frames], places: Ints, values: Columns
) -> None:
    """Write the logged fields of whole rows into Frames among columns; they are the first there.

    A next state repeats frames of its state, mostly, and refers to those. What else is equal is
    there more than once: these rows are few.

    places:  int64 (n,), the place of each row in the columns
    values:  of all fields
    """
    memories = memories_in(columns)
    for memory in memories:
        memory.clear()
    if not memories or not places.size:
        return
    frames = [one.frames_of(values[one.place]) for one in logged.fields]
    found: list[Ints] = []
    for own, one in zip(frames, logged.fields, strict=True):
        rows, is_new = np.empty(own.shape[:2], np.int64), np.ones(own.shape[:2], np.bool_)
        if one.shift:
            theirs = frames[one.source]
            repeats = np.flatnonzero(are_equal(own[:, : -one.shift], theirs[:, one.shift :]))
            rows[repeats, : -one.shift] = found[one.source][repeats, one.shift :]
            is_new[repeats, : -one.shift] = False
        column = columns[one.place]
        if isinstance(column, Frames):
            rows[is_new] = column._memory.append(own[is_new])
            write_rows(column, places, rows)
        found.append(rows)
