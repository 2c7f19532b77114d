"""Entries of the observation log as bytes, and the values of several entries.

An entry is one observation, or one frame of a stacked one, as a msgpack array with a constant
header; its content is the bytes of the array, or these compressed::

    offset  bytes                  meaning
    0       93                     array of three
    1       cf CCCCCCCCCCCCCCCC    checksum, uint64: xxh3_64 of all bytes after it
    10      d3 IIIIIIIIIIIIIIII    observation id, int64
    19      c6 LLLLLLLL            bin of the content, which begins at 24

Consecutive entries share a value, behind the offsets of each of them and of the end::

    offset  bytes                  meaning
    0       c6 LLLLLLLL            bin of 4 * (n + 1) bytes
    5       n + 1 times uint32     little-endian, from the start of the value
    ...     entry entry ...        n of them

So a value is a stream of msgpack objects, and one entry is found without the others.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any

from xxhash import xxh3_64, xxh3_64_intdigest

from diskreplay.errors import DamageError
from diskreplay.wording import count_of

ENTRY_HEADER = 24
ENTRY_HEAD = b"\x93\xcf"  # with which every entry begins
_CHECKED_AT = 10  # what the checksum is of begins here
_HEADER = struct.Struct(">BBQBqBI")
_BODY = struct.Struct(">BqBI")  # before the content
_MARKERS = 0x93, 0xCF, 0xD3, 0xC6
_BIN = 0xC6
_BIN_HEAD = struct.Struct(">BI")
_BIN_BYTES = _BIN_HEAD.size
_OFFSET_BYTES = 4
_TWO_OFFSETS = struct.Struct("<II")


def entry_of(observation_id: int, content: Any) -> bytes:
    """Return the entry of an observation id; `content` is any buffer of contiguous bytes."""
    head = _BODY.pack(0xD3, observation_id, 0xC6, len(content))
    hasher = xxh3_64(head)
    hasher.update(content)  # where it lies: to join it first would be one more copy
    return b"".join((ENTRY_HEAD, hasher.digest(), head, content))


def content_of(entry: memoryview, observation_id: int) -> memoryview:
    """Return the content of the entry of an observation id; raise DamageError for any other.

    Cost: about 0.7 microseconds for 7 kB, half of it for the checksum.
    """
    if len(entry) >= ENTRY_HEADER:
        array, number, checksum, signed, found, binary, length = _HEADER.unpack_from(entry)
        if (
            checksum == xxh3_64_intdigest(entry[_CHECKED_AT:])
            and found == observation_id
            and length == len(entry) - ENTRY_HEADER
            and (array, number, signed, binary) == _MARKERS
        ):
            return entry[ENTRY_HEADER:]
    raise DamageError(_fault(entry, observation_id))


def _fault(entry: memoryview, observation_id: int) -> str:
    name = f"the entry of observation {observation_id} is damaged"
    if not len(entry):
        return f"{name}: it is missing"
    if len(entry) < ENTRY_HEADER:
        found = count_of(len(entry), "byte")
        return f"{name}: it has {found} (expected at least {ENTRY_HEADER})"
    _, _, checksum, _, found_id, _, length = _HEADER.unpack_from(entry)
    if checksum != xxh3_64_intdigest(entry[_CHECKED_AT:]):
        return f"{name}: its checksum does not match its bytes"
    if found_id != observation_id:
        return f"{name}: it holds observation {found_id}"
    if length != len(entry) - ENTRY_HEADER:
        found = count_of(len(entry) - ENTRY_HEADER, "byte")
        return f"{name}: its content has {found} (expected {length:,})"
    return f"{name}: its first bytes are not those of an entry"


def observation_id_in(entry: Any) -> int:
    """Return the observation id that an entry says it has, sound or not; -1 if it is short."""
    return int(_HEADER.unpack_from(entry)[4]) if len(entry) >= ENTRY_HEADER else -1


def entry_bytes_in(header: Any) -> int:
    """Return the length that an entry with this header has; 0 for bytes that are no header."""
    if len(header) >= ENTRY_HEADER:
        array, number, _, signed, _, binary, length = _HEADER.unpack_from(header)
        if (array, number, signed, binary) == _MARKERS:
            return ENTRY_HEADER + int(length)
    return 0


def pack(entries: Sequence[bytes | memoryview]) -> bytes:
    """Return the value of consecutive entries, at least one."""
    n = len(entries)
    table = _OFFSET_BYTES * (n + 1)
    offsets = accumulate(map(len, entries), initial=_BIN_BYTES + table)
    return b"".join((_BIN_HEAD.pack(_BIN, table), struct.pack(f"<{n + 1}I", *offsets), *entries))


def entries_in(value: Any) -> list[memoryview]:
    """Return the entries of a value of any content.

    Raises DamageError with a clause that follows the name of the value.
    """
    start, view = _start(value), memoryview(value)
    n = (start - _BIN_BYTES) // _OFFSET_BYTES  # of offsets
    offsets = struct.unpack_from(f"<{n}I", view, _BIN_BYTES)
    is_ascending = all(map(int.__le__, offsets, offsets[1:]))
    if offsets[0] != start or offsets[-1] != len(view) or not is_ascending:
        raise DamageError("its offsets do not fit its length")
    return [view[begin:end] for begin, end in pairwise(offsets)]


def entry_in(value: Any, n: int) -> memoryview:
    """Return entry n of a value of any content; raise DamageError as `entries_in` does.

    Cost: about 0.5 microseconds, whatever the number of entries.
    """
    start = _start(value)
    at = _BIN_BYTES + _OFFSET_BYTES * n
    if not _BIN_BYTES <= at <= start - _TWO_OFFSETS.size:
        there = (start - _BIN_BYTES) // _OFFSET_BYTES - 1
        raise DamageError(f"it has no entry {n} (found {there})")
    begin, end = _TWO_OFFSETS.unpack_from(value, at)
    if not start <= begin <= end <= len(value):
        raise DamageError("its offsets do not fit its length")
    return memoryview(value)[begin:end]


def _start(value: Any) -> int:
    """Return where the first entry of a value begins: behind the offsets."""
    size = len(value)
    if not size:
        raise DamageError("it is missing")
    if size >= _BIN_BYTES:
        marker, table = _BIN_HEAD.unpack_from(value)
        is_whole = marker == _BIN and not table % _OFFSET_BYTES
        if is_whole and 2 * _OFFSET_BYTES <= table <= size - _BIN_BYTES:
            return _BIN_BYTES + int(table)
    raise DamageError("it does not begin with the offsets of its entries")
