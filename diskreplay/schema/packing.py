"""Packing: values that vary in size as bytes, and back.

Text is packed as UTF-8, and bytes as they are. An array is packed as the lengths that its shape
leaves open, int64 each, and then its numbers, all little-endian and in C order::

    [7, 8] as int32[None]    02 00 00 00 00 00 00 00    07 00 00 00 08 00 00 00

A column of such values is an array of the packed ones, from the call of the user to the batch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from diskreplay.aliases import Array
from diskreplay.errors import DamageError, SchemaError
from diskreplay.schema.field import WORDS, Field
from diskreplay.schema.numbers import as_numbers
from diskreplay.validation import as_array
from diskreplay.wording import count_of, cut, shown

MAX_VALUE_BYTES = 2**26  # several of them share a value of the store, which has at most 4 GiB


def is_text(value: Any) -> bool:
    """Return whether a value is text or bytes."""
    return isinstance(value, str | bytes | bytearray | memoryview)


def packed(field: Field, value: Any) -> bytes:
    """Return a value of a field that varies in size as bytes, or raise SchemaError."""
    if value is None:
        as_numbers(field.name, value)
    if field.dtype.kind in WORDS:
        content = _packed_text(field, value)
    else:
        content = _packed_array(field, as_numbers(field.name, value))
    if len(content) > MAX_VALUE_BYTES:
        raise _too_large(field, f"a value has {count_of(len(content), 'byte')}")
    return content


def _packed_text(field: Field, value: Any) -> bytes:
    if not is_text(value) or isinstance(value, str) != (field.dtype.kind == "U"):
        word = WORDS[field.dtype.kind]
        raise SchemaError(f"field {field.name!r}: expected {word} (found {shown(value)})")
    try:
        return value.encode() if isinstance(value, str) else bytes(value)
    except ValueError as error:  # a lone surrogate, or memory that was released
        raise SchemaError(f"field {field.name!r} cannot be stored: {cut(str(error))}") from None


def _packed_array(field: Field, found: Array) -> bytes:
    if found.shape == (0,):  # an empty list does not tell its other lengths
        found = found.reshape([length or 0 for length in field.shape])
    if found.ndim != len(field.shape) or not all(
        length in (None, n) for n, length in zip(found.shape, field.shape, strict=True)
    ):
        raise SchemaError(
            f"field {field.name!r}: expected shape {field.shape}, with any length in place of None "
            f"(found {found.shape}, {found.dtype})"
        )
    if _extent(field, found.shape) > MAX_VALUE_BYTES:
        raise _too_large(field, f"a value has the shape {found.shape}")
    array = field.fit(found).astype(field.little_endian, copy=False)
    lengths = [n for n, length in zip(found.shape, field.shape, strict=True) if length is None]
    return field.open_lengths.pack(*lengths) + array.tobytes()


def _extent(field: Field, shape: Iterable[int]) -> int:
    """Return the bytes of an array, as if a length of 0 were 1: no length is without a limit."""
    return field.dtype.itemsize * math.prod(filter(None, shape))


def _too_large(field: Field, found: str) -> SchemaError:
    return SchemaError(
        f"field {field.name!r}: {found} (expected at most {MAX_VALUE_BYTES:,} bytes): store large "
        "values elsewhere and their names here"
    )


def packed_column(field: Field, values: Any) -> Array:
    """Return n values of a field that varies in size, packed, as an array of n objects."""
    if values is None or is_text(values):
        raise SchemaError(
            f"field {field.name!r}: expected a list of n values (found {shown(values)}): "
            "push() takes a single transition"
        )
    if not isinstance(values, list | tuple):
        values = as_array(values, SchemaError, f"field {field.name!r} is no list of values")
        if not values.ndim:
            raise SchemaError(
                f"field {field.name!r}: expected a list of n values (found {shown(values[()])})"
            )
    column = np.empty(len(values), object)
    for place, value in enumerate(values):
        column[place] = packed(field, value)
    return column


def unpacked(field: Field, content: bytes) -> Any:
    """Return the value that was packed, a fresh array or text; raise DamageError for other bytes.

    The error has a clause that follows the name of the value.
    """
    if field.dtype.kind == "S":
        return content
    if field.dtype.kind == "U":
        try:
            return content.decode()
        except UnicodeDecodeError as error:
            raise DamageError(f"it is no text in UTF-8: {error}") from None
    form, shape = field.open_lengths, field.shape
    body = len(content) - form.size
    if body >= 0:
        found = form.unpack_from(content)
        if len(found) < len(shape):
            lengths = iter(found)
            found = tuple(next(lengths) if length is None else length for length in shape)
        # With elements the bytes bound each length, without any nothing would.
        if (
            min(found) >= 0
            and field.dtype.itemsize * math.prod(found) == body
            and (body or _extent(field, found) <= MAX_VALUE_BYTES)
        ):
            values = np.frombuffer(content, field.little_endian, offset=form.size)
            return values.reshape(found).astype(field.dtype)
    raise DamageError(f"its {count_of(len(content), 'byte')} are no array {field.type}")
