"""Datasets in HDF5: those of d3rlpy, of its first version, and of D4RL, with h5py alone.

::

    d3rlpy       observations_0, actions_0, rewards_0, terminated_0, observations_1, ...: a set for
                 each episode; columns, num_episodes, version
    MDPDataset   observations, actions, rewards, terminals, episode_terminals: a row for each step
    D4RL         observations, actions, rewards, terminals, timeouts, and mostly next_observations

Of d3rlpy an episode that is not terminated has a last row that is no transition, since there is no
observation after it.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

try:
    import h5py
except ModuleNotFoundError as error:
    if error.name != "h5py":
        raise
    raise ModuleNotFoundError(
        "diskreplay.adapters.hdf5 needs h5py, which is not installed: "
        'pip install "diskreplay[hdf5]"',
        name="h5py",
    ) from None

import diskreplay
from diskreplay.adapters.dataset_stores import (
    CHUNK_BYTES,
    Buffer,
    Rows,
    copy_rows,
    new_store,
    open_buffer,
    transitions,
)

__all__ = ["from_hdf5", "to_hdf5"]

_FLAT = {
    "state": "observations",
    "action": "actions",
    "reward": "rewards",
    "done": "terminals",
    "next_state": "next_observations",
}
_EPISODIC = {
    "state": "observations",
    "action": "actions",
    "reward": "rewards",
    "done": "terminated",
}
_LAYOUTS = ("d3rlpy", "d4rl")
_VERSION = "2.1"  # of d3rlpy's files, since its version 2.1


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
        is_episodic = "num_episodes" in source and "columns" in source
        more = dict(fields or {})
        if is_episodic:
            parts, rows = _episodes_in(source, more), _rows_of_episodes(source)
        else:
            parts, rows = iter([_flat_columns(source, more)]), len(_dataset(source, "rewards"))
        first = next(parts, None)
        if first is None or not rows:
            raise diskreplay.ArgumentError(f"{file} holds no rows (expected at least one)")
        schema = _schema_of(first)

        def chunks() -> Iterator[Rows]:
            yield from _chunks(first)
            for part in parts:
                yield from _chunks(part)

        with new_store(path, kind, capacity or rows, schema, options) as buffer:
            return copy_rows(transitions(chunks()), buffer)


def to_hdf5(buffer: Any, file: Any, *, layout: str = "d3rlpy") -> int:
    """Write the whole episodes of a buffer, or of the store at a path, to a new file.

    Returns the number of transitions written. Episodes that are still open, and those whose
    beginning was evicted, are left out: `end_episode()` closes one. "d4rl" keeps all columns; the
    further fields are datasets of their names. "d3rlpy" has no place for the observation after the
    end of an episode that is done, and for further fields; an episode that is not done gets one
    more row, for its last observation, so that d3rlpy makes the same transitions of it. Memory: one
    episode. After an error there is no file.

    Raises ArgumentError for observations that a layout does not have: dictionaries, and tuples in
    "d4rl"; and where there is a file already.

    >>> with ReplayBuffer(capacity=10, path="runs/a") as buffer:
    ...     for i in range(4):
    ...         _ = buffer.push([float(i)], 0, 1.0, [i + 1.0], done=i == 3)
    >>> to_hdf5("runs/a", "a.h5"), from_hdf5("a.h5", "runs/b")
    (4, 4)
    """
    if layout not in _LAYOUTS:
        raise diskreplay.ArgumentError(
            f"layout must be one of {', '.join(_LAYOUTS)} (found {layout!r:.100})"
        )
    target = Path(file).absolute()
    if os.path.lexists(target):
        raise diskreplay.ArgumentError(f"{target} exists: give another name")
    with open_buffer(buffer) as opened, _new_file(target) as made:
        _check_layout(opened, layout)
        write = _write_episodes if layout == "d3rlpy" else _write_flat
        return write(opened, made)


@contextlib.contextmanager
def _new_file(target: Path) -> Iterator[Any]:
    """Yield a file that gets its name when the block ends."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".diskreplay-export-", dir=target.parent) as hidden:
        place = Path(hidden) / target.name
        with h5py.File(place, "w") as made:
            yield made
        place.rename(target)


# Reading


def _dataset(source: Any, name: str) -> Any:
    found = source.get(name)
    if not isinstance(found, h5py.Dataset):
        there = ", ".join(sorted(source)[:12])
        raise diskreplay.ArgumentError(
            f"{source.file.filename} has no dataset {name!r} (found {there}): expected a file of "
            "d3rlpy or D4RL"
        )
    return found


