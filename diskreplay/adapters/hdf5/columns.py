"""The names of the columns in files, and their datasets."""

from __future__ import annotations

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
