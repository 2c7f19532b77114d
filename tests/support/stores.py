"""Small stores of every kind, and ways to change a value past the library."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
from common import columns, numbers_of
from inside import replica_of, store_of

import diskreplay
from diskreplay import PrioritizedReplayBuffer, ReplayBuffer
from diskreplay.lmdbfile.pages import DataFile
from diskreplay.lmdbfile.walk import Walk
from diskreplay.records.grouping import grouping_for
from diskreplay.records.seals import seal, unseal
from diskreplay.store.store import Store

PAGE = 4096
RECORD_BYTES = 66  # of `columns`


FIELDS: dict[str, Any] = {
    "state": ("float32", (3,)),
    "action": "int64",
    "reward": "float32",
    "next_state": ("float32", (3,)),
    "done": "float32",
}


def laid_out(path: Path, records_per_value: int) -> None:
    """Have a store that has a schema, and no row yet, keep so many records in a value."""
    layout = unseal(stored(path, "meta", "layout"), "layout", "layout")
    layout["records_per_value"] = records_per_value
    change(path, "meta", "layout", seal("layout", layout))


def uniform(path: Path) -> Path:
    """Several leaf pages of records, each a value; two runs, more than one lap."""
    ReplayBuffer(capacity=300, path=path, seed=1, schema=FIELDS).close()
    laid_out(path, 1)
    for _ in range(2):
        with ReplayBuffer(capacity=300, path=path, seed=1) as buffer:
            buffer.extend(*columns(buffer.count, 200).values())
            buffer.flush()
            buffer.extend(*columns(buffer.count, 30).values())
            buffer.sample(8)
    return path


def prioritized(path: Path) -> Path:
    """Two priority blocks, one of them on its own page, after a clear; each record is a value."""
    PrioritizedReplayBuffer(capacity=1100, path=path, seed=1, schema=FIELDS).close()
    laid_out(path, 1)
    with PrioritizedReplayBuffer(capacity=1100, path=path, seed=1) as buffer:
        buffer.extend(*columns(0, 1000).values(), priorities=np.arange(1000) / 7)
        buffer.flush()
        buffer.clear()
        buffer.extend(*columns(1000, 350).values(), priorities=np.arange(350) / 3)
        buffer.sample(8)
    return path


def large(path: Path) -> Path:
    """Records that take several pages each."""
    with ReplayBuffer(capacity=20, path=path, seed=1) as buffer:
        for first in range(0, 30, 10):
            values = list(columns(first, 10).values())
            values[0] = values[3] = np.arange(first * 1500, (first + 10) * 1500).reshape(10, 1500)
            buffer.extend(*values)
            buffer.flush()
    return path


def packed(path: Path) -> Path:
    """Two records to a value in a leaf; the last value has one."""
    return _wide(path, capacity=101, rows=22, width=120, per_value=2)


def packed_pages(path: Path) -> Path:
    """Seven records to a value of four pages; the last value has three."""
    return _wide(path, capacity=24, rows=5, width=252, per_value=7)


def _wide(path: Path, *, capacity: int, rows: int, width: int, per_value: int) -> Path:
    schema = FIELDS | dict.fromkeys(("state", "next_state"), ("float32", (width,)))
    ReplayBuffer(capacity=capacity, path=path, seed=1, schema=schema).close()
    laid_out(path, per_value)
    with ReplayBuffer(capacity=capacity, path=path, seed=1) as buffer:
        for first in range(0, capacity * 3 // 2, rows):
            values = list(columns(first, rows).values())
            numbers = np.arange(first * width, (first + rows) * width, dtype=np.float32)
            values[0] = values[3] = numbers.reshape(rows, width)
            buffer.extend(*values)
            buffer.flush()
        assert replica_of(buffer).rows._grouping.per_value == per_value
    return path


def logged(path: Path) -> Path:
    """States in the observation log, the oldest of which are gone; after a clear and more laps."""
    arguments: Any = {"seed": 1, "schema": FIELDS, "observations": "log"}
    with PrioritizedReplayBuffer(capacity=200, path=path, **arguments) as buffer:
        buffer.extend(*columns(0, 60).values(), priorities=np.arange(60) / 7)
        buffer.flush()
        buffer.clear()
        for first in range(60, 1000, 47):
            numbers = np.arange(first, min(first + 47, 1000))
            given = np.float32(numbers / 7)
            buffer.extend(*columns(first, numbers.size).values(), priorities=given)
            buffer.flush()
        buffer.sample(8)
    return path


def logged_frames(path: Path) -> Path:
    """Stacks of frames in the log, compressed, with several pages to a value."""
    with ReplayBuffer(40, path=path, seed=1, observations="log", frame_axis=0) as buffer:
        for first in range(0, 90, 9):
            values = list(columns(first, 9).values())
            values[0] = values[3] = np.arange(first * 1500, (first + 9) * 1500).reshape(9, 3, 500)
            buffer.extend(*values)
            buffer.flush()
    return path


def varying(path: Path) -> Path:
    """Texts, bytes and arrays of any length in the log, the oldest of which are gone."""
    schema = {"tokens": ("int32", (None,)), "points": ("float32", (None, 3)), "blob": bytes}
    with ReplayBuffer(60, path=path, seed=1, schema=schema) as buffer:
        for i in range(150):
            more: dict[str, Any] = {"tokens": np.arange(i % 40), "points": np.full((i % 3, 3), i)}
            more |= {"blob": bytes([i]) * i, "note": f"text {i} " * 5}
            buffer.push([i], i, i / 8, [i], i % 5 == 4, **more)
            if i % 20 == 0:
                buffer.flush()
    return path


def empty(path: Path) -> Path:
    ReplayBuffer(capacity=10, path=path).close()
    return path


# A ring that went round, one that was cleared, several records in a value, pages of their own,
# an observation log, and values that vary in size.
MAKERS = [
    uniform, prioritized, large, packed, packed_pages, logged, logged_frames, varying
]  # fmt: skip


def change(path: Path, database: str, key: str | int, value: bytes | None) -> None:
    """Put a value into a store past the library, or delete it."""
    with lmdb.open(str(path), max_dbs=8, map_size=1 << 42) as env:
        db = env.open_db(database.encode(), create=False)
        raw = key.to_bytes(8, sys.byteorder) if isinstance(key, int) else key.encode()
        with env.begin(write=True, db=db) as txn:
            if value is None:
                assert txn.delete(raw)
            else:
                txn.put(raw, value)


def stored(path: Path, database: str, key: str | int) -> bytes:
    with lmdb.open(str(path), max_dbs=8, readonly=True) as env:
        db = env.open_db(database.encode(), create=False)
        raw = key.to_bytes(8, sys.byteorder) if isinstance(key, int) else key.encode()
        with env.begin(db=db) as txn:
            value = txn.get(raw)
            assert value is not None
            return bytes(value)


def stream_of(buffer: Any) -> Any:
    """The random stream that a store holds: seed and number of draws, or its generator of old."""
    with store_of(buffer).snapshot() as snapshot:
        state = snapshot.meta("state")
    return state.get("seed", state.get("generator")), state.get("draws")


def told(path: Path) -> tuple[Any, ...]:
    """All that a store holds: live write ids, transitions, priorities, random stream, facts."""
    with diskreplay.open(path, access="read") as buffer:
        buffer.check()
        ids = np.arange(buffer.count - len(buffer), buffer.count)
        numbers = numbers_of(buffer.get(ids)).tolist() if ids.size else []
        prioritized = isinstance(buffer, PrioritizedReplayBuffer)
        priorities = buffer.priorities(ids).tolist() if prioritized else []
        stats = buffer.stats()
        kept = ["count", "runs", "stale_updates", "commits", "durability"]
        kept += ["alpha", "beta", "frame", "max_priority"] * prioritized
        facts = {name: stats[name] for name in kept}
        return ids.tolist(), numbers, priorities, facts, stream_of(buffer)


def content_of_column(column: Any) -> Any:
    """The elements of a batch, comparable; values that vary in size are in a list."""
    if isinstance(column, list):
        return [(v.shape, v.tobytes()) if isinstance(v, np.ndarray) else v for v in column]
    return column.tobytes()


def kept(path: Path) -> tuple[Any, ...]:
    """All that a store keeps when its data file is made anew, whatever its kind becomes."""
    with diskreplay.open(path, access="read") as buffer:
        buffer.check()
        ids = np.arange(buffer.first, buffer.count)
        rows = [*map(content_of_column, buffer.get(ids))] if ids.size else []
        stats = buffer.stats()
        names = ("size", "count", "capacity", "schema", "durability", "commit_interval")
        facts = {name: stats[name] for name in (*names, "commits", "runs", "stale_updates")}
        return rows, facts, stream_of(buffer), buffer.first, store_of(buffer).identity.uuid


@contextlib.contextmanager
def walk_of(path: Path) -> Iterator[Walk]:
    """Open the data file of a sound store, and yield a walk that knows its free pages."""
    file = DataFile(os.open(path / "data.mdb", os.O_RDONLY))
    try:
        walk = Walk(file, file.metas()[0][0])
        walk.collect_free()
        yield walk
    finally:
        file.close()


def records_in(store: Store, slots: list[int]) -> list[bytes]:
    """Return the records in slots of an open store, where each is a value."""
    with store.snapshot() as snapshot:
        return [bytes(record) for record in snapshot.records(np.array(slots))]


def spoil(path: Path, slots: list[int], record_bytes: int = RECORD_BYTES) -> None:
    """Change a bit of the record in each slot, through the engine: no page is damaged."""
    for slot in slots:
        group, within = divmod(slot, grouping_for(record_bytes).per_value)
        value = bytearray(stored(path, "transitions", group))
        value[(within + 1) * record_bytes - 7] ^= 4
        change(path, "transitions", group, bytes(value))
