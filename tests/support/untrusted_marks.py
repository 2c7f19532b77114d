"""Mutations of the marks of a sound store, and of what is kept for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lmdb
from changed_values import NUMBERS, Generator, fact, pick, put, put_fact, sealed_body, values

from diskreplay.records.seals import seal, unseal

MARKS = ("marks", "kept_blocks", "notes")
NAMES = ["a", "", "x" * 400, "\x1b[2J", "priorities 0 0", "b\nc", "links", "\u202e"]
BODIES = [b"\x91" * 100_000, b"\xdd\xff\xff\xff\xff", b"\xc1", b"\x81" * 50_000, b"\x90", b""]


def databases(path: Path) -> set[str]:
    """Return the names of the databases of a store."""
    with lmdb.open(str(path), max_dbs=8, readonly=True) as env, env.begin() as txn:
        return {
            bytes(name).decode("utf-8", "replace") for name in txn.cursor().iternext(values=False)
        }


def odd_marks(path: Path, generator: Generator) -> None:
    """An odd mark, kept block, note, or entry of the state that tells of them."""
    how = int(generator.integers(4))
    if how == 0 or not values(path, "marks"):
        state = fact(path, "state")
        table = pick(generator, ["marks", "rewinds"])
        facts = state.get(table) or {"made": 3, "newest": 1, "first": 5, "number": 1, "reached": 99}
        numbers = [*NUMBERS, 0, 1, 2, 59, 99, 2**40, 2**61]
        facts[pick(generator, list(facts))] = pick(generator, numbers)
        state[table] = pick(generator, [facts, facts, facts, *NUMBERS])
        put_fact(path, "state", state)
    elif how == 1:
        name, content = pick(generator, list(contents(path, "marks").items()))
        state = content["state"]
        place: Any = pick(generator, [content, state, state, content["notes"]])
        place[pick(generator, list(place))] = pick(generator, [*NUMBERS, 1, 40, 100, 2**40, 2**61])
        put_named(path, "marks", name, content)
    elif how == 2:
        database = pick(generator, list(MARKS))
        name = pick(generator, [*NAMES, *contents(path, database)])
        if generator.random() < 0.5:
            put(
                path,
                database,
                {name.encode()[:500] or b"x": sealed_body(name, pick(generator, BODIES))},
            )
        else:
            put_named(path, database, name, pick(generator, NUMBERS))
    else:
        name, content = pick(generator, list(contents(path, "kept_blocks").items()))
        inner = [None, content, content[:-1], b"", seal(0, b"\xff" * 240), seal(5, bytes(240)),
                 seal(0, bytes(239)), seal(0, None), seal(0, bytes(10**5)), 7]  # fmt: skip
        names = [name, f"priorities {7:016x} {0:016x}", f"priorities {0:016x} {2**63:016x}",
                 f"meta {0:016x} {0:016x}", f"priorities {0:016X} {10:016X}"]  # fmt: skip
        put_named(path, "kept_blocks", pick(generator, names), pick(generator, inner))


def contents(path: Path, database: str) -> dict[str, Any]:
    """Return what names stand for."""
    found = {key.decode(): raw for key, raw in values(path, database).items()}
    return {name: unseal(raw, name, name) for name, raw in found.items()}


def put_named(path: Path, database: str, name: str, content: Any) -> None:
    """Put what a name stands for."""
    try:
        raw = seal(name, content)
    except OverflowError:  # beyond msgpack's numbers
        raw = seal(name, None)
    put(path, database, {name.encode()[:500] or b"x": raw})
