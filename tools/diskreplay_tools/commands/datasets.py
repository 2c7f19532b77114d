"""Datasets that `import` takes by the adapters: HDF5, Minari, LeRobot."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

import diskreplay
from diskreplay.store import real_path
from diskreplay.wording import count_of
from diskreplay_tools.files import new_store
from diskreplay_tools.terminal import tell

DATASETS = ("hdf5", "minari", "lerobot")
_HDF5 = b"\x89HDF"


def dataset_format(source: Path) -> str | None:
    """Return the format of a file or directory, None for a file that is a table, and for none."""
    if source.is_dir():
        return "lerobot"
    if not source.is_file():
        return None
    with source.open("rb") as file:
        return "hdf5" if file.read(4) == _HDF5 else None


def import_dataset(
    form: str,
    source: Path,
    path: Path,
    *,
    kind: str,
    capacity: int | None,
    options: Mapping[str, Any],
    force: bool,
) -> None:
    """Make a store of a dataset by the adapter of its format, and tell of it."""
    try:
        adapter = importlib.import_module(f"diskreplay.adapters.{form}")
    except ImportError as error:
        raise click.ClickException(str(error)) from None
    made = getattr(adapter, f"from_{form}")
    with new_store(path, force=force) as place:
        try:
            rows = made(str(source), place, kind=kind, capacity=capacity, **options)
        except FileNotFoundError as error:  # an id that Minari does not have here
            raise click.ClickException(str(error)) from None
    with diskreplay.open(real_path(path), access="read", window_bytes=0) as buffer:
        size, slots = len(buffer), buffer.capacity
    if rows > size:
        left = count_of(rows - size, "transition")
        tell(f"left out the first {left}: the capacity is {slots:,}", err=True)
    tell(f"{path}: {count_of(size, 'transition')} of {source}, {kind}, capacity {slots:,}")
