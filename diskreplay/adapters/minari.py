"""Datasets of Minari: their episodes as a new store, and the episodes of a buffer as a dataset."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

try:
    import minari
    from minari.data_collector import EpisodeBuffer
    from minari.storage import get_dataset_path
except ImportError as error:
    if (error.name or "").partition(".")[0] not in ("", "minari", "h5py"):
        raise
    raise ModuleNotFoundError(
        "diskreplay.adapters.minari needs minari 0.5.4 or newer with h5py, which is not installed: "
        'pip install "diskreplay[minari]"',
        name="minari",
    ) from None

import diskreplay
from diskreplay.adapters.dataset_stores import (
    CHUNK_BYTES,
    Rows,
    copy_rows,
    leaves,
    new_store,
    open_buffer,
    other_rows,
)

__all__ = ["from_minari", "to_minari"]

_INFO, _NEXT_INFO = "info", "next_info"


def from_minari(
    dataset: Any,
    path: Any,
    *,
    kind: str = "uniform",
    capacity: int | None = None,
    infos: bool = True,
    **options: Any,
) -> int:
    """Make a store at `path` of a dataset of Minari, and return its number of transitions.

    Observations, actions and rewards have the types of the dataset, nested as they are there.
    `done` is its terminations. `truncated` is its truncations, and true at the end of an episode
    that has neither. An info of the dataset, which it has for each observation, is a part of the
    extra field `info`, and of `next_info`. Seeds and options of the resets are left out. Memory: an
    episode.

    Raises SchemaError for episodes that do not fit the first one, ArgumentError for a dataset
    without any, and StorageError where `path` is in use or the disk refuses. After an error there
    is nothing there.

    dataset:   a MinariDataset, or the id of one that is on this machine
    kind:      "uniform" or "prioritized"
    capacity:  of the store, by default the number of steps
    infos:     whether to keep the infos
    options:   further arguments of the buffer, as observations="log" or codec="lz4"
    """
    source = minari.load_dataset(dataset) if isinstance(dataset, str) else dataset
    episodes = (_columns(episode, infos) for episode in source.iterate_episodes() if len(episode))
    first = next(episodes, None)
    if first is None:
        raise diskreplay.ArgumentError(f"{source.id} holds no steps (expected at least one)")

    def chunks() -> Iterator[Rows]:
        yield from _chunks(first)
        for columns in episodes:
            yield from _chunks(columns)

    steps = capacity or source.total_steps
    with new_store(path, kind, steps, _schema_of(first), options) as buffer:
        return copy_rows(chunks(), buffer)


def to_minari(buffer: Any, dataset_id: str, **metadata: Any) -> int:
    """Write the whole episodes of a buffer, or of the store at a path, to a new dataset of Minari.

    Returns the number of transitions written. Episodes that are still open, and those whose
    beginning was evicted, are left out: see `episodes`. Each of an episode's observations is the
    state of a transition, and the last one its final next_state. `info` and `next_info` are the
    infos; other extra fields become infos, too, whose last one is zero. Images are not compressed
    as JPEG, which would change them. Memory: some episodes.

    Raises ArgumentError where a next_state within an episode is not the state that follows, since
    Minari has one observation for both, and the errors of Minari, as for an id that is there
    already. After an error there is no dataset.

    metadata:  arguments of minari.create_dataset_from_buffers: `env`, or `observation_space` and
               `action_space`, and others such as `author`
    """
    place = get_dataset_path(dataset_id)
    if place.exists():
        raise diskreplay.ArgumentError(
            f"{dataset_id} is at {place} already: give another id, or delete it with "
            f"minari.delete_dataset({dataset_id!r})"
        )
    dataset: Any = None
    with open_buffer(buffer) as opened, _removed_on_error(place):
        written = 0
        for parts in _episodes_of(opened):
            if dataset is None:
                settings = {"jpeg_encoding": False, **metadata}
                dataset = minari.create_dataset_from_buffers(dataset_id, parts, **settings)
            else:
                dataset.update_dataset_from_buffer(parts)
            written += sum(len(part.rewards) for part in parts)
        if dataset is None:
            raise diskreplay.ArgumentError(
                f"{opened.path} holds no whole episode (expected at least one): push the last "
                "transition of one with done=True or truncated=True"
            )
    return written


@contextlib.contextmanager
def _removed_on_error(place: Any) -> Iterator[None]:
    try:
        yield
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise


# Reading


def _columns(episode: Any, infos: bool) -> Rows:
    """Return the transitions of an episode of Minari, by the names of fields."""
    n = len(episode.rewards)
    dones = np.asarray(episode.terminations, np.bool_)
    truncateds = np.asarray(episode.truncations, np.bool_).copy()
    truncateds[-1] |= not dones[-1]
    columns: Rows = {"reward": episode.rewards, "done": dones, "truncated": truncateds}
    for name, column in leaves("state", episode.observations):
        columns[name], columns[f"next_{name}"] = column[:n], column[1:]
    columns |= {name: column[:n] for name, column in leaves("action", episode.actions)}
    for name, column in leaves(_INFO, episode.infos or {}) if infos else ():
        columns[name] = column[:n]
        if len(column) > n:
            columns[f"next_{name}"] = column[1:]
    return columns


def _schema_of(columns: Rows) -> diskreplay.Schema:
    fields: dict[str, Any] = {}
    for name, column in columns.items():
        if isinstance(column, np.ndarray) and column.dtype.kind not in "OSU":
            fields[name] = column.dtype, column.shape[1:]
        else:
            fields[name] = str if isinstance(column[0], str) else bytes
    return diskreplay.Schema({**fields, "done": np.float32, "truncated": np.float32})


def _chunks(columns: Rows) -> Iterator[Rows]:
    """Yield the rows of columns, some MiB at a time."""
    n = len(columns["done"])
    row_bytes = sum(getattr(c, "nbytes", 1024 * n) for c in columns.values()) // n
    step = max(1, CHUNK_BYTES // max(1, row_bytes))
    for at in range(0, n, step):
        yield {name: column[at : at + step] for name, column in columns.items()}


# Writing


def _episodes_of(buffer: Any) -> Iterator[list[Any]]:
    """Yield the whole episodes of a buffer, as many at a time as some MiB hold."""
    parts: list[Any] = []
    nbytes = 0
    schema = buffer.schema
    for episode in buffer.episodes():
        n = len(episode.rewards)
        dones = np.asarray(episode.dones).reshape(n) != 0
        truncateds = np.zeros(n, np.bool_)
        if "truncated" in schema.extra_names:
            truncateds = np.asarray(episode.truncated).reshape(n) != 0
        truncateds[-1] |= not dones[-1]
        _check_following(episode)
        parts.append(
            EpisodeBuffer(
                observations=_joined(episode.states, episode.next_states),
                actions=episode.actions,
                rewards=episode.rewards,
                terminations=dones,
                truncations=truncateds,
                infos=_infos_of(episode, schema.extra_names),
            )
        )
        nbytes += n * max(64, schema.payload_bytes)
        if nbytes >= CHUNK_BYTES:
            yield parts
            parts, nbytes = [], 0
    if parts:
        yield parts


def _check_following(episode: Any) -> None:
    """Raise ArgumentError for a next_state that is not the state of the transition after it.

    Also for a next_info that is not the info there.
    """
    after = {
        **dict(leaves("state", episode.next_states)),
        **dict(leaves(_INFO, getattr(episode, _NEXT_INFO, {}))),
    }
    before = [*leaves("state", episode.states), *leaves(_INFO, getattr(episode, _INFO, {}))]
    for name, column in before:
        others: Any = other_rows(column, after[name]) if name in after else ()
        if len(others) > 1:
            raise diskreplay.ArgumentError(
                f"the next_{name} of write id {episode.indices[others[0]]} is not the {name} of "
                "the transition that follows in its episode, and Minari has one place for both "
                "(expected equal ones, bit for bit): end_episode() between them makes two "
                'episodes, and to_hdf5(..., layout="d4rl") keeps both'
            )


def _infos_of(episode: Any, names: Iterable[str]) -> dict[str, Any]:
    """Return the extra fields of an episode as infos, which are there for each observation."""
    infos: dict[str, Any] = {}
    for name in names:
        if name not in (_INFO, _NEXT_INFO, "truncated"):
            column = getattr(episode, name)
            infos[name] = _mapped(_with_zero, column)
    if _INFO in names:
        after = getattr(episode, _NEXT_INFO) if _NEXT_INFO in names else {}
        infos |= _joined_infos(episode.info, after)
    return infos


def _joined_infos(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """Return infos with the last of those after each step, where there are some."""
    return {
        key: _joined_infos(part, after.get(key, {}))
        if isinstance(part, dict)
        else _joined(part, after[key])
        if key in after
        else part
        for key, part in before.items()
    }


def _joined(before: Any, after: Any) -> Any:
    """Return the columns before each step and, at the end, the last of those after a step."""
    if isinstance(before, dict):
        return {key: _joined(part, after[key]) for key, part in before.items()}
    if isinstance(before, tuple):
        return tuple(map(_joined, before, after))
    if isinstance(before, list):
        return [*before, after[-1]]
    return np.concatenate([before, after[-1:]])


def _mapped(function: Callable[[Any], Any], value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _mapped(function, part) for key, part in value.items()}
    if isinstance(value, tuple):
        return {f"_index_{i}": _mapped(function, part) for i, part in enumerate(value)}
    return function(value)


def _with_zero(column: Any) -> Any:
    if isinstance(column, list):
        return [*column, type(column[0])()]
    return np.concatenate([column, np.zeros_like(column[:1])])
