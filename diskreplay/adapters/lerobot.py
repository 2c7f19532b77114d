"""Datasets of LeRobot: the numbers of their Parquet files as a new store.

::

    DIRECTORY/meta/info.json                       the shape of each feature
    DIRECTORY/data/chunk-000/episode_000000.parquet    or file-000.parquet, with many episodes:
        observation.state, action, episode_index, frame_index, timestamp, task_index,
        next.reward, next.done, ...
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

try:
    import pyarrow as pa
    from pyarrow import parquet
except ModuleNotFoundError as error:
    if error.name != "pyarrow":
        raise
    raise ModuleNotFoundError(
        "diskreplay.adapters.lerobot needs pyarrow, which is not installed: "
        'pip install "diskreplay[parquet]"',
        name="pyarrow",
    ) from None

import diskreplay
from diskreplay.adapters.dataset_stores import (
    CHUNK_BYTES,
    Rows,
    copy_rows,
    new_store,
    transitions,
)

__all__ = ["from_lerobot"]

_STATE, _EPISODE = "observation.", "episode_index"
_NEXT = "next."  # of what a step leads to: its reward, its end
_LEFT_OUT = ("index",)


def from_lerobot(
    directory: Any,
    path: Any,
    *,
    kind: str = "uniform",
    capacity: int | None = None,
    **options: Any,
) -> int:
    """Make a store at `path` of a dataset of LeRobot, and return its number of transitions.

    `observation.state` is the state, or where there are more observations a part of it,
    `state.state`; `next.reward` is the reward, 0 where there is none, and `next.done` is `done`.
    The other columns of numbers are extra fields, `next.success` as `success`. Images and videos
    are left out. `next_state` is the state of the following frame; a last frame that is not done
    is no transition, and the one before it is `truncated`. Memory: some MiB.

    Raises ArgumentError for a directory without such a dataset, SchemaError for columns that do not
    fit, and StorageError where `path` is in use or the disk refuses. After an error there is
    nothing there.

    kind:      "uniform" or "prioritized"
    capacity:  of the store, by default the number of frames
    options:   further arguments of the buffer, as observations="log"
    """
    files = sorted(Path(directory).glob("data/chunk-*/*.parquet"))
    if not files:
        raise diskreplay.ArgumentError(
            f"{directory} is no dataset of LeRobot: expected data/chunk-*/*.parquet in it"
        )
    try:
        shapes = _shapes_in(Path(directory) / "meta" / "info.json")
        frames = sum(parquet.read_metadata(file).num_rows for file in files)
        chunks = _with_ends(_chunks(files, shapes))
        first = next(chunks, None)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise diskreplay.ArgumentError(f"{directory} cannot be read: {error}") from None
    if first is None:
        raise diskreplay.ArgumentError(f"{directory} holds no frames (expected at least one)")

    def all_chunks() -> Iterator[Rows]:
        yield first
        yield from chunks

    with new_store(path, kind, capacity or frames, _schema_of(first), options) as buffer:
        return copy_rows(transitions(all_chunks()), buffer)


def _shapes_in(info: Path) -> dict[str, tuple[int, ...]]:
    """Return the shape of each feature that a dataset describes."""
    if not info.is_file():
        return {}
    features = json.loads(info.read_text()).get("features", {})
    return {name: tuple(feature.get("shape") or ()) for name, feature in features.items()}


def _chunks(files: list[Path], shapes: dict[str, tuple[int, ...]]) -> Iterator[Rows]:
    """Yield the columns of numbers, by the names of fields, some MiB at a time."""
    for place in files:
        with parquet.ParquetFile(place) as file:
            facts = file.metadata
            names = [field.name for field in file.schema_arrow if _is_numbers(field.type)]
            fields = _fields_of(place, names)
            nbytes = sum(facts.row_group(i).total_byte_size for i in range(facts.num_row_groups))
            step = max(1, CHUNK_BYTES * facts.num_rows // max(1, nbytes))
            for batch in file.iter_batches(min(step, 1 << 16), columns=names):
                rows = {
                    fields[name]: _array(place, name, batch.column(name), shapes.get(name, ()))
                    for name in names
                    if name not in _LEFT_OUT
                }
                rows.setdefault("reward", np.zeros(batch.num_rows, np.float32))
                rows.setdefault("done", np.zeros(batch.num_rows, np.bool_))
                yield rows


def _is_numbers(type_: Any) -> bool:
    while pa.types.is_list(type_) or pa.types.is_fixed_size_list(type_):
        type_ = type_.value_type
    types = pa.types
    return bool(types.is_integer(type_) or types.is_floating(type_) or types.is_boolean(type_))


def _fields_of(place: Path, names: list[str]) -> dict[str, str]:
    """Return the field that each column becomes."""
    states = [name for name in names if name.startswith(_STATE)]
    for name, is_there in {
        "observation.*": bool(states), "action": "action" in names, _EPISODE: _EPISODE in names,
    }.items():  # fmt: skip
        if not is_there:
            raise diskreplay.ArgumentError(
                f"{place} has no column of numbers {name} (found {', '.join(names)})"
            )
    fields = {name: name.removeprefix(_NEXT) for name in names}
    if len(states) == 1:
        return {**fields, states[0]: "state"}
    return {**fields, **{name: f"state.{name.removeprefix(_STATE)}" for name in states}}


def _array(place: Path, name: str, column: Any, shape: tuple[int, ...]) -> Any:
    """Return a column as an array, with the shape of its feature if it has so many numbers."""
    n, is_list = len(column), False
    while pa.types.is_list(column.type) or pa.types.is_fixed_size_list(column.type):
        column, is_list = column.flatten(), True
    if column.null_count or len(column) % max(1, n):
        raise diskreplay.ArgumentError(
            f"{place}, column {name}: expected as many numbers in each row, and no null"
        )
    values = column.to_numpy(zero_copy_only=False)
    if not is_list:
        return values
    size = len(column) // max(1, n)
    return values.reshape(n, *(shape if np.prod(shape) == size and shape else (size,)))


def _with_ends(chunks: Iterator[Rows]) -> Iterator[Rows]:
    """Yield rows with a column `end`, which the episode of the following row tells."""
    held: Rows | None = None
    for chunk in chunks:
        rows = chunk
        if held is not None:
            rows = {name: np.concatenate([held[name], chunk[name]]) for name in held}
        episodes = rows[_EPISODE]
        yield {name: c[:-1] for name, c in rows.items()} | {"end": episodes[:-1] != episodes[1:]}
        held = {name: column[-1:] for name, column in rows.items()}
    if held is not None:
        yield held | {"end": np.ones(1, np.bool_)}


def _schema_of(rows: Rows) -> diskreplay.Schema:
    fields = {name: (c.dtype, c.shape[1:]) for name, c in rows.items() if name != "end"}
    fields["reward"] = fields["reward"][0], ()
    for name in [name for name in fields if name.partition(".")[0] == "state"]:
        fields[f"next_{name}"] = fields[name]
    return diskreplay.Schema({**fields, "done": np.float32, "truncated": np.float32})
