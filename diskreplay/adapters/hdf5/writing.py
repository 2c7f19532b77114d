"""to_hdf5: a file made of the episodes of a store."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

import diskreplay
from diskreplay.adapters.dataset_stores import Buffer, open_buffer
from diskreplay.adapters.hdf5.episodes import write_episodes

_LAYOUTS = ("d3rlpy", "d4rl")
_STANDARD = ("state", "action", "reward", "next_state", "done")


def to_hdf5(buffer: Any, file: Any, *, layout: str = "d3rlpy") -> int:
    """Write the whole episodes of a buffer, or of the store at a path, to a new file.

    Returns the number of transitions written. Episodes that are still open, and those whose
    beginning was evicted, are left out: see `episodes`. "d4rl" keeps all columns; the
    further fields are datasets of their names. "d3rlpy" is read by d3rlpy, which has no place for
    the observation after the end of an episode that is done, and for further fields: they are in a
    group of their own, `diskreplay`, which `from_hdf5` reads; only fields whose size varies are
    left out. An episode that is not done gets one more row, for its last observation, so that
    d3rlpy makes the same transitions of it. Memory: one episode. After an error there is no file.

    Raises ArgumentError for observations that a layout does not have: dictionaries, and tuples in
    "d4rl"; and where there is a file already.

    >>> from diskreplay.adapters.hdf5 import from_hdf5
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
        write = write_episodes if layout == "d3rlpy" else _write_flat
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


def _check_layout(buffer: Buffer, layout: str) -> None:
    """Raise ArgumentError for fields that a layout has no place for."""
    schema: Any = buffer.schema
    for field in () if schema is None else schema.fields:
        root = field.name.partition(".")[0].partition("[")[0]
        is_observation = root in ("state", "next_state")
        is_alone = root == field.name and not field.varies
        if is_observation and layout == "d3rlpy":
            is_alone = not field.varies and "." not in field.name and field.name.count("[") < 2
        if root == "done":
            is_alone = int(np.prod(field.shape)) == 1
        if not is_alone and (layout == "d4rl" or root in _STANDARD):
            raise diskreplay.ArgumentError(
                f"{layout} has no place for the field {field.name!r}, {field.type}: "
                "diskreplay.transform() can remove it, or make one array of the parts of a value"
            )
        if root == "next_state" and schema[field.name.removeprefix("next_")].shape != field.shape:
            raise diskreplay.ArgumentError(
                f"{layout} needs observations of one shape (found {field.name!r}, {field.type}, "
                "of another one than that of the state): diskreplay.transform() can change it"
            )


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
            "timeouts": _timeouts(episode, dones),
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


def _timeouts(episode: Any, dones: Any) -> Any:
    """Return the transitions that end an episode without being done, or are truncated, too."""
    is_cut = ~dones
    is_cut[:-1] = False
    return is_cut | (np.asarray(getattr(episode, "truncated", is_cut)).reshape(dones.shape) != 0)
