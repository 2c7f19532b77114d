"""The names of the columns in files, and their datasets."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import h5py

import diskreplay

FLAT = {
    "state": "observations",
    "action": "actions",
    "reward": "rewards",
    "done": "terminals",
    "next_state": "next_observations",
}
EPISODIC = {
    "state": "observations",
    "action": "actions",
    "reward": "rewards",
    "done": "terminated",
}


def dataset_of(source: Any, name: str) -> Any:
    """Return a dataset of a file or a group, or raise ArgumentError."""
    found = source.get(name)
    if not isinstance(found, h5py.Dataset):
        there = ", ".join(sorted(source)[:12])
        raise diskreplay.ArgumentError(
            f"{source.file.filename} has no dataset {name!r} (found {there}): expected a file of "
            "d3rlpy or D4RL"
        )
    return found


def check_lengths(filename: Any, columns: dict[str, Any], n: int) -> None:
    """Raise ArgumentError for columns that have not n rows."""
    for field, column in columns.items():
        if len(column) != n:
            raise diskreplay.ArgumentError(
                f"{filename}: {field} has {len(column)} rows (expected {n}, as reward)"
            )


@contextlib.contextmanager
def reading(file: Any) -> Iterator[None]:
    """Raise ArgumentError in place of an error of h5py, which has many kinds for a damaged file."""
    try:
        yield
    except diskreplay.DiskReplayError:
        raise
    except (AttributeError, KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
        raise diskreplay.ArgumentError(
            f"{file} cannot be read (expected a whole file of d3rlpy or D4RL): {error}"
        ) from error
