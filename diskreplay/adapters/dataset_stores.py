"""Stores made of datasets: rows in order become transitions, in a store that appears whole.

Most datasets have a row for each step, without the observation after it. That is the state of the
following row, and the last row of an episode has none: where the episode is done it keeps its own
state, which no target looks at, and otherwise it is no transition, and the one before it ends the
episode as truncated.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

import diskreplay

__all__ = [
    "CHUNK_BYTES",
    "Buffer",
    "Rows",
    "copy_rows",
    "leaves",
    "new_store",
    "open_buffer",
    "other_rows",
    "transitions",
]

Buffer: TypeAlias = "diskreplay.ReplayBuffer | diskreplay.PrioritizedReplayBuffer"
Rows: TypeAlias = dict[str, Any]  # columns by the names of fields, and "end": where episodes end

CHUNK_BYTES = 4 << 20

_KINDS = {
    "uniform": diskreplay.ReplayBuffer,
    "prioritized": diskreplay.PrioritizedReplayBuffer,
}  # fmt: skip


@contextlib.contextmanager
def new_store(
    path: Any, kind: str, capacity: int, schema: Any, options: Mapping[str, Any]
) -> Iterator[Buffer]:
    """Yield the buffer of a store that gets its path when the block ends.

    After an error in the block nothing is left; a kill leaves a hidden directory beside the path.
    """
    if kind not in _KINDS:
        raise diskreplay.ArgumentError(
            f"kind must be one of {', '.join(_KINDS)} (found {kind!r:.100})"
        )
    target = Path(path).absolute()
    is_empty = target.is_dir() and not target.is_symlink() and not any(target.iterdir())
    if os.path.lexists(target) and not is_empty:
        raise diskreplay.StorageError(f"{target} exists: choose a path where nothing is")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".diskreplay-import-", dir=target.parent) as hidden:
            place = Path(hidden) / "store"
            settings = {"window_bytes": 0, **options}  # nothing is read again
            with _KINDS[kind](capacity, path=place, schema=schema, **settings) as buffer:
                yield buffer
            place.rename(target)
    except OSError as error:
        if isinstance(error, diskreplay.DiskReplayError):
            raise
        raise diskreplay.StorageError(f"cannot make a store at {target}: {error}") from error


@contextlib.contextmanager
def open_buffer(buffer: Any) -> Iterator[Buffer]:
    """Yield a buffer as it is, or that of the store at a path, opened for reading."""
    if isinstance(buffer, diskreplay.ReplayBuffer | diskreplay.PrioritizedReplayBuffer):
        yield buffer
        return
    with diskreplay.open(buffer, access="read", window_bytes=0) as opened:
        yield opened


def transitions(chunks: Iterable[Rows]) -> Iterator[Rows]:
    """Yield the transitions of rows in order, with `next_state` and `truncated`, in chunks.

    chunks:  columns of rows, with a bool column `end`; after the last row all is at its end. Where
             they have columns of next_state, every row is a transition. A column `truncated` says
             of a row that is done whether it is that, too
    """
    held: Rows | None = None
    for chunk in chunks:
        rows = chunk
        if held is not None:
            rows = {name: np.concatenate([held[name], chunk[name]]) for name in chunk}
        # The last row may be the last of all, and then it ends what the one before it belongs to.
        n = max(0, len(rows["end"]) - 2)
        if n:
            yield _transitions(rows, n)
        held = {name: column[n:] for name, column in rows.items()}
    if held is not None and len(held["end"]):
        held["end"] = np.append(held["end"][:-1] != 0, True)
        yield _transitions(held, len(held["end"]))


def _transitions(rows: Rows, n: int) -> Rows:
    """Return the transitions of the first n rows; the row after them tells how they go on."""
    dones = rows["done"] != 0
    dones = dones.all(axis=tuple(range(1, dones.ndim)))  # of several agents: where all are done
    ends = (rows["end"] != 0) | dones
    found = {name: column[:n] for name, column in rows.items() if name != "end"}
    is_both = dones & (rows["truncated"] != 0) if "truncated" in rows else np.zeros_like(dones)
    if any(_root(name) == "next_state" for name in rows):
        found["truncated"] = (is_both | (ends & ~dones))[:n]
        return found
    is_over = dones[:n]
    is_dropped = ends & ~dones
    follows_dropped = np.append(is_dropped, False)[1 : n + 1]
    found["truncated"] = is_both[:n] | (~ends[:n] & follows_dropped)
    after = np.minimum(np.arange(n) + 1, len(ends) - 1)
    for name, column in rows.items():
        if _root(name) == "state":
            places = np.where(ends[:n], np.arange(n), after)
            found[f"next_{name}"] = column[places]
    taken = is_over | ~ends[:n]
    return found if taken.all() else {name: column[taken] for name, column in found.items()}


def copy_rows(chunks: Iterable[Rows], buffer: Buffer, env: int | None = None) -> int:
    """Push transitions into a buffer, and return their number.

    env:  as of `extend`: None cuts an episode where a state is not the next_state before it
    """
    schema: Any = buffer.schema
    written = 0
    for rows in chunks:
        n = len(rows["done"])
        nested = schema.nested([_column(field, rows[field.name]) for field in schema.fields])
        extra = dict(zip(schema.extra_names, nested[5:], strict=True))
        truncateds = extra.pop("truncated")
        if n:
            buffer.extend(*nested[:5], truncateds=truncateds, env=env, **extra)
        written += n
    return written


def _column(field: diskreplay.Field, column: Any) -> Any:
    """Return a column of one number a row as numbers: many files have a table of one column."""
    if field.varies or field.shape or column.ndim == 1 or column.size != len(column):
        return column
    return column.reshape(-1)


def leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the columns of a nested value, by the names of their fields."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield from leaves(f"{name}.{key}", part)
    elif isinstance(value, tuple):
        for place, part in enumerate(value):
            yield from leaves(f"{name}[{place}]", part)
    else:
        yield name, value


def other_rows(states: Any, after: Any) -> Any:
    """Return the rows after which another observation comes than the following one, or none."""
    n = len(after)
    if isinstance(after, list):  # of texts
        return np.array([i for i in range(n) if after[i : i + 1] != states[i + 1 : i + 2]], int)
    is_same = np.zeros(n, np.bool_)
    if n > 1 and states.dtype == after.dtype:
        pair = (np.ascontiguousarray(part).reshape(n - 1, -1) for part in (states[1:], after[:-1]))
        following, found = (part.view(np.uint8) for part in pair)
        is_same[:-1] = (following == found).all(axis=1)
    return np.flatnonzero(~is_same)


def _root(name: str) -> str:
    return name.partition(".")[0].partition("[")[0]
