"""Mutations of the observation log of a sound store, and of what refers to it."""

from __future__ import annotations

from pathlib import Path

from changed_values import NUMBERS, Generator, fact, number_key, pick, put, put_fact, values
from xxhash import xxh3_64_intdigest

from diskreplay.records import entries_in, entry_of, observation_id_in, pack

CONTENTS = [  # of an entry: too short, too long, and bombs for a codec
    b"", b"x", bytes(12), bytes(6000), b"\xff" * 12,
    b"\x1f\0\x01\0" + b"\xff" * 4000 + bytes(6), b"\x28\xb5\x2f\xfd\xa4\xff\xff\xff\xff\x01\0\0",
]  # fmt: skip


def odd_log(path: Path, generator: Generator) -> None:
    """An odd range, layout, value or entry of the observation log; odd ids in a record."""
    how = int(generator.integers(5))
    if how == 0:
        state = fact(path, "state")
        log = state.get("observations") or {"first": 0, "count": 0}
        numbers = [*NUMBERS, 1, 2, log["count"] + 1, log["count"] - 1, 2**40, 2**61]
        log[pick(generator, ["first", "count"])] = pick(generator, numbers)
        state["observations"] = pick(generator, [log, log, log, *NUMBERS])
        put_fact(path, "state", state)
    elif how == 1:
        layout = fact(path, "layout")
        log = layout.get("observations") or {"entries_per_value": 4, "reach": 1000}
        key = pick(generator, ["entries_per_value", "reach"])
        log[key] = pick(generator, [*NUMBERS, 1, 2, 3, 64, 4096, 4097, 2**31, 2**31 + 1])
        layout["observations"] = pick(generator, [log, log, log, *NUMBERS])
        put_fact(path, "layout", layout)
    elif how == 2:
        found = values(path, "observations") or {number_key(0): b""}
        key, value = pick(generator, list(found.items()))
        at = int(generator.integers(len(value) + 1))
        news = [value[:at], value * 2, b"", b"\xc6\xff\xff\xff\xff" + value[5:], None]
        offsets = b"\xc6\0\0\0\x0c" + bytes(8) + b"\xff" * 4
        keys = [key, key, number_key(2**40), number_key(2**64 - 1), number_key(0), b"abc"]
        put(path, "observations", {pick(generator, keys): pick(generator, [*news, offsets])})
    elif how == 3:
        for key, value in values(path, "observations").items():
            entries = [bytes(entry) for entry in entries_in(value)]
            n = int(generator.integers(len(entries)))
            content = pick(generator, CONTENTS)
            entries[n] = entry_of(observation_id_in(entries[n]), content)
            put(path, "observations", {key: pack(entries)})
    else:
        odd_ids(path, generator)


def odd_ids(path: Path, generator: Generator) -> None:
    """Other numbers in records, where observation ids stand."""
    layout = fact(path, "layout")
    for key, value in list(values(path, "transitions").items())[:3]:
        size = len(value) // layout["records_per_value"]
        raw = bytearray(value)
        for begin in range(0, len(value) - size + 1, size):
            number = int(pick(generator, [-1, -(2**63), 2**63 - 1, 2**40, 0, 1, 5000]))
            raw[begin + 20 : begin + 28] = number.to_bytes(8, "big", signed=True)
            body = bytes(raw[begin + 10 : begin + size])
            raw[begin + 2 : begin + 10] = xxh3_64_intdigest(body).to_bytes(8, "big")
        put(path, "transitions", {key: bytes(raw)})
