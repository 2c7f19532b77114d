"""Read all that is in a store, in a process of its own, since a broken one may take it along."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import diskreplay
from crash.common import Ints, WrongRead, ask, numbers_of
from crash.ledger import Found
from diskreplay.store import Store

_BLOCK_SLOTS = 1000  # see docs/format.md


def examine(path: Path, access: str) -> tuple[Found | None, list[str], dict[str, Any]]:
    """Return what is in a store, what was read wrongly, and more facts.

    Opens it for reading, then again as a writer would. Raises RuntimeError with what went wrong
    when it does not open, does not pass `check`, or kills the process that reads it.
    """
    answer = ask(lambda: _examine(path, access))
    if "wrong" in answer:
        return None, answer["wrong"], answer
    numbers = np.array(answer["numbers"], np.int64)
    priorities = answer["priorities"]
    found = Found(
        answer["count"],
        numbers,
        None if priorities is None else np.array(priorities, np.float32),
    )
    wrong = []
    if answer["rows"] != found.count:
        wrong.append(f"{found.count} transitions were written, {answer['rows']} by all runs")
    return found, wrong, answer


def reader_slots(path: Path, access: str) -> list[int]:
    """Open a store, and return the process of each reader slot that is in use then."""
    with diskreplay.open(path, access=access) as buffer:
        lines = buffer._store._env.readers().splitlines()
    return [int(line.split()[0]) for line in lines if line.split()[0].isdigit()]


def _examine(path: Path, access: str) -> dict[str, Any]:
    try:
        with diskreplay.open(path, access="read") as buffer:
            numbers = _read(buffer)
            count, stats = buffer.count, buffer.stats()
        priorities = _priorities(path, numbers.size, stats)
        with diskreplay.open(path, access=access) as buffer:
            if (buffer.count, len(buffer)) != (count, numbers.size):
                raise WrongRead(f"{len(buffer)} of {buffer.count} for a writer, not for a reader")
            buffer.check()
            _sample(buffer, numbers)
    except WrongRead as error:
        return {"wrong": [str(error)]}
    return {
        "count": count,
        "numbers": numbers.tolist(),
        "priorities": priorities,
        "rows": sum(run["rows"] for run in stats["runs"]),
        "disk_bytes": stats["disk_bytes"],
    }


def _read(buffer: Any) -> Ints:
    buffer.check()
    count, size = buffer.count, len(buffer)
    numbers = np.zeros(0, np.int64)
    if size:
        ids = np.arange(count - size, count)
        parts = np.array_split(ids, -(-size // 5000))
        numbers = np.concatenate([numbers_of(buffer.get(part)) for part in parts])
        if [int(one.action) for one in buffer] != numbers.tolist():
            raise WrongRead("iterating gives other transitions than get()")
    _sample(buffer, numbers)
    return numbers


def _sample(buffer: Any, numbers: Ints) -> None:
    """Draw batches: each transition must be one of those that are live, and be under its id."""
    size = len(numbers)
    if not size:
        return
    for n in (1, min(size, 32), min(size, 256)):
        batch = buffer.sample(n)
        drawn = numbers_of(batch)
        if not np.isin(drawn, numbers).all():
            raise WrongRead(f"sample() gave what is not live: {drawn[~np.isin(drawn, numbers)]}")
        if hasattr(batch, "indices"):
            wanted = numbers[batch.indices - (buffer.count - size)]
            if not np.array_equal(drawn, wanted):
                raise WrongRead(f"sample() gave {drawn} for the write ids of {wanted}")


def _priorities(path: Path, size: int, stats: dict[str, Any]) -> list[float] | None:
    """Return the raw priorities of the live transitions, oldest first, from the store itself."""
    if stats["kind"] != "prioritized":
        return None
    capacity, count = stats["capacity"], stats["count"]
    slots = np.arange(count - size, count) % capacity
    numbers, at = np.unique(slots // _BLOCK_SLOTS, return_inverse=True)
    store = Store(path)
    try:
        with store.snapshot() as snapshot:
            blocks = snapshot.blocks(numbers.tolist())
    finally:
        store.close()
    found = np.zeros(size, np.float32)
    for i, number in enumerate(numbers.tolist()):
        block = np.frombuffer(blocks[number], "<f4")
        found[at == i] = block[slots[at == i] % _BLOCK_SLOTS]
    if size:
        facts = (float(found.min()), float(found.mean(dtype=np.float64)), float(found.max()))
        told = tuple(stats[f"priority_{name}"] for name in ("min", "mean", "max"))
        if facts != told:
            raise WrongRead(f"priorities from {told} in the buffer, {facts} in the store")
    return found.tolist()
