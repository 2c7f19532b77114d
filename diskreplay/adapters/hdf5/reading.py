"""from_hdf5: a store made of a file."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import h5py
import numpy as np

import diskreplay
from diskreplay.adapters.dataset_stores import (
    CHUNK_BYTES,
    Rows,
    copy_rows,
    new_store,
    transitions,
)
from diskreplay.adapters.hdf5.columns import FLAT, check_lengths, dataset_of, reading
from diskreplay.adapters.hdf5.episodes import episodes_in, facts_in, rows_of_episodes


def from_hdf5(
    file: Any,
    path: Any,
    *,
    kind: str = "uniform",
    capacity: int | None = None,
    fields: Mapping[str, str] | None = None,
    **options: Any,
) -> int:
    """Make a store at `path` of a file of d3rlpy or D4RL, and return its number of transitions.

    The layout is found in the file. Fields have the types of the file. Where it has no
    next_observations, `next_state` is the observation of the following row; of a last row that is
    terminal it is the own observation, and another last row of an episode is no transition. Ends of
    episodes that are not terminal are `truncated`. Memory: some MiB, whatever the size of the file.

    Raises ArgumentError for a file of another layout, SchemaError for columns that do not fit, and
    StorageError where `path` is in use or the disk refuses. After an error there is nothing there.

    >>> import h5py
    >>> with h5py.File("walks.hdf5", "w") as file:
    ...     for name in ("observations", "actions", "rewards"):
    ...         file[name] = np.arange(6.0).reshape(6, 1)
    ...     file["terminals"] = file["timeouts"] = [False, False, True, False, False, False]
    >>> from_hdf5("walks.hdf5", "runs/walks")
    5

    kind:      "uniform" or "prioritized"
    capacity:  of the store, by default the number of rows
    fields:    further fields, and the datasets of n rows that they are:
               {"log_prob": "infos/action_log_probs"}
    options:   further arguments of the buffer, as observations="log"
    """
    try:
        source = h5py.File(file, "r")
    except OSError as error:
        raise diskreplay.ArgumentError(f"{file} cannot be read as HDF5: {error}") from None
    with source:
        with reading(file):
            is_episodic = "num_episodes" in source and "columns" in source
            more = dict(fields or {})
            if is_episodic:
                parts, rows = episodes_in(source, more), rows_of_episodes(source)
            else:
                parts = iter([_flat_columns(source, more)])
                rows = len(dataset_of(source, "rewards"))
            first = next(parts, None)
            if first is None or not rows:
                raise diskreplay.ArgumentError(f"{file} holds no rows (expected at least one)")
            facts = facts_in(source)
        schema = _schema_of(first, facts.get("single", ["reward"]))
        env = 0 if facts else None  # the episodes of another file are cut where they do not go on

        def chunks() -> Iterator[Rows]:
            with reading(file):
                for part in itertools.chain([first], parts):
                    _check_shapes(file, part, first)
                    yield from _chunks(part)

        with new_store(path, kind, capacity or rows, schema, options) as buffer:
            return copy_rows(transitions(chunks()), buffer, env)


def _check_shapes(file: Any, columns: Rows, first: Rows) -> None:
    """Raise SchemaError for an episode whose columns are not those of the first one."""
    found, expected = ({n: c.shape[1:] for n, c in part.items()} for part in (columns, first))
    if found != expected:
        raise diskreplay.SchemaError(
            f"{file}: expected columns with the shapes of the first episode, {expected} (found "
            f"{found})"
        )


def _flat_columns(source: Any, more: Mapping[str, str]) -> Rows:
    """Return the datasets of a file with a row for each step, by field."""
    columns = {
        field: dataset_of(source, name)
        for field, name in FLAT.items()
        if field != "next_state" or name in source
    }
    n = len(columns["reward"])
    columns |= {field: dataset_of(source, name) for field, name in more.items()}
    for name in ("timeouts", "episode_terminals"):
        if name in source:
            columns["end"] = dataset_of(source, name)
    if "timeouts" in source:
        columns["truncated"] = dataset_of(source, "timeouts")
    check_lengths(source.filename, columns, n)
    columns.setdefault("end", np.zeros(n, np.bool_))
    return columns


def _schema_of(columns: Rows, single: Any) -> diskreplay.Schema:
    """Return the fields of columns, with their types.

    single:  the fields that are single numbers, in files a column of one
    """
    fields: dict[str, Any] = {}
    for name, column in columns.items():
        shape = column.shape[1:]
        if name in single and shape == (1,):
            shape = ()
        if name not in ("done", "end", "truncated"):
            fields[name] = column.dtype, shape
    for name in [name for name in fields if name.partition("[")[0] == "state"]:
        fields.setdefault(f"next_{name}", fields[name])
    return diskreplay.Schema({**fields, "done": np.float32, "truncated": np.float32})


def _chunks(columns: Rows) -> Iterator[Rows]:
    """Yield the rows of datasets, some MiB at a time."""
    n = len(columns["end"])
    row_bytes = sum(c.dtype.itemsize * int(np.prod(c.shape[1:])) for c in columns.values())
    step = max(1, CHUNK_BYTES // max(1, row_bytes))
    for at in range(0, n, step):
        end = min(at + step, n)  # a column may have one row more
        rows = {name: column[at:end] for name, column in columns.items()}
        for name in ("end", "truncated"):
            if name in rows:
                rows[name] = rows[name].reshape(-1)  # in some files a table of one column
        yield rows
