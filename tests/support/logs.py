"""The observation log of a small store, read and changed past the library.

Its records are those of `stores.logged`: state and next state are one observation id each.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stores import change, stored
from xxhash import xxh3_64_intdigest

from diskreplay.records import entries_in, pack
from diskreplay.records.seals import seal, unseal

_STATE_AT, _NEXT_STATE_AT = 20, 20 + 9 + 9 + 5


def fact(path: Path, name: str) -> Any:
    return unseal(stored(path, "meta", name), name, name)


def put(path: Path, name: str, content: Any) -> None:
    change(path, "meta", name, seal(name, content))


def log_of(path: Path) -> tuple[int, int, int]:
    """The first id of the log, the next id, and the number of entries in a value."""
    log = fact(path, "state")["observations"]
    return log["first"], log["count"], fact(path, "layout")["observations"]["entries_per_value"]


def flip(path: Path, observation_id: int) -> None:
    """Change a bit of an entry, through the engine."""
    key, n = divmod(observation_id, log_of(path)[2])
    entries = [bytearray(entry) for entry in entries_in(stored(path, "observations", key))]
    entries[n][-1] ^= 1
    change(path, "observations", key, pack([*map(bytes, entries)]))


def ids_in(path: Path, write_id: int) -> list[int]:
    """The observation ids in the record of a write id, of `logged`: those of both states."""
    record = record_of(path, write_id)
    return [int.from_bytes(record[at : at + 8], "big") for at in (_STATE_AT, _NEXT_STATE_AT)]


def place_of(path: Path, write_id: int) -> tuple[int, slice]:
    per_value = fact(path, "layout")["records_per_value"]
    slot = write_id % fact(path, "identity")["capacity"]
    size = len(stored(path, "transitions", 0)) // per_value
    within = slot % per_value * size
    return slot // per_value, slice(within, within + size)


def record_of(path: Path, write_id: int) -> bytes:
    key, within = place_of(path, write_id)
    return stored(path, "transitions", key)[within]


def set_id(path: Path, write_id: int, observation_id: int) -> None:
    """Let the state in the record of a write id be another observation; it stays a sound record."""
    key, within = place_of(path, write_id)
    value = bytearray(stored(path, "transitions", key))
    record = bytearray(value[within])
    record[_STATE_AT : _STATE_AT + 8] = observation_id.to_bytes(8, "big", signed=True)
    record[2:10] = xxh3_64_intdigest(bytes(record[10:])).to_bytes(8, "big")
    value[within] = record
    change(path, "transitions", key, bytes(value))
