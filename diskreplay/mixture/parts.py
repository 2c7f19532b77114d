"""Parts: the arrays of a batch, and the stretches of them that are of one source.

An element of a batch is an array, or a list where values vary in size, or a dictionary or tuple of
such.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from operator import itemgetter
from typing import Any

import numpy as np

from diskreplay.errors import ArgumentError
from diskreplay.schema import leaves, mapped

_WAY_OUT = "give an earlier batch of the same size, or leave out= away"


def form_of(element: Any) -> Any:
    """Return an element without rows, which tells types and shapes."""
    return mapped(element, lambda value: value[:0] if isinstance(value, list) else value[:0].copy())


def has_lists(form: Any) -> bool:
    """Return whether an element has values that vary in size."""
    return any(isinstance(value, list) for value in leaves(form))


def row_bytes(forms: Mapping[str, Any]) -> int:
    """Return the bytes of a row of elements, without values that vary in size."""
    arrays = [value for value in leaves(dict(forms)) if not isinstance(value, list)]
    return sum(array.dtype.itemsize * math.prod(array.shape[1:]) for array in arrays)


def fresh(form: Any, n: int) -> Any:
    """Return an element of n arbitrary rows."""

    def made(value: Any) -> Any:
        if isinstance(value, list):
            return [None] * n
        return np.empty((n, *value.shape[1:]), value.dtype)

    return mapped(form, made)


def stretch(element: Any, begin: int, end: int) -> Any:
    """Return some rows of an element: views of its arrays, and fresh lists."""
    return mapped(element, lambda value: value[begin:end])


def put_lists(element: Any, begin: int, part: Any) -> None:
    """Write the lists of a part into those of an element; its arrays are views of the element's."""
    if isinstance(element, dict):
        for key, value in element.items():
            put_lists(value, begin, part[key])
    elif isinstance(element, tuple):
        for value, inner in zip(element, part, strict=True):
            put_lists(value, begin, inner)
    elif isinstance(element, list):
        element[begin : begin + len(part)] = part


def joined(parts: Sequence[Any], into: Any = None) -> Any:
    """Return one element of the rows of several; arrays are padded to the longest with zeros.

    into:  an element to write the rows into, and to return
    """
    first = parts[0]
    if type(first) is np.ndarray and (
        first.ndim == 1 or all(part.shape[1:] == first.shape[1:] for part in parts)
    ):
        return np.concatenate(parts, out=into)
    if isinstance(first, dict):
        inner = into or dict.fromkeys(first)
        return {key: joined([part[key] for part in parts], inner[key]) for key in inner}
    if isinstance(first, tuple):
        inner = into or [None] * len(first)
        return tuple(joined(*one) for one in zip(zip(*parts, strict=True), inner, strict=True))
    if isinstance(first, list):
        values = [value for part in parts for value in part]
        if into is None:
            return values
        into[:] = values
        return into
    longest = tuple(map(max, zip(*(part.shape[1:] for part in parts), strict=True)))
    whole = np.zeros((sum(map(len, parts)), *longest), first.dtype)
    begin = 0
    for part in parts:
        rows = slice(begin, begin := begin + len(part))
        whole[(rows, *map(slice, part.shape[1:]))] = part
    return whole


def check_reusable(elements: Mapping[str, Any], forms: Mapping[str, Any], n: int) -> None:
    """Raise ArgumentError unless elements of an earlier batch can be written into."""
    for name, form in forms.items():
        _check_reusable(f"out.{name}", elements[name], form, n)
    places = [
        (array.ctypes.data, array.nbytes, name)
        for name in forms
        for array in leaves(elements[name])
        if not isinstance(array, list) and array.nbytes
    ]
    places.sort(key=itemgetter(0))  # of two at one place the first in the batch stays first
    for (begin, nbytes, name), (next_begin, _, other) in pairwise(places):
        if next_begin < begin + nbytes:
            raise ArgumentError(
                f"out.{other} must have memory of its own (it has bytes in common with "
                f"out.{name}): {_WAY_OUT}"
            )


def _check_reusable(name: str, found: Any, form: Any, n: int) -> None:
    if isinstance(form, dict | tuple):
        keys = form if isinstance(form, dict) else range(len(form))
        if type(found) is not type(form) or len(found) != len(form):
            raise ArgumentError(f"{name} is nested in another way: {_WAY_OUT}")
        for key in keys:
            if isinstance(form, dict) and key not in found:
                raise ArgumentError(f"{name} has no {key!r}: {_WAY_OUT}")
            _check_reusable(f"{name}[{key!r}]", found[key], form[key], n)
    elif isinstance(form, list):
        if type(found) is not list or len(found) != n:
            raise ArgumentError(f"{name} must be a list of {n} values: {_WAY_OUT}")
    else:
        shape = (n, *form.shape[1:])
        fits = type(found) is np.ndarray and (found.dtype, found.shape) == (form.dtype, shape)
        if not fits or not found.flags.carray:
            what = type(found).__name__
            if isinstance(found, np.ndarray):
                what = f"{found.dtype} {found.shape}"
            raise ArgumentError(
                f"{name} must be a writeable, aligned, C-contiguous array, {form.dtype} {shape} "
                f"(it is {what}): {_WAY_OUT}"
            )
