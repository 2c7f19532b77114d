"""The memory of rows: the shares of the window, and what waits for a commit.

Of large rows with observations in the log, the window holds the records, with observation ids, and
a window of observations has the frames. All other rows are in the window whole.
"""

from __future__ import annotations

from diskreplay.buffer.window_layout import window_nbytes, window_row_bytes
from diskreplay.observations import LoggedFields, observation_window_nbytes
from diskreplay.records import LARGE_ROW
from diskreplay.schema import Schema

# The most that pushes let wait. The push that commits them takes about 5 ms longer.
COMMIT_BYTES = 2 << 20
# As whole rows, of which the log keeps a part; and the frames in them, each of which takes time.
_LOGGED_COMMIT_BYTES = 8 << 20
_LOGGED_COMMIT_FRAMES = 2048


def holds_records(schema: Schema) -> bool:
    """Return whether the window holds records in place of whole rows.

    A small row is read faster as a whole, and values that vary in size are not in a window long.
    """
    return bool(schema.logged) and not schema.varying and schema.payload_bytes > LARGE_ROW


def pending_bytes(schema: Schema) -> int:
    """Return the most bytes of whole rows that pushes let wait for a commit."""
    if not schema.logged:
        return COMMIT_BYTES
    return min(_LOGGED_COMMIT_BYTES, logged_pending_rows(schema) * whole_row_bytes(schema))


def logged_pending_rows(schema: Schema) -> int:
    """Return the most rows with fields in the log that pushes let wait, however small they are."""
    return max(1, _LOGGED_COMMIT_FRAMES // LoggedFields(schema).frames_in_row)


def committed_rows(schema: Schema) -> int:
    """Return about how many rows with fields in the log pushes let wait for a commit."""
    if not holds_records(schema):
        return pending_bytes(schema) // max(1, whole_row_bytes(schema))
    step_bytes = sum(field.frame_bytes for field in LoggedFields(schema).new_in_a_step())
    return max(1, min(logged_pending_rows(schema), COMMIT_BYTES // max(1, step_bytes)))


def whole_row_bytes(schema: Schema) -> int:
    """Return the bytes of a whole row, without packed values, which are counted apart."""
    return window_row_bytes(schema) if schema.varying else schema.payload_bytes


def window_shares(schema: Schema, window_bytes: int) -> tuple[int, int]:
    """Return how many bytes of the window are for rows, and how many for observations.

    What waits for a commit has room also in a smaller window.
    """
    if holds_records(schema):
        record_bytes = window_row_bytes(schema.record_schema)
        step_bytes = sum(field.frame_bytes for field in LoggedFields(schema).new_in_a_step())
        rows = max(COMMIT_BYTES, window_bytes * record_bytes // (record_bytes + step_bytes))
        return rows, max(_LOGGED_COMMIT_BYTES, window_bytes - rows)
    if not schema.logged or schema.payload_bytes <= LARGE_ROW:
        return window_bytes, 0
    rows = pending_bytes(schema)
    return rows, max(0, window_bytes - rows)


def window_bytes_of(schema: Schema, capacity: int, window_bytes: int) -> int:
    """Return the memory of a full window, of rows and of observations, in bytes."""
    rows, frames = window_shares(schema, window_bytes)
    held = schema.record_schema if holds_records(schema) else schema
    of_frames = 0
    if schema.logged:
        of_frames = observation_window_nbytes(LoggedFields(schema), capacity, frames)
    return window_nbytes(held, capacity, rows) + of_frames
