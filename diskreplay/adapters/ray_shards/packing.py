"""Packed batches: the arrays of a batch as bytes, which Ray carries faster than its objects."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np


def pack(batch: Any) -> bytes:
    """Return the arrays of a batch, and those and the numbers among its attributes, as bytes."""
    leaves = [np.ascontiguousarray(leaf) for leaf in _leaves((*batch, *vars(batch).values()))]
    return b"".join(leaf.data for leaf in leaves)


class Form:
    """The types and shapes of batches like one, whose arrays have the rows as first dimension."""

    def __init__(self, batch: Any) -> None:
        self._type = type(batch)
        self._columns = tuple(map(_described, batch))
        self._attributes = {name: _described(value) for name, value in vars(batch).items()}

    def unpack(self, data: bytes, n: int) -> Any:
        """Return a batch of n rows, as `pack` was given it; its arrays are read-only."""
        at = 0

        def taken(place: Any) -> Any:
            nonlocal at
            if isinstance(place, dict):
                return {name: taken(part) for name, part in place.items()}
            if isinstance(place, list):
                return tuple(taken(part) for part in place)
            dtype, shape, count = place
            found = np.frombuffer(data, dtype, count if shape is None else n * count, at)
            at += found.nbytes
            if shape is None:
                return float(found[0])
            return found.reshape((n, *shape)) if shape else found

        batch = self._type._make(map(taken, self._columns))
        for name, place in self._attributes.items():
            vars(batch)[name] = taken(place)
        return batch


def can_pack(batch: Any, options: dict[str, Any]) -> bool:
    """Return whether all batches of this kind are arrays of these shapes."""
    values = (*batch, *vars(batch).values())
    return not options.get("pad") and all(
        isinstance(leaf, float | np.ndarray) and np.asarray(leaf).dtype.kind in "biuf"
        for leaf in _leaves(values)
    )


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        value = tuple(value.values())
    if isinstance(value, tuple):
        for part in value:
            yield from _leaves(part)
    else:
        yield value


def _described(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _described(part) for name, part in value.items()}
    if isinstance(value, tuple):
        return [_described(part) for part in value]
    if isinstance(value, float):
        return np.dtype(np.float64), None, 1
    return value.dtype, value.shape[1:], math.prod(value.shape[1:])
