"""Read all that is in a store, in a process of its own, since a broken store may end it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lmdb
import numpy as np

import diskreplay
from crash.ledger import Found
from crash.processes import ask
from crash.rows import Buffer, Ints, WrongRead, live_ids, numbers_of


def examine(path: Path, access: str) -> tuple[Found | None, list[str], dict[str, Any]]:
    """Return what is in a store, what was read wrongly, and its `stats`.

    Opens it for reading, then again as a writer would. Raises RuntimeError with what went wrong
    when it does not open, does not pass `check`, or kills the process that reads it.
    """
    answer = ask(lambda: _examine(path, access))
    if "wrong" in answer:
        return None, [answer["wrong"]], {}
    stats, priorities = answer["stats"], answer["priorities"]
    found = Found(
        stats["count"],
        np.array(answer["numbers"], np.int64),
        None if priorities is None else np.array(priorities, np.float32),
    )
    rows = sum(run["rows"] for run in stats["runs"])
    if rows != found.count:
        return found, [f"{found.count} transitions were written, {rows} by all runs"], stats
    return found, [], stats


def reader_slots(path: Path, access: str) -> list[int]:
    """Open and close a store, and return the process of each reader slot that is in use then."""
    diskreplay.open(path, access=access).close()
    with lmdb.open(str(path), create=False, readonly=True) as environment:
        lines = environment.readers().splitlines()
    return [int(line.split()[0]) for line in lines if line.split()[0].isdigit()]


def _examine(path: Path, access: str) -> dict[str, Any]:
    try:
        with diskreplay.open(path, access="read") as buffer:
            numbers = _read(buffer)
            stats = buffer.stats()
            priorities = _priorities(buffer, stats)
        with diskreplay.open(path, access=access) as buffer:
            if (buffer.count, len(buffer)) != (stats["count"], numbers.size):
                raise WrongRead(f"{len(buffer)} of {buffer.count} for a writer, not for a reader")
            buffer.check()
            check_batches(buffer, numbers)
    except WrongRead as error:
        return {"wrong": str(error)}
    return {"stats": stats, "numbers": numbers.tolist(), "priorities": priorities}


def _read(buffer: Buffer) -> Ints:
    """Return the numbers of all live rows, read in every way."""
    buffer.check()
    ids = live_ids(buffer)
    numbers = np.zeros(0, np.int64)
    if ids.size:
        parts = np.array_split(ids, -(-ids.size // 5000))
        numbers = np.concatenate([numbers_of(buffer.get(part)) for part in parts])
    check_iteration(buffer, numbers)
    check_batches(buffer, numbers)
    return numbers


def check_iteration(buffer: Buffer, numbers: Ints) -> None:
    """Iterate: raise WrongRead when that gives other rows, or another order."""
    if [int(one.action) for one in buffer] != numbers.tolist():
        raise WrongRead("iterating gives other transitions than get()")


def check_batches(buffer: Buffer, numbers: Ints) -> None:
    """Draw batches: raise WrongRead when a row is none of those that are live, or not whole."""
    size = len(numbers)
    for n in {min(size, most) for most in (1, 32, 256)} - {0}:
        batch = buffer.sample(n)
        drawn = numbers_of(batch)
        if not np.isin(drawn, numbers).all():
            raise WrongRead(f"sample() gave what is not live: {drawn[~np.isin(drawn, numbers)]}")
        wanted = numbers[batch.indices - buffer.first]
        if not np.array_equal(drawn, wanted):
            raise WrongRead(f"sample() gave {drawn} for the write ids of {wanted}")


def _priorities(buffer: Buffer, stats: dict[str, Any]) -> list[float] | None:
    """Return the raw priorities of the live rows, oldest first, as the store has them."""
    if not isinstance(buffer, diskreplay.PrioritizedReplayBuffer):
        return None
    found = buffer.priorities(live_ids(buffer))
    if found.size:
        facts = (float(found.min()), float(found.mean(dtype=np.float64)), float(found.max()))
        told = tuple(stats[f"priority_{name}"] for name in ("min", "mean", "max"))
        if facts != told:
            raise WrongRead(f"priorities from {told} in the statistics, {facts} one by one")
    return [float(priority) for priority in found]
