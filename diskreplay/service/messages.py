"""Messages: values of Python with arrays in them, as Arrow record batches of bytes, and back.

A message is one value: a request, or an answer such as a batch. It travels as::

    metadata   msgpack [value, [[dtype, shape] of each array]], with places instead of the arrays
    batch      the bytes of all small arrays, each from a multiple of 8 bytes on
    batch ...  the bytes of each large array, in parts

All batches of a stream have one schema, a column of bytes, so one stream carries any values: also
those whose number, type or shape differ from one message to the next.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import msgpack  # type: ignore[import-untyped]
import numpy as np
import pyarrow as pa

from diskreplay.aliases import Array
from diskreplay.buffer import (
    Batch,
    Draw,
    PrioritizedBatch,
    PrioritizedSequenceBatch,
    SequenceBatch,
    with_extra,
)
from diskreplay.errors import ArgumentError
from diskreplay.observations import FrameMemory, Frames, frames_from_plain, frames_to_plain
from diskreplay.validation import as_array
from diskreplay.wording import shown

SCHEMA = pa.schema([("bytes", pa.uint8())])
_SMALL_BYTES = 2**16  # more of them are a part of their own, which nothing copies before it is sent
_PART_BYTES = 2**24  # what gRPC and the memory of a reader take at once
_ALIGNMENT = 8
_ARRAY, _TUPLE, _KIND, _FRAMES = 1, 2, 3, 4  # msgpack's numbers for the types of our own
_KINDS: dict[str, Any] = {
    kind.__name__: kind
    for kind in (Batch, Draw, PrioritizedBatch, PrioritizedSequenceBatch, SequenceBatch)
}


class MalformedMessage(ValueError):
    """A message that no diskreplay has sent."""


class _Encoder:
    """The msgpack of a value, and the arrays in it."""

    def __init__(self) -> None:
        self.arrays: list[Array] = []
        self._memories: dict[int, int] = {}

    def pack(self, value: Any) -> bytes:
        packed: bytes = msgpack.packb(value, default=self._of_other, strict_types=True)
        return packed

    def _of_other(self, value: Any) -> Any:
        if type(value) is np.ndarray and value.dtype.kind in "biufc":
            self.arrays.append(value if value.flags.c_contiguous else value.copy())
            return msgpack.ExtType(_ARRAY, msgpack.packb(len(self.arrays) - 1))
        if isinstance(value, tuple):
            kind = _KINDS.get(type(value).__name__)
            if kind is None or not isinstance(value, kind):
                return msgpack.ExtType(_TUPLE, self.pack(list(value)))
            names = list(getattr(value, "_fields", ())[len(kind._fields) :])
            content = [kind.__name__, names, list(value), getattr(value, "__dict__", {})]
            return msgpack.ExtType(_KIND, self.pack(content))
        if isinstance(value, Frames):
            return msgpack.ExtType(_FRAMES, self.pack(frames_to_plain(value, self._memories)))
        if isinstance(value, np.generic):
            return value.item()
        plain: Any
        for plain in (dict, list, str, int, float, bytes):
            if isinstance(value, plain):  # a subclass
                return plain(value)
        array = as_array(value, ArgumentError, f"a {type(value).__name__} cannot be sent")
        if array.dtype.kind not in "biufc":
            raise ArgumentError(f"{shown(value)} cannot be sent: it is no array of numbers")
        return self._of_other(array)


def send(writer: Any, value: Any) -> None:
    """Send a value over the writer of a stream.

    Large arrays must not be changed afterwards: gRPC may not have sent their bytes yet.
    """
    encoder = _Encoder()
    try:
        packed = encoder.pack(value)
    except (ValueError, OverflowError, RecursionError) as error:
        if isinstance(error, ArgumentError):
            raise
        raise ArgumentError(f"a value cannot be sent: {error}") from None
    kinds = [[array.dtype.str, array.shape] for array in encoder.arrays]
    header: bytes = msgpack.packb([packed, kinds])
    if not any(array.nbytes for array in encoder.arrays):
        writer.write_metadata(header)
        return
    small, large = _sorted(encoder.arrays)
    joined = np.empty(sum(map(_aligned, small)), np.uint8)
    at = 0
    for array in small:
        joined[at : at + array.nbytes] = _bytes_of(array)
        at += _aligned(array)
    writer.write_with_metadata(_record_batch(joined), header)
    for array in large:
        content = _bytes_of(array)
        for begin in range(0, content.size, _PART_BYTES):
            writer.write_batch(_record_batch(content[begin : begin + _PART_BYTES]))


def receive(
    reader: Any,
    *,
    kinds: bool = True,
    most_bytes: int | None = None,
    hold: Callable[[int], object] | None = None,
) -> Any:
    """Return the next value that comes from the reader of a stream, with arrays of its own.

    Raises StopIteration at the end of the stream, and MalformedMessage.

    kinds:       whether batches may come
    most_bytes:  the most bytes that a message may take
    hold:        is called with the bytes that its arrays take, before they come
    """
    chunk = reader.read_chunk()
    try:
        packed, described = msgpack.unpackb(_metadata(chunk))
        arrays = [_empty(dtype, shape, most_bytes) for dtype, shape in described]
        nbytes = sum(array.nbytes for array in arrays)
        if most_bytes is not None and nbytes > most_bytes:
            raise MalformedMessage(f"a message takes more than {most_bytes} bytes")
        if hold is not None:
            hold(nbytes)
        _fill(arrays, chunk, reader)
        return _Decoder(arrays, kinds=kinds).unpack(packed)
    except MalformedMessage:
        raise
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        raise MalformedMessage(f"not a message: {error}") from None


class _Decoder:
    """The value of a msgpack with arrays."""

    def __init__(self, arrays: list[Array], *, kinds: bool) -> None:
        self._arrays, self._kinds = arrays, kinds
        self._memories: dict[int, FrameMemory] = {}

    def unpack(self, packed: bytes) -> Any:
        return msgpack.unpackb(packed, ext_hook=self._of_other, strict_map_key=False)

    def _of_other(self, code: int, data: bytes) -> Any:
        if code == _ARRAY:
            return self._arrays[msgpack.unpackb(data)]
        if code == _TUPLE:
            return tuple(self.unpack(data))
        if code == _KIND and self._kinds:
            name, names, values, attributes = self.unpack(data)
            found = with_extra(_KINDS[name], tuple(names))._make(values)
            if attributes:
                vars(found).update(attributes)
            return found
        if code == _FRAMES and self._kinds:
            return frames_from_plain(self.unpack(data), self._memories)
        raise MalformedMessage(f"it has a value of the type {code}")


def _sorted(arrays: list[Array]) -> tuple[list[Array], list[Array]]:
    """Return the small arrays and the large ones."""
    small = [array for array in arrays if array.nbytes <= _SMALL_BYTES]
    return small, [array for array in arrays if array.nbytes > _SMALL_BYTES]


def _aligned(array: Array) -> int:
    return -(-array.nbytes // _ALIGNMENT) * _ALIGNMENT


def _bytes_of(array: Array) -> Array:
    return array.reshape(-1).view(np.uint8)


def _record_batch(content: Array) -> Any:
    column = pa.Array.from_buffers(pa.uint8(), content.size, [None, pa.py_buffer(content)])
    return pa.RecordBatch.from_arrays([column], schema=SCHEMA)


def _metadata(chunk: Any) -> bytes:
    if chunk.app_metadata is None:
        raise MalformedMessage("a message begins without its description")
    content: bytes = chunk.app_metadata.to_pybytes()
    return content


def _empty(dtype: str, shape: list[int], most_bytes: int | None) -> Array:
    """Return an array of a type and shape that a message describes."""
    kind = np.dtype(dtype)
    size = kind.itemsize * math.prod(shape)
    if kind.kind not in "biufc" or any(length < 0 for length in shape):
        raise MalformedMessage(f"it has an array of {dtype!r:.50}, {shape!r:.50}")
    if most_bytes is not None and size > most_bytes:
        raise MalformedMessage(f"it has an array of {size} bytes (expected at most {most_bytes})")
    return np.empty(shape, kind)


def _fill(arrays: list[Array], chunk: Any, reader: Any) -> None:
    """Write the bytes of a message into its arrays: the bytes that come are not aligned."""
    if not any(array.nbytes for array in arrays):
        return
    small, large = _sorted(arrays)
    content, at = _content(chunk), 0
    if content.size != sum(map(_aligned, small)):
        raise MalformedMessage("its small arrays have another size than it says")
    for array in small:
        _bytes_of(array)[...] = content[at : at + array.nbytes]
        at += _aligned(array)
    for array in large:
        target, at = _bytes_of(array), 0
        for part in _parts(reader, target.size):
            target[at : at + part.size] = part
            at += part.size


def _parts(reader: Any, size: int) -> Iterator[Array]:
    """Yield the parts of a large array."""
    left = size
    while left:
        try:
            part = _content(reader.read_chunk())
        except StopIteration:
            raise MalformedMessage("it ends before its arrays do") from None
        if not 0 < part.size <= left:
            raise MalformedMessage("a part of an array has another size than it says")
        left -= part.size
        yield part


def _content(chunk: Any) -> Array:
    """Return the bytes of a record batch, where they lie."""
    if chunk.data is None or chunk.data.schema != SCHEMA:
        raise MalformedMessage("it has no column of bytes")
    [column] = chunk.data.columns
    _, data = column.buffers()
    if not len(column):
        return np.empty(0, np.uint8)
    if data is None or data.size < column.offset + len(column):
        raise MalformedMessage("its column is shorter than it says")
    return np.frombuffer(data, np.uint8, len(column), column.offset)
