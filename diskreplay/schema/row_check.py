"""Sight: which values fit their fields as they are, seen with as little work as possible."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

_WHOLE_NUMBERS = frozenset((int, np.int64, np.int32, np.uint8))
_BOOLS = frozenset((bool, np.bool_))
_NUMBERS = _WHOLE_NUMBERS | _BOOLS | {float, np.float32, np.float64}
_DONES = frozenset((0, 1))  # and what is equal to one of them
_FEW = 64  # values up to which Python's own numbers are looked at faster, measured


class Typed(Protocol):
    """A field, as far as it matters here."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of its numbers."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one value."""

    @property
    def narrower(self) -> frozenset[np.dtype[Any]]:
        """The types whose every number is one of its own, too."""

    def convert(self, value: Any, lead: tuple[int, ...]) -> Array:
        """Return a value as an array of its type, or raise."""


def are_finite(array: Array) -> bool:
    """Return whether all numbers are finite."""
    if array.size <= _FEW:
        # The sum is not finite where one of them is not, and takes a fifth of the time.
        try:
            if math.isfinite(sum(array.tolist())):
                return True
        except TypeError:  # of complex numbers or lists of numbers
            pass
    return bool(np.isfinite(array).all())


def are_within(most: float, array: Array) -> bool:
    """Return whether all of a few numbers are finite, and none is farther from zero than `most`."""
    numbers = array.ravel().tolist()
    if not math.isfinite(sum(numbers)):
        return False
    return not numbers or (-most <= min(numbers) and max(numbers) <= most)


def are_dones(array: Array) -> bool:
    """Return whether all values are true or false, as numbers or not."""
    if array.size <= _FEW:
        return _DONES.issuperset(array.ravel().tolist())
    return bool(((array == 0) | (array == 1)).all())


_LIMITS = {"reward": are_finite, "done": are_dones}


class Sight:
    """Which values of a row need no conversion, seen with as little work as possible."""

    def __init__(self, fields: Iterable[Typed]) -> None:
        self._arrays: list[tuple[int, Typed, np.dtype[Any], Any]] = []
        self._numbers: list[tuple[int, Typed, frozenset[type], float, float]] = []
        self._dones: list[tuple[int, Typed]] = []
        self._fields = tuple(fields)
        self._columns = [(i, field.shape, field.dtype) for i, field in enumerate(self._fields)]
        # By which a few numbers are seen to fit a field of floats, and to be allowed there, too.
        self._few = {
            i: are_dones
            if field.name == "done"
            else functools.partial(are_within, float(np.finfo(field.dtype).max))
            for i, field in enumerate(self._fields)
            if field.dtype.kind == "f"
        }
        self._limited = [
            (i, _LIMITS[f.name]) for i, f in enumerate(self._fields) if f.name in _LIMITS
        ]
        for i, field in enumerate(self._fields):
            if field.shape:
                # Rewards and dones are limited in value, too: no array has the shape None.
                shape = None if field.name in _LIMITS else field.shape
                self._arrays.append((i, field, field.dtype, shape))
            elif field.name == "done":
                self._dones.append((i, field))
            elif field.dtype.kind == "f":
                most = 6e4 if field.dtype.itemsize == 2 else 2.0**53  # up to there a float is exact
                self._numbers.append((i, field, _NUMBERS, -most, most))
            elif field.dtype.kind in "iu":
                span = np.iinfo(field.dtype)
                self._numbers.append((i, field, _WHOLE_NUMBERS, int(span.min), int(span.max)))
            else:
                self._numbers.append((i, field, frozenset(), 0, 0))

    def accepted(self, row: list[Any]) -> list[Any]:
        """Return the row with each value as it is, or else as its field converts it."""
        for i, field, dtype, shape in self._arrays:
            value = row[i]
            if type(value) is not np.ndarray or value.shape != shape or value.dtype != dtype:
                row[i] = field.convert(value, ())
        for i, field, kinds, low, high in self._numbers:
            value = row[i]
            if type(value) not in kinds or not low <= value <= high:
                row[i] = field.convert(value, ())
        for i, field in self._dones:
            value = row[i]
            kind = type(value)
            if kind not in _BOOLS and (kind not in _NUMBERS or value not in _DONES):
                row[i] = field.convert(value, ())
        return row

    def accepted_columns(self, columns: list[Any]) -> list[Array] | None:
        """Return columns as `accepted` does, None where one is no array of the right shape."""
        lead: tuple[int, ...] = columns[0].shape[:1] if type(columns[0]) is np.ndarray else ()
        if not lead:
            return None
        others = []
        for column, (i, shape, dtype) in zip(columns, self._columns, strict=True):
            if type(column) is not np.ndarray or column.shape != lead + shape:
                return None
            if column.dtype != dtype:
                others.append(i)
        seen = []
        for i in others:
            field, column = self._fields[i], columns[i]
            is_few = column.size <= _FEW and i in self._few and column.dtype.kind in "fiub"
            if is_few and self._few[i](column):
                columns[i] = column.astype(field.dtype)
                seen.append(i)
            elif column.dtype in field.narrower:
                columns[i] = column.astype(field.dtype)
            else:
                columns[i] = field.convert(column, lead)
        for i, are_allowed in self._limited:
            if i not in seen and not are_allowed(columns[i]):
                self._fields[i].convert(columns[i], lead)  # raises the error
        return columns


def only_row(columns: Iterable[Any]) -> list[Any]:
    """Return the values of columns that have one row, [] for others."""
    row = []
    for column in columns:
        kind = type(column)
        if kind is np.ndarray and column.ndim and len(column) == 1 and column.dtype.kind != "O":
            row.append(column[0] if column.ndim > 1 else column.item())
        elif kind is list and len(column) == 1 and column[0] is not None:
            row.append(column[0])
        else:
            return []
    return row
