"""The layout of a window: the rows that it has room for, and the memory that they take."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np

from diskreplay.schema import Schema

Fields: TypeAlias = tuple[int, ...]  # places of fields in the schema

DEFAULT_WINDOW_BYTES = 256 << 20
MIN_ROWS = 64
_BEGIN_BYTES = 8
OWNER = "owner"  # the write id + 1; 0 in a row without content
# The most bytes of packed values that wait for a commit; a window has room for them at least.
PACKED_COMMIT_BYTES = 8 << 20


@lru_cache(maxsize=64)
def row_dtype(schema: Schema) -> np.dtype[Any]:
    """Return the layout of a row: the owner, then the fields in their order, aligned."""
    fields: list[Any] = [(name_of_field(i), *f.in_column) for i, f in enumerate(schema.fields)]
    return np.dtype([(OWNER, np.int64), *fields], align=True)


def window_row_bytes(schema: Schema) -> int:
    """Return the bytes of a row in a window; of one with packed values, as many again for these."""
    row_bytes = row_dtype(schema).itemsize
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


def name_of_field(index: int) -> str:
    """Return the name of a field in the layout of a row, by its place."""
    return f"field {index}"
