"""Checks of what users hand over, with one wording for their errors."""

from __future__ import annotations

import operator
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diskreplay.errors import ArgumentError, DiskReplayError, StorageError

ACCESS = ("exclusive", "shared", "read")
MAX_COUNT = 2**62  # of what is counted, write ids above all: int64, with room to calculate


def checked_capacity(value: Any) -> int:
    """Return `value` as a number of slots, or raise ArgumentError."""
    return whole_number("capacity", value, at_least=1, at_most=2**40)


def checked_path(value: Any) -> Path:
    """Return `value` as an absolute path, or raise ArgumentError."""
    try:
        name = os.fspath(value)
        os.fsencode(name)
    except TypeError:
        name = b""
    except UnicodeEncodeError as error:
        raise ArgumentError(f"a path cannot have this name: {error}: choose another") from None
    if not isinstance(name, str) or "\0" in name or not name:
        raise ArgumentError(f"a path must be a string or a pathlib.Path (found {value!r})")
    try:
        return Path(name).absolute()
    except OSError as error:
        raise StorageError(
            f"{name!r} is relative to the working directory, which cannot be found "
            f"({error.strerror}): give an absolute path"
        ) from None


def as_array(values: Any, error: type[DiskReplayError], expected: str) -> NDArray[Any]:
    """Return `values` as an array, or raise `error` in a sentence that begins with `expected`.

    All that users hand over as arrays comes through here: an object may raise anything when it is
    converted, as a tensor that requires grad does, and a masked array would lose its mask.
    """
    if type(values) is np.ndarray:
        return values
    try:
        if not _is_masked(values):
            return np.asarray(values)
    except Exception as problem:
        reason = str(problem).rstrip(".") or type(problem).__name__
        way_out = ": give tensor.detach().cpu()" if "tensor" in reason.lower() else ""
        raise error(f"{expected}: {reason}{way_out}") from None
    raise error(
        f"{expected}: a masked array would lose its mask, and its hidden values would count: "
        "give array.filled(value), or array.compressed()"
    )


def _is_masked(value: Any) -> bool:
    """Return whether a value is a masked array, or a list or tuple in which there is one."""
    masked = sys.modules.get("numpy.ma")  # which not every program needs
    if masked is None:
        return False
    if isinstance(value, list | tuple):
        kinds = set(map(type, value))
        if any(issubclass(kind, masked.MaskedArray) for kind in kinds):
            return True
        return any(issubclass(kind, list | tuple) for kind in kinds) and any(map(_is_masked, value))
    return isinstance(value, masked.MaskedArray)


def real_numbers(
    name: str, values: Any, error: type[DiskReplayError] = ArgumentError
) -> NDArray[np.float64]:
    """Return `values` as float64 of their shape, or raise `error`."""
    array = as_array(values, error, f"{name} must be numbers")
    if array.size and array.dtype.kind not in "biuf":
        raise error(f"{name} must be numbers (found {array.dtype})")
    return array.astype(np.float64, copy=False)


def whole_numbers(name: str, values: Any, *, any_shape: bool = False) -> NDArray[np.int64]:
    """Return `values` as int64 of shape (n,), or of their own, or raise ArgumentError."""
    array = as_array(values, ArgumentError, f"{name} must be whole numbers")
    if (array.ndim != 1 and not any_shape) or (array.size and array.dtype.kind not in "iu"):
        raise ArgumentError(
            f"{name} must be whole numbers{'' if any_shape else ' of shape (n,)'} "
            f"(found {array.dtype} of shape {array.shape})"
        )
    return array.astype(np.int64)


def whole_number(name: str, value: Any, *, at_least: int, at_most: int | None = None) -> int:
    """Return `value` as an int of at least `at_least`, or raise ArgumentError."""
    number = as_whole(value)
    if number is None or number < at_least:
        raise ArgumentError(
            f"{name} must be a whole number of at least {at_least} (found {value!r})"
        )
    if at_most is not None and number > at_most:
        raise ArgumentError(f"{name} must be a whole number of at most {at_most} (found {number})")
    return number


def as_whole(value: Any) -> int | None:
    """Return a count as an int, also where it is a float such as 1e6; None where it is no count."""
    if type(value) is int:
        return value
    if isinstance(value, bool | np.bool_) or _is_masked(value):
        return None
    try:
        return operator.index(value)
    except Exception:
        is_whole = isinstance(value, float | np.floating) and value.is_integer()
        return int(value) if is_whole else None


def real_number(
    name: str, value: Any, *, low: float, high: float, above: bool = False, why: str = ""
) -> float:
    """Return `value` as a float in [low, high], or in (low, high] with `above`, or raise."""
    no_number = isinstance(value, bool | str | bytes) or _is_masked(value)
    try:
        number = float("nan") if no_number else float(value)
    except Exception:  # an object may raise anything when it is converted
        number = float("nan")
    if no_number or not low <= number <= high or (above and number == low):
        interval = f"{'(' if above else '['}{low:g}, {high:g}{']' if high < float('inf') else ')'}"
        raise ArgumentError(f"{name} must be a number in {interval} (found {value!r}){why}")
    return number
