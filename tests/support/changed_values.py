"""Values of a store that are read and changed past the library, also to what it would not write."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lmdb
import msgpack
import numpy as np
from xxhash import xxh3_64_intdigest

from diskreplay.records.seals import seal, unseal

Generator = np.random.Generator
Mutation = tuple[str, Callable[[Path, Generator], None]]

NUMBERS = [
    -1, 0, 1, 7, 63, 2**15, 2**31, 2**33, 2**40, 2**40 + 1, 2**53, 2**62, 2**63 - 1, 2**63,
    2**64 - 1, -(2**63), True, None, 0.5, -0.0, float("nan"), float("inf"), 1e308, "", "7", b"",
    b"\0" * 16, [], {}, [[]], {"a": {}}, "x" * 5000,
]  # fmt: skip


def values(path: Path, database: str) -> dict[bytes, bytes]:
    with lmdb.open(str(path), max_dbs=8, readonly=True) as env:
        db = env.open_db(database.encode(), create=False)
        with env.begin(db=db) as txn:
            return dict(txn.cursor())


def put(path: Path, database: str, changes: dict[bytes, bytes | None]) -> None:
    with lmdb.open(str(path), max_dbs=8, map_size=1 << 42) as env:
        db = env.open_db(database.encode(), create=False)
        with env.begin(write=True, db=db) as txn:
            for key, value in changes.items():
                if value is None:
                    txn.delete(key)
                else:
                    txn.put(key, value)


def number_key(number: int) -> bytes:
    return number.to_bytes(8, sys.byteorder)


def fact(path: Path, name: str) -> Any:
    return unseal(values(path, "meta")[name.encode()], name, name)


def put_fact(path: Path, name: str, content: Any) -> None:
    try:
        sealed = seal(name, content)
    except OverflowError:  # beyond msgpack's numbers
        sealed = seal(name, None)
    put(path, "meta", {name.encode(): sealed})


def pick(generator: Generator, choices: list[Any]) -> Any:
    return choices[int(generator.integers(len(choices)))]


def sealed_body(key: str | int, body: bytes) -> bytes:
    """Seal what msgpack would not write."""
    body = msgpack.packb(key) + body
    return b"\x93\xcf" + xxh3_64_intdigest(body).to_bytes(8, "big") + body


def record(write_id: int, rest: bytes) -> bytes:
    body = b"\xd3" + write_id.to_bytes(8, "big", signed=True) + rest
    return b"\x97\xcf" + xxh3_64_intdigest(body).to_bytes(8, "big") + body
