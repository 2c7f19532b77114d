"""Checks of numeric arguments, with one wording for their errors."""

from __future__ import annotations

import operator
from typing import Any

from diskreplay.errors import ArgumentError

MAX_CAPACITY = 2**40


def checked_capacity(value: Any) -> int:
    """Return `value` as a number of slots, or raise ArgumentError."""
    capacity = whole_number("capacity", value, at_least=1)
    if capacity > MAX_CAPACITY:
        raise ArgumentError(f"capacity must be at most {MAX_CAPACITY} (found {capacity})")
    return capacity


def whole_number(name: str, value: Any, *, at_least: int) -> int:
    """Return `value` as an int of at least `at_least`, or raise ArgumentError."""
    try:
        number = operator.index(value)
    except TypeError:
        number = at_least - 1
    if number < at_least or isinstance(value, bool):
        raise ArgumentError(
            f"{name} must be a whole number of at least {at_least} (found {value!r})"
        )
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
