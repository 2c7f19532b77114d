"""Checks of numeric arguments, with one wording for their errors."""

from __future__ import annotations

import operator
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diskreplay.errors import ArgumentError

ACCESS = ("exclusive", "shared", "read")
MAX_COUNT = 2**62  # of what is counted, write ids above all: int64, with room to calculate


def checked_capacity(value: Any) -> int:
    """Return `value` as a number of slots, or raise ArgumentError."""
    return whole_number("capacity", value, at_least=1, at_most=2**40)


def checked_path(value: Any) -> Path:
    """Return `value` as an absolute path, or raise ArgumentError."""
    try:
        name = os.fspath(value)
    except TypeError:
        name = b""
    if not isinstance(name, str) or "\0" in name or not name:
        raise ArgumentError(f"a path must be a string or a pathlib.Path (found {value!r})")
    return Path(name).absolute()


def whole_numbers(name: str, values: Any) -> NDArray[np.int64]:
    """Return `values` as int64 of shape (n,), or raise ArgumentError."""
    try:
        array = np.asarray(values)
    except (TypeError, ValueError) as error:
        raise ArgumentError(f"{name} must be whole numbers: {error}") from None
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise ArgumentError(
            f"{name} must be whole numbers of shape (n,) "
            f"(found {array.dtype} of shape {array.shape})"
        )
    return array.astype(np.int64)


def whole_number(name: str, value: Any, *, at_least: int, at_most: int | None = None) -> int:
    """Return `value` as an int of at least `at_least`, or raise ArgumentError."""
    try:
        number = operator.index(value)
    except TypeError:
        number = at_least - 1
    if number < at_least or isinstance(value, bool):
        raise ArgumentError(
            f"{name} must be a whole number of at least {at_least} (found {value!r})"
        )
    if at_most is not None and number > at_most:
        raise ArgumentError(f"{name} must be a whole number of at most {at_most} (found {number})")
    return number


def real_number(name: str, value: Any, *, low: float, high: float, above: bool = False) -> float:
    """Return `value` as a float in [low, high], or in (low, high] with `above`, or raise."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = float("nan")
    no_number = isinstance(value, bool | str | bytes)
    if no_number or not low <= number <= high or (above and number == low):
        interval = f"{'(' if above else '['}{low:g}, {high:g}{']' if high < float('inf') else ')'}"
        raise ArgumentError(f"{name} must be a number in {interval} (found {value!r})")
    return number
