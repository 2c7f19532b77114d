"""Rows that any process can make again from their numbers, to see that what is read is whole.

The number of a row, which is its action, names its writer and its place among that writer's rows::

    number = writer << 32 | sequence        writer: a process that writes; never given twice

The next state of a row is the state of the next one, as in an environment.

Where one process alone writes, it has the number 0, and the numbers of rows are their write ids.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

import diskreplay

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]
Buffer = diskreplay.ReplayBuffer | diskreplay.PrioritizedReplayBuffer

_SEQUENCE = (1 << 32) - 1


class WrongRead(Exception):
    """What was read is not what any process pushed."""


def logged(width: int) -> dict[str, Any]:
    """Return the arguments of a buffer with states in the observation log.

    They are dictionaries, and compressed where the codec is installed.

    width:  numbers in a state, at least two
    """
    near = width // 2
    far = {"deep": ("float32", (width - near,))}
    state = {"near": ("float32", (near,)), "far": far}
    return {
        "observations": "log",
        "codec": "lz4" if find_spec("lz4") is not None else None,
        "schema": {
            "state": state,
            "action": "int64",
            "reward": "float32",
            "next_state": state,
            "done": "float32",
        },
    }


def numbers_from(writer: int, first: int, n: int) -> Ints:
    """Return the numbers of n rows of a writer, from a sequence number on."""
    return (writer << 32) + np.arange(first, first + n, dtype=np.int64)


def writers_of(numbers: Ints) -> Ints:
    """Return the process that pushed each row."""
    return numbers >> 32


def sequences_of(numbers: Ints) -> Ints:
    """Return the place of each row among those of its writer, from 0."""
    return numbers & _SEQUENCE


def newest_of(numbers: Ints) -> list[list[int]]:
    """Return the newest of the rows of each writer, as pairs of writer and sequence number."""
    writers, sequences = writers_of(numbers), sequences_of(numbers)
    return [[int(w), int(sequences[writers == w].max())] for w in np.unique(writers)]


def columns_of(numbers: Ints, width: int) -> list[NDArray[Any]]:
    """Return states, actions, rewards, next states and dones; a state is `width` numbers."""
    more = _mixed(numbers)
    rewards = (more >> 41).astype(np.float32)
    states, next_states = _states(numbers, width), _states(numbers + 1, width)
    return [states, numbers, rewards, next_states, (more & 1).astype(np.bool_)]


def columns_for(buffer: Buffer, numbers: Ints, width: int) -> list[Any]:
    """Return rows as the first arguments of `extend`, with states nested where the buffer's are."""
    columns: list[Any] = columns_of(numbers, width)
    if buffer.schema is not None and "state.near" in buffer.schema.names:
        near = width // 2
        for place in (0, 3):
            whole = columns[place]
            columns[place] = {"near": whole[:, :near], "far": {"deep": whole[:, near:]}}
    return columns


def rows_for(buffer: Buffer, numbers: Ints, width: int) -> list[tuple[Any, ...]]:
    """Return rows as the first arguments of `push`, see `columns_for`."""
    columns = columns_for(buffer, numbers, width)
    return [tuple(_row(column, at) for column in columns) for at in range(len(numbers))]


def _row(column: Any, at: int) -> Any:
    if isinstance(column, dict):
        return {name: _row(part, at) for name, part in column.items()}
    return column[at]


def _whole(states: Any) -> NDArray[Any]:
    """Return states as arrays, also where they are nested."""
    if isinstance(states, dict):
        return np.concatenate([states["near"], states["far"]["deep"]], axis=1)
    return np.asarray(states)


def changed(batch: Sequence[Any], numbers: Ints) -> list[int]:
    """Return the numbers of those rows in a batch that are not what was pushed."""
    wrong = np.zeros(len(numbers), np.bool_)
    states, actions, rewards, next_states, dones, *_ = batch
    columns = [_whole(states), actions, rewards, _whole(next_states), dones]
    for found, wanted in zip(columns, columns_of(numbers, columns[0].shape[1]), strict=True):
        differs = found != wanted.astype(found.dtype)
        wrong |= differs.reshape(len(numbers), -1).any(axis=1)
    return [int(number) for number in numbers[wrong]]


def numbers_of(batch: Sequence[Any]) -> Ints:
    """Return the numbers of the rows in a batch; raise WrongRead when one is not whole."""
    numbers: Ints = batch[1]
    if broken := changed(batch, numbers):
        raise WrongRead(
            f"{len(broken)} of {len(numbers)} transitions are not whole: "
            f"those with the numbers {broken[:10]}"
        )
    return numbers


def pushed_priorities(numbers: Ints) -> Floats:
    """Return the priorities that rows are pushed with, in [0.5, 1)."""
    return (0.5 + (_mixed(numbers) >> 41) / 2.0**24).astype(np.float32)


def updated_priorities(writer: int, first: int, n: int) -> Floats:
    """Return the priorities of a writer's n updates from the first-th on, in [1, 2)."""
    return (1 + (_mixed(numbers_from(writer, first, n)) >> 41) / 2.0**23).astype(np.float32)


def _states(numbers: Ints, width: int) -> Floats:
    places = np.arange(1, width + 1)
    return (_mixed(numbers[:, None] * 4099 + places) >> 41).astype(np.float32)


def _mixed(numbers: Ints) -> NDArray[np.uint64]:
    """Return 64 bits for each number that look random. Source: Vigna's splitmix64."""
    z = numbers.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


# Buffers that one process alone wrote


def extend(buffer: Buffer, n: int, width: int) -> None:
    """Extend a buffer by n rows, whose numbers are their write ids."""
    buffer.extend(*columns_for(buffer, numbers_from(0, buffer.count, n), width))


def live_ids(buffer: Buffer) -> Ints:
    """Return the write ids of the live rows."""
    return np.arange(buffer.first, buffer.count)


def changed_in(buffer: Buffer) -> list[int]:
    """Return the write ids of live rows that are not what was pushed."""
    ids = live_ids(buffer)
    parts = [ids[at : at + 64] for at in range(0, len(ids), 64)]
    return [wrong for part in parts for wrong in changed(buffer.get(part), part)]


def fingerprint(buffer: Buffer) -> dict[str, Any]:
    """Return what a commit fixes beside the rows themselves: the same for the same commit alone."""
    stats = buffer.stats()
    names = ["commits", "count", "size", "stale_updates"]
    if not isinstance(buffer, diskreplay.PrioritizedReplayBuffer):
        return {name: stats[name] for name in names}
    priorities = buffer.priorities(live_ids(buffer)).tobytes()
    found = {name: stats[name] for name in [*names, "max_priority", "frame"]}
    return {**found, "priorities": hashlib.sha256(priorities).hexdigest()}
