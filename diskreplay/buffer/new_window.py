"""Make the window that suits the rows of a schema."""

from __future__ import annotations

from diskreplay.buffer.packed_window import PackedWindow
from diskreplay.buffer.window import ObjectWindow, Window
from diskreplay.buffer.window_layout import row_dtype, window_rows
from diskreplay.errors import ArgumentError
from diskreplay.records import LARGE_ROW
from diskreplay.schema import Schema


def new_window(schema: Schema, capacity: int, window_bytes: int) -> Window:
    """Return a window of at most `window_bytes`, but of at least 64 rows.

    Raises ArgumentError if there is not so much memory.
    """
    kind = Window if row_dtype(schema).itemsize > LARGE_ROW else PackedWindow
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
