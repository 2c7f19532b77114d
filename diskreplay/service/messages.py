"""Messages: values of Python with arrays in them, as Arrow record batches of bytes, and back.

A message is one value: a request, or an answer such as a batch. It travels as::

    metadata   msgpack [value, [[dtype, shape] of each array]], with places instead of the arrays
    batch      the bytes of all small arrays, each from a multiple of 8 bytes on
    batch ...  the bytes of each large array, in parts

All batches of a stream have one schema, a column of bytes, so one stream carries any values: also
those whose number, type or shape differ from one message to the next.

A tuple is a list that begins with a mark, as are the other types of our own: a value in a value
would take a call of the decoder for each level, and a message could fill the stack of its thread.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
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
from diskreplay.wording import cut, human, shown

_BYTES = pa.uint8()
SCHEMA = pa.schema([("bytes", _BYTES)])
_SMALL_BYTES = 2**16  # more of them are a part of their own, which nothing copies before it is sent
_PART_BYTES = 2**24  # what gRPC and the memory of a reader take at once
_ALIGNMENT = 8
_GAPS = [bytes(-n % _ALIGNMENT) for n in range(_ALIGNMENT)]  # behind an array, by what it has over
_MOST_DIMENSIONS = 32  # of an array, as in every numpy
_DESCRIPTION_COST = 64  # bytes of memory that a byte of metadata takes at most: an empty list
_DTYPE = re.compile(r"[<>|=][biufc][0-9]{1,2}")
_MANY_KEYS = 1000
# Whatever msgpack and numpy raise for bytes that are no value.
_NO_VALUE = (
    AttributeError, LookupError, MemoryError, OverflowError, RecursionError, TypeError, ValueError,
)  # fmt: skip
_ARRAY, _TUPLE, _KIND, _FRAMES = 1, 2, 3, 4  # msgpack's numbers for the types of our own
_KINDS: dict[str, Any] = {
    kind.__name__: kind
    for kind in (Batch, Draw, PrioritizedBatch, PrioritizedSequenceBatch, SequenceBatch)
}


class MalformedMessage(ValueError):
    """A message that no diskreplay has sent."""


class _Mark(int):
    """The number of a type, at the beginning of its list."""


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
            return msgpack.ExtType(_ARRAY, (len(self.arrays) - 1).to_bytes(4, "big"))
        if isinstance(value, tuple):
            kind = _KINDS.get(type(value).__name__)
            if kind is None or not isinstance(value, kind):
                return [_mark(_TUPLE), *value]
            names = list(getattr(value, "_fields", ())[len(kind._fields) :])
            attributes = getattr(value, "__dict__", {})
            return [_mark(_KIND), kind.__name__, names, list(value), attributes]
        if isinstance(value, Frames):
            return [_mark(_FRAMES), *frames_to_plain(value, self._memories)]
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


def _mark(kind: int) -> Any:
    return msgpack.ExtType(kind, b"")


def send(writer: Any, value: Any, hold: Callable[[int], object] | None = None) -> None:
    """Send a value over the writer of a stream.

    Large arrays must not be changed afterwards: gRPC may not have sent their bytes yet.

    hold:  is called with the bytes that the message takes, before they are sent
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
    if hold is not None:
        hold(len(header) + sum(array.nbytes for array in encoder.arrays))
    if not any(array.nbytes for array in encoder.arrays):
        writer.write_metadata(header)
        return
    small: list[Any] = []  # and the bytes between them
    large: list[Array] = []
    for array in encoder.arrays:
        if array.nbytes <= _SMALL_BYTES:
            small += array, _GAPS[array.nbytes % _ALIGNMENT]
        else:
            large.append(array)
    writer.write_with_metadata(_record_batch(pa.py_buffer(b"".join(small))), header)
    for array in large:
        content = pa.py_buffer(array)
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

    Raises StopIteration at the end of the stream, MalformedMessage, and ArgumentError for a message
    that takes too much: that one was left out, and the next one can be received.

    kinds:       whether batches may come
    most_bytes:  the most memory that a message may take
    hold:        is called with the bytes that it takes, before its arrays come
    """
    chunk = reader.read_chunk()
    try:
        header = _metadata(chunk)
        taken = _DESCRIPTION_COST * len(header)
        if most_bytes is not None and taken > most_bytes:
            raise MalformedMessage(f"the description of a message takes {human(len(header))}")
        packed, described = msgpack.unpackb(header)
        forms = [_form(*one) for one in described]
        sizes = [dtype.itemsize * math.prod(shape) for dtype, shape in forms]
        taken += sum(sizes)
        if most_bytes is not None and taken > most_bytes:
            for size in sizes:
                for _ in _parts(reader, size if size > _SMALL_BYTES else 0):
                    pass
            raise ArgumentError(
                f"this service takes messages of at most {human(most_bytes)} (found "
                f"{human(taken)}): send less at a time, or raise --max-message-bytes"
            )
        if hold is not None:
            hold(taken)
        arrays = _arrays(forms, sizes, chunk, reader)
        return _Decoder(arrays, kinds=kinds).unpack(packed)
    except (MalformedMessage, ArgumentError):
        raise
    except _NO_VALUE as error:
        raise MalformedMessage(f"not a message: {cut(str(error))}") from None


class _Decoder:
    """The value of a msgpack with arrays."""

    def __init__(self, arrays: list[Array], *, kinds: bool) -> None:
        self._arrays: list[Array | None] = [*arrays]
        self._types = (_TUPLE, _KIND, _FRAMES) if kinds else (_TUPLE,)
        self._memories: dict[int, FrameMemory] = {}

    def unpack(self, packed: bytes) -> Any:
        return msgpack.unpackb(
            packed,
            ext_hook=self._of_ext,
            list_hook=self._of_list,
            object_pairs_hook=_dict_of,
            strict_map_key=False,
        )

    def _of_ext(self, code: int, data: bytes) -> Any:
        if code in self._types:
            return _Mark(code)
        if code != _ARRAY:
            raise MalformedMessage(f"it has a value of the type {code}")
        place = int.from_bytes(data, "big")
        array, self._arrays[place] = self._arrays[place], None
        if array is None:  # it would take its bytes for each place, of which many fit in a message
            raise MalformedMessage("it has an array at two places")
        return array

    def _of_list(self, items: list[Any]) -> Any:
        mark = items[0] if items else None
        if type(mark) is not _Mark:
            return items
        if mark == _TUPLE:
            return tuple(items[1:])
        if mark == _FRAMES:
            return frames_from_plain(items[1:], self._memories)
        _, name, names, values, attributes = items
        found = with_extra(_KINDS[name], tuple(names))._make(values)
        if attributes:
            vars(found).update(attributes)
        return found


def _dict_of(pairs: Sequence[tuple[Any, Any]]) -> dict[Any, Any]:
    """Return a dictionary; its keys may not share a hash, which numbers can be chosen for."""
    if len(pairs) > _MANY_KEYS:
        hashes = np.fromiter((hash(key) for key, _ in pairs), np.int64, len(pairs))
        if np.unique(hashes).size < len(pairs) // 2:
            raise MalformedMessage("the keys of a dictionary share a hash")
    return dict(pairs)


def _record_batch(content: pa.Buffer) -> Any:
    column = pa.Array.from_buffers(_BYTES, content.size, [None, content])
    return pa.RecordBatch.from_arrays([column], schema=SCHEMA)


def _metadata(chunk: Any) -> bytes:
    if chunk.app_metadata is None:
        raise MalformedMessage("a message begins without its description")
    content: bytes = chunk.app_metadata.to_pybytes()
    return content


def _form(dtype: Any, shape: Any) -> tuple[np.dtype[Any], list[int]]:
    """Return the type and shape of an array that a message describes."""
    if (
        not (isinstance(dtype, str) and _DTYPE.fullmatch(dtype) and isinstance(shape, list))
        or len(shape) > _MOST_DIMENSIONS
        or not all(type(length) is int and length >= 0 for length in shape)
    ):
        raise MalformedMessage("it has an array of no type or shape that is sent")
    return np.dtype(dtype), shape


def _arrays(
    forms: list[tuple[np.dtype[Any], list[int]]], sizes: list[int], chunk: Any, reader: Any
) -> list[Array]:
    """Return the arrays of a message; the small ones share memory, which is copied at once.

    The bytes that come are not aligned, and nobody may write to them.
    """
    if not any(sizes):
        return [np.empty(shape, dtype) for dtype, shape in forms]
    small = _content(chunk)
    block, at = np.empty(small.size, np.uint8), 0
    block[...] = small
    arrays = []
    for (dtype, shape), size in zip(forms, sizes, strict=True):
        if size <= _SMALL_BYTES:
            array = np.ndarray(shape, dtype, block, at)
            at += -(-size // _ALIGNMENT) * _ALIGNMENT
        else:
            array, begin = np.empty(shape, dtype), 0
            target = array.reshape(-1).view(np.uint8)
            for part in _parts(reader, size):
                target[begin : begin + part.size] = part
                begin += part.size
        arrays.append(array)
    if at != block.size:
        raise MalformedMessage("its small arrays have another size than it says")
    return arrays


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
