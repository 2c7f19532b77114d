"""Values of the spaces of several environments, as columns of each part."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

import diskreplay
from diskreplay.adapters.gymnasium.own_episodes import Buffer


def copied(value: Any) -> Any:
    """Return a value with copies of its arrays, which the environment may change in its step."""
    if isinstance(value, Mapping):
        return {key: copied(part) for key, part in value.items()}
    if isinstance(value, tuple | list):
        parts = map(copied, value)
        return tuple(parts) if isinstance(value, tuple) else [*parts]
    if hasattr(value, "detach"):  # of PyTorch, which copies no tensor with a history
        return value.detach().clone()
    return value.copy() if isinstance(value, np.ndarray) else value


def check_tuples(
    buffer: Buffer, observation_space: spaces.Space[Any], action_space: spaces.Space[Any]
) -> None:
    """Raise SchemaError unless tuples of the spaces are tuples in the schema of the buffer, too."""
    known = () if buffer.schema is None else buffer.schema.names
    for root, space in (("state", observation_space), ("action", action_space)):
        for name in _names(root, space):
            if "[" in name and name not in known:
                raise diskreplay.SchemaError(
                    f"field {root!r} has the part {name}, of a Tuple (found "
                    f"{', '.join(known) or 'a buffer without a schema'}): make the buffer with "
                    "schema=Schema.from_spaces(observation_space, action_space)"
                )


def _names(name: str, space: spaces.Space[Any]) -> Iterator[str]:
    """Yield the names of the fields of a space."""
    if isinstance(space, spaces.Dict):
        for key, part in space.spaces.items():
            yield from _names(f"{name}.{key}", part)
    elif isinstance(space, spaces.Tuple):
        for place, part in enumerate(space.spaces):
            yield from _names(f"{name}[{place}]", part)
    else:
        yield name


def columns_of(space: spaces.Space[Any], values: Any) -> Any:
    """Return a copy of values of several environments, as columns of each part of a space.

    A column is an array, or a list where Gymnasium makes no array of values, as of texts.
    """
    if isinstance(space, spaces.Dict):
        return {key: columns_of(part, values[key]) for key, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(map(columns_of, space.spaces, values))
    return copy.deepcopy([*values]) if isinstance(values, tuple) else np.array(values)


def rows_of(columns: Any, taken: NDArray[np.bool_]) -> Any:
    """Return the values of some environments."""
    if isinstance(columns, dict):
        return {key: rows_of(part, taken) for key, part in columns.items()}
    if isinstance(columns, tuple):
        return tuple(rows_of(part, taken) for part in columns)
    return [*itertools.compress(columns, taken)] if isinstance(columns, list) else columns[taken]


def with_values(columns: Any, values: Mapping[int, Any]) -> Any:
    """Return columns with other values of some environments; the columns stay as they are."""
    if not values:
        return columns
    if isinstance(columns, dict | tuple):
        keys = columns if isinstance(columns, dict) else range(len(columns))
        parts = {
            key: with_values(columns[key], {i: value[key] for i, value in values.items()})
            for key in keys
        }
        return parts if isinstance(columns, dict) else tuple(parts.values())
    replaced = columns.copy()
    for i, value in values.items():
        replaced[i] = value
    return replaced
