"""The sizes of an observation log: its reach, and the number of entries in a value."""

from __future__ import annotations

from diskreplay.observations.frames import LoggedFields
from diskreplay.records import ENTRY_HEADER

_LEAST_REACH, _MOST_REACH = 64, 4096
_VALUE_BYTES = 32 << 10
_MOST_IN_VALUE = 512
# A commit writes the last value again, and a lookup reads the whole value: so that is how large one
# may get where the first frames were black, and later ones leave a codec nothing to do.
_MOST_VALUE_BYTES = 1 << 20
_LARGE_PACKED = 127 << 10  # of a packed value: eight of them share a value of the log
_OFFSET_BYTES = 4


def reach_for(logged: LoggedFields, capacity: int) -> int:
    """Return the reach of a new log: a sixteenth of the capacity, from 64 to 4096 entries."""
    reach = min(_MOST_REACH, max(_LEAST_REACH, capacity // 16))
    return max(reach, 4 * logged.frames_in_row)


def entries_per_value(content_bytes: float, largest_bytes: int) -> int:
    """Return how many entries share a value: as many as 32 KiB hold, at most 512.

    content_bytes:  of an entry, compressed
    largest_bytes:  of the largest frame, so many of which take 1 MiB at most, or one alone
    """
    fitting = _VALUE_BYTES // entry_bytes(content_bytes)
    bounded = _MOST_VALUE_BYTES // entry_bytes(largest_bytes)
    return max(1, min(_MOST_IN_VALUE, int(fitting), int(bounded)))


def largest_frame_bytes(logged: LoggedFields) -> int:
    """Return the bytes of the largest frame; packed values count as large ones, whatever they are.

    Any of them may be larger still. Since at most eight share a value of the log, it stays below
    the limit of LMDB, 4 GiB.
    """
    return max(_LARGE_PACKED if kind.packed else kind.nbytes for kind in logged.kinds)


def entry_bytes(content_bytes: float) -> float:
    """Return the bytes of an entry in a value."""
    return float(ENTRY_HEADER + content_bytes + _OFFSET_BYTES)
