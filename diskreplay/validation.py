"""Checks of users' arguments, with one wording for their errors."""

from __future__ import annotations

import contextlib
import operator
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diskreplay.aliases import Array, Floats, Ints
from diskreplay.errors import ArgumentError, DiskReplayError, StorageError
from diskreplay.wording import cut, shown

ACCESS = ("exclusive", "shared", "read")
_SERVICE_SCHEMES = ("grpc:/", "grpc+tls:/", "grpc+unix:/")  # pathlib makes one slash of two
MAX_COUNT = 2**62  # the largest write id and other count: int64, with room for sums


def checked_capacity(value: Any) -> int:
    """Return `value` as a number of slots, or raise ArgumentError."""
    return whole_number("capacity", value, at_least=1, at_most=2**40)


def checked_keep_rows(value: Any, capacity: int) -> int:
    """Return `value` as a number of slots beyond the capacity, or raise ArgumentError."""
    return whole_number("keep_rows", value, at_least=0, at_most=2**40 - capacity)


def checked_path(value: Any) -> Path:
    """Return `value` as an absolute path, or raise ArgumentError."""
    try:
        name = os.fspath(value)
        os.fsencode(name)
    except TypeError:
        name = None
    except UnicodeEncodeError as error:
        raise ArgumentError(f"a path cannot have this name ({error}): choose another") from None
    if not isinstance(name, str) or "\0" in name or not name:
        raise ArgumentError(f"a path must be a string or a pathlib.Path (found {shown(value)})")
    if name.startswith(_SERVICE_SCHEMES):
        raise ArgumentError(
            f"a path cannot be the URL of a service (found {shown(name)}): "
            "diskreplay.connect(url) returns a client of it"
        )
    try:
        return Path(name).absolute()
    except OSError as error:
        raise StorageError(
            f"{name!r} is relative to the working directory, which cannot be found "
            f"({error.strerror}): give an absolute path"
        ) from None


def check_word(name: str, value: Any, words: Sequence[str]) -> None:
    """Raise ArgumentError if a value is not one of the words."""
    if not isinstance(value, str) or value not in words:  # an array may have no truth value
        raise ArgumentError(f"{name} must be one of {', '.join(words)} (found {shown(value)})")


def true_or_false(name: str, value: Any) -> bool:
    """Return `value` as a bool, or raise ArgumentError: a word such as "no" would count as true."""
    if not isinstance(value, bool | np.bool_):
        raise ArgumentError(f"{name} must be True or False (found {shown(value)})")
    return bool(value)


def as_array(values: Any, error: type[DiskReplayError], expected: str) -> Array:
    """Return `values` as an array, or raise `error` in a sentence that begins with `expected`.

    All arrays of users come through here. Tensors of PyTorch may require grad, be on a device, and
    stand in lists. The conversion of an object may raise any exception, and a masked array would
    lose its mask.
    """
    if type(values) is np.ndarray:
        return values
    try:
        if not _is_masked(values):
            return _converted(values)
    except Exception as problem:
        raise error(f"{expected}: {_reason(problem)}") from None
    raise error(
        f"{expected}: a masked array would lose its mask, and its hidden values would count: "
        "give array.filled(value), or array.compressed()"
    )


def _converted(values: Any) -> Array:
    if _is_tensor(values):
        return np.asarray(_without_tensors(values))
    try:
        return np.asarray(values)
    except Exception:  # a list may contain tensors; a search before would take longer than numpy
        return np.asarray(_without_tensors(values))


def _without_tensors(values: Any) -> Any:
    """Return tensors as arrays, also in lists and tuples, and all else as it is."""
    if isinstance(values, list | tuple):
        return [*map(_without_tensors, values)]
    if not _is_tensor(values):
        return values
    try:
        if str(values.dtype) == "torch.bfloat16":
            # numpy has no bfloat16, and float32 has each of its numbers.
            values = values.detach().cpu().float()
        return values.numpy(force=True)  # with grad, of any device, also a conjugated view
    except Exception as problem:
        raise TypeError(
            f"{_reason(problem)}: give a tensor that has numbers of a type of numpy; "
            "tensor.to_dense(), tensor.dequantize() or tensor.float() may return one"
        ) from None


def _is_tensor(value: Any) -> bool:
    """Return whether a value is a tensor of PyTorch, which is not imported for that."""
    # Tensors of other libraries have `detach` and `cpu` too, and convert themselves for numpy.
    return hasattr(value, "detach") and hasattr(value, "resolve_conj")


def _reason(problem: Exception) -> str:
    return cut(str(problem).rstrip(".!")) or type(problem).__name__


def _is_masked(value: Any) -> bool:
    """Return whether a value is a masked array, or a list or tuple that contains one."""
    # Not every program has loaded it; while another thread does, it is there without its class, and
    # nobody has a masked array yet.
    masked_array = getattr(sys.modules.get("numpy.ma"), "MaskedArray", None)
    if masked_array is None:
        return False
    if isinstance(value, list | tuple):
        kinds = set(map(type, value))
        if any(issubclass(kind, masked_array) for kind in kinds):
            return True
        return any(issubclass(kind, list | tuple) for kind in kinds) and any(map(_is_masked, value))
    return isinstance(value, masked_array)


def real_numbers(name: str, values: Any, error: type[DiskReplayError] = ArgumentError) -> Floats:
    """Return `values` as float64 of their shape, or raise `error`."""
    array = as_array(values, error, f"{name} must be numbers")
    if array.size and array.dtype.kind not in "biuf":
        raise error(f"{name} must be numbers (found {array.dtype})")
    return array.astype(np.float64, copy=False)


def whole_numbers(name: str, values: Any, *, any_shape: bool = False) -> Ints:
    """Return `values` as int64, of shape (n,) or any shape, or raise ArgumentError."""
    array = as_array(values, ArgumentError, f"{name} must be whole numbers")
    if (array.ndim != 1 and not any_shape) or (array.size and array.dtype.kind not in "iu"):
        raise ArgumentError(
            f"{name} must be whole numbers{'' if any_shape else ' of shape (n,)'} "
            f"(found {array.dtype} of shape {array.shape})"
        )
    if array.dtype.kind == "u" and array.size and array.max() >= 2**63:
        raise ArgumentError(f"{name} must be at most {2**63 - 1} (found {array.max()})")
    return array.astype(np.int64)


def whole_number(name: str, value: Any, *, at_least: int, at_most: int | None = None) -> int:
    """Return `value` as an int of at least `at_least`, or raise ArgumentError."""
    number = as_whole(value)
    if number is None or number < at_least:
        raise ArgumentError(
            f"{name} must be a whole number of at least {at_least} (found {shown(value)})"
        )
    if at_most is not None and number > at_most:
        raise ArgumentError(
            f"{name} must be a whole number of at most {at_most} (found {shown(number)})"
        )
    return number


def as_whole(value: Any) -> int | None:
    """Return a whole number as an int, also a float such as 1e6; None for anything else."""
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
    """Return `value` as a float in [low, high], or (low, high] with `above`, or raise."""
    number = float("nan")
    if not isinstance(value, bool | str | bytes) and not _is_masked(value):
        with contextlib.suppress(Exception):  # an object may raise anything when it is converted
            number = float(value.detach() if _is_tensor(value) else value)
    if not low <= number <= high or (above and number == low):
        interval = f"{'(' if above else '['}{low:g}, {high:g}{']' if high < float('inf') else ')'}"
        raise ArgumentError(f"{name} must be a number in {interval} (found {shown(value)}){why}")
    return number
