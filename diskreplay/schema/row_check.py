"""RowCheck: find the values that fit their fields as they are, with as little work as possible."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from diskreplay.aliases import Array
from diskreplay.schema.field import Field
from diskreplay.schema.numbers import DONES, are_dones, are_finite
from diskreplay.schema.packing import packed

_WHOLE_NUMBERS = frozenset((int, np.int64, np.int32, np.uint8))
_BOOLS = frozenset((bool, np.bool_))
_NUMBERS = _WHOLE_NUMBERS | _BOOLS | {float, np.float32, np.float64}


class RowCheck:
    """The check of rows and columns against fields: only what does not fit yet is converted."""

    def __init__(self, fields: Iterable[Field]) -> None:
        self._columns: list[tuple[Field, tuple[int, ...], np.dtype[Any], Any]] = []
        self._arrays: list[tuple[int, Field, np.dtype[Any], Any]] = []
        self._numbers: list[tuple[int, Field, frozenset[type], float, float]] = []
        self._dones: list[tuple[int, Field]] = []
        self._varying: list[tuple[int, Field]] = []
        for i, field in enumerate(fields):
            are_allowed = {"reward": are_finite, "done": are_dones}.get(field.name)
            self._columns.append((field, field.shape, field.dtype, are_allowed))
            if field.varies:
                self._varying.append((i, field))
            elif field.shape:
                # No array has the shape None, so that what has a limit is always converted.
                shape = None if are_allowed else field.shape
                self._arrays.append((i, field, field.dtype, shape))
            elif field.name == "done":
                self._dones.append((i, field))
            else:
                self._numbers.append((i, field, *_plain_numbers(field.dtype)))

    def row(self, row: list[Any]) -> list[Any]:
        """Convert the values of a row where they need it, in place, and return the row.

        A plain number stays as it is where writing it into an array of its field gives the same
        bits as the conversion. A value that varies in size is packed.
        """
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
            if kind not in _BOOLS and (kind not in _NUMBERS or value not in DONES):
                row[i] = field.convert(value, ())
        for i, field in self._varying:
            row[i] = packed(field, row[i])
        return row

    def columns(self, columns: list[Any]) -> list[Array] | None:
        """Return columns of the fields' types, or None where one is no array of the right shape."""
        lead: tuple[int, ...] = columns[0].shape[:1] if type(columns[0]) is np.ndarray else ()
        if not lead or self._varying:
            return None
        converted = []
        for column, (field, shape, dtype, are_allowed) in zip(columns, self._columns, strict=True):
            if type(column) is not np.ndarray or column.shape != lead + shape:
                return None
            if column.dtype != dtype or (are_allowed and not are_allowed(column)):
                column = field.fit(column)
            converted.append(column)
        return converted


def _plain_numbers(dtype: np.dtype[Any]) -> tuple[frozenset[type], float, float]:
    """Return the types of number that a field stores as they are, and from where to where."""
    if dtype.kind == "f":
        most = 6e4 if dtype.itemsize == 2 else 2.0**53  # up to there a float is exact
        return _NUMBERS, -most, most
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        return _WHOLE_NUMBERS, int(limits.min), int(limits.max)
    return frozenset(), 0, 0


def only_row(columns: Iterable[Any]) -> list[Any]:
    """Return the values of columns that have one row, [] for others."""
    row = []
    for column in columns:
        kind = type(column)
        if kind is np.ndarray and column.ndim and len(column) == 1 and column.dtype.kind != "O":
            value = column[0] if column.ndim > 1 else column.item()
            if column.ndim == 1 and value != value:
                return []  # the bits of NaN would not survive a number of Python
            row.append(value)
        elif kind is list and len(column) == 1 and column[0] is not None:
            row.append(column[0])
        else:
            return []
    return row
