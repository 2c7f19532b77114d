"""Values of transitions, made comparable, fewer, or fit to be drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from xxhash import xxh3_64_intdigest

from diskreplay.aliases import Array, Floats, Ints

MAX_COMPONENTS = 64  # of a vector; of a longer one as many are taken, evenly spaced
_MOST = 1e100  # what is beyond is drawn there: the span of an axis has to be a number


def digests(columns: Sequence[Array]) -> Ints:
    """Return a number for each transition, equal where values are, bit for bit; -0.0 is 0.0."""
    rows = np.concatenate([*map(as_bytes, columns)], axis=1)
    return np.array([xxh3_64_intdigest(row) for row in rows], np.uint64).view(np.int64)


def thinned(values: Array) -> Array:
    """Return one transition a row, of at most MAX_COMPONENTS evenly spaced components.

    Of values that vary in size the length.
    """
    if values.dtype.hasobject:
        return np.array([[len(value)] for value in values], np.int64).reshape(-1, 1)
    n = math.prod(values.shape[1:])
    flat = values.reshape(len(values), n)
    return flat[:, :: max(1, -(-n // MAX_COMPONENTS))].copy()


def as_bytes(values: Array) -> Array:
    """Return one transition a row, as bytes: NaN is equal to itself.

    Of values that vary in size the bytes are a digest.
    """
    if values.dtype.hasobject:
        found = [xxh3_64_intdigest(_content(value)) for value in values]
        return np.array(found, np.uint64).view(np.uint8).reshape(-1, 8)
    if values.dtype.kind in "fc":
        values = values + 0  # negative zero is zero
    size = values.dtype.itemsize * math.prod(values.shape[1:])
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8).reshape(len(values), size)


def _content(value: Any) -> bytes:
    if isinstance(value, np.ndarray):
        return str(value.shape).encode() + as_bytes(value.reshape(1, -1)).tobytes()
    return value if isinstance(value, bytes) else value.encode()


def finite(values: Array) -> Floats:
    """Return those of numbers that are neither NaN nor infinite, in one dimension."""
    flat = values.ravel()
    return flat[np.isfinite(flat)].astype(np.float64)


def limited(values: Array) -> Floats:
    """Return what is drawn of numbers."""
    return np.clip(values.astype(np.float64), -_MOST, _MOST)