def _flat_columns(source: Any, more: Mapping[str, str]) -> Rows:
    """Return the datasets of a file with a row for each step, by field."""
    columns = {
        field: _dataset(source, name)
        for field, name in _FLAT.items()
        if field != "next_state" or name in source
    }
    n = len(columns["reward"])
    columns |= {field: _dataset(source, name) for field, name in more.items()}
    for name in ("timeouts", "episode_terminals"):
        if name in source:
            columns["end"] = _dataset(source, name)
    for field, column in columns.items():
        if len(column) != n:
            raise diskreplay.ArgumentError(
                f"{source.filename}: {field} has {len(column)} rows (expected {n}, as reward)"
            )
    columns.setdefault("end", np.zeros(n, np.bool_))
    return columns


def _rows_of_episodes(source: Any) -> int:
    return sum(len(_dataset(source, f"rewards_{i}")) for i in range(source["num_episodes"][()]))


def _episodes_in(source: Any, more: Mapping[str, str]) -> Iterator[Rows]:
    """Yield the datasets of each episode of a file of d3rlpy, by field."""
    if more:
        raise diskreplay.ArgumentError(
            f"a file of d3rlpy has no further fields (found {', '.join(more)}): leave fields= away"
        )
    for number in range(source["num_episodes"][()]):
        columns: Rows = {}
        for field in ("state", "action", "reward"):
            name = f"{_EPISODIC[field]}_{number}"
            places = 0
            while f"{name}_{places}" in source:
                columns[f"{field}[{places}]"] = source[f"{name}_{places}"]
                places += 1
            if not places:
                columns[field] = _dataset(source, name)
        n = len(columns["reward"])
        end = np.arange(n) == n - 1
        is_terminated = bool(_dataset(source, f"terminated_{number}")[()])
        yield {**columns, "done": end & is_terminated, "end": end}


def _schema_of(columns: Rows) -> diskreplay.Schema:
    """Return the fields of columns, with their types."""
    fields: dict[str, Any] = {}
    for name, column in columns.items():
        shape = column.shape[1:]
        if name == "reward" and shape == (1,):
            shape = ()
        if name not in ("done", "end"):
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
        yield {name: column[at : at + step] for name, column in columns.items()}


# Writing


def _check_layout(buffer: Buffer, layout: str) -> None:
    """Raise ArgumentError for fields that a layout has no place for."""
    for field in () if buffer.schema is None else buffer.schema.fields:
        root = field.name.partition(".")[0].partition("[")[0]
        is_observation = root in ("state", "next_state")
        if layout == "d3rlpy" and not is_observation and root != "action":
            continue
        has_parts = field.name != root and not (
            layout == "d3rlpy" and is_observation and "." not in field.name
        )
        if has_parts or field.varies:
            raise diskreplay.ArgumentError(
                f"{layout} has no place for the field {field.name!r}, {field.type}: "
                "diskreplay.transform() can remove it, or make one array of the parts of a value"
            )


def _write_episodes(buffer: Buffer, made: Any) -> int:
    written = number = 0
    for number, episode in enumerate(buffer.episodes(), 1):
        n = len(episode.rewards)
        is_terminated = bool(np.any(episode.dones[-1]))
        last = slice(n - 1, n)
        states, actions = episode.states, episode.actions
        rewards = np.asarray(episode.rewards).reshape(n, -1)
        if not is_terminated:
            # The last row of such an episode is no transition, and has the last observation.
            actions = np.concatenate([actions, np.zeros_like(actions[last])])
            rewards = np.concatenate([rewards, np.zeros_like(rewards[last])])
        parts = states if isinstance(states, tuple) else (states,)
        after = episode.next_states if isinstance(states, tuple) else (episode.next_states,)
        for place, (part, of_next) in enumerate(zip(parts, after, strict=True)):
            name = f"observations_{number - 1}"
            if isinstance(states, tuple):
                name = f"{name}_{place}"
            made[name] = part if is_terminated else np.concatenate([part, of_next[last]])
        made[f"actions_{number - 1}"] = actions if actions.ndim > 1 else actions[:, None]
        made[f"rewards_{number - 1}"] = rewards
        made[f"terminated_{number - 1}"] = is_terminated
        written += n
    made["columns"] = [*_EPISODIC.values()]
    made["num_episodes"] = number
    made["version"] = _VERSION
    return written


def _write_flat(buffer: Buffer, made: Any) -> int:
    written = 0
    schema: Any = buffer.schema
    extra = () if schema is None else schema.extra_names
    for episode in buffer.episodes():
        n = len(episode.rewards)
        dones = np.asarray(episode.dones).reshape(n) != 0
        columns = {
            "observations": episode.states,
            "actions": episode.actions,
            "rewards": episode.rewards,
            "next_observations": episode.next_states,
            "terminals": dones,
            "timeouts": (np.arange(n) == n - 1) & ~dones,
        }
        columns |= {name: getattr(episode, name) for name in extra if name != "truncated"}
        for name, column in columns.items():
            if name not in made:
                shape = column.shape[1:]
                made.create_dataset(
                    name, (0, *shape), column.dtype, chunks=True, maxshape=(None, *shape)
                )
            made[name].resize(written + n, axis=0)
            made[name][written:] = column
        written += n
    return written
