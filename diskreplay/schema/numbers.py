"""Numbers: a user's values as arrays of numbers, and the limits of rewards and dones."""

from __future__ import annotations

import cmath
from collections.abc import Mapping
from typing import Any

import numpy as np

from diskreplay.aliases import Array
from diskreplay.errors import SchemaError
from diskreplay.schema.names import root_of
from diskreplay.validation import as_array

REAL = "?bBhHiIlLqQefd"  # numpy's letters for the types of real numbers, in any byte order
COMPLEX = "FD"
ONE_DICTIONARY = "give one dictionary of arrays, {key: [one[key] for one in dictionaries]}"
DONES = frozenset((0, 1))  # and every number that is equal to one of them
_FEW = 64  # up to so many numbers Python looks at them faster than numpy, measured


def as_numbers(name: str, value: Any) -> Array:
    """Return a field's value, or a column of them, as an array of numbers; or raise SchemaError."""
    if value is None:
        way_out = " (at the end of an episode give the last observation, done masks it)"
        is_after = root_of(name) == "next_state"
        raise SchemaError(f"field {name!r} is None{way_out if is_after else ''}")
    if isinstance(value, Mapping):
        raise SchemaError(
            f"field {name!r} is a dictionary (expected numbers or an array, as the first "
            "transition or schema= has set it)"
        )
    try:
        array = as_array(value, SchemaError, f"field {name!r} is not an array of numbers")
    except SchemaError as error:
        if "inhomogeneous" not in str(error):
            raise
        raise SchemaError(f"{error}: {way_to_vary(name)}") from None
    if array.dtype.char not in REAL + COMPLEX:
        if isinstance(value, list) and all(isinstance(each, Mapping) for each in value):
            raise SchemaError(
                f"field {name!r}: expected numbers or bools, or a dictionary of them (found a list "
                f"of dictionaries): {ONE_DICTIONARY}"
            )
        raise not_numbers(name, array.dtype)
    return array


def shape_advice(
    name: str, found: Array, shape: tuple[int, ...], lead: int, dtype: object = "float32"
) -> list[str]:
    """Return the ways to correct a value of a wrong shape, [] where none is known.

    shape, dtype:  of the field
    """
    ways = []
    root, of_row = root_of(name), found.shape[lead:]
    if root == "next_state":
        state = name.removeprefix("next_")
        ways.append(f"{state} and {name} need one shape (found {shape} and {of_row})")
    if len(shape) > 1 and of_row == shape[1:] and root in ("state", "action"):
        ways.append(
            "where the schema is that of a vector environment, make it of its "
            "single_observation_space and single_action_space"
        )
    if not lead and not shape and found.size == 1:
        ways.append("give a plain number")
    if lead and not shape and found.shape[:lead] and found.size == found.shape[0]:
        ways.append(f"give shape {found.shape[:lead]}")
    if not lead and found.ndim and found.shape[1:] == shape:
        ways.append("call extend(), which takes the transitions of several environments at once")
    if found.ndim > lead and found.ndim == lead + len(shape) and name not in ("reward", "done"):
        ways.append(way_to_vary(name, dtype, found.ndim - lead))
    return ways


def way_to_vary(name: str, dtype: object = "float32", ndim: int = 1) -> str:
    """Return the advice for arrays with lengths that differ."""
    lengths = ", ".join(["None"] * ndim) + "," * (ndim == 1)
    names = [name]
    if root_of(name) in ("state", "next_state"):  # which are of one type
        state = name.removeprefix("next_")
        names = [state, f"next_{state}"]
    fields = ", ".join(f'"{each}": ("{dtype}", ({lengths}))' for each in names)
    return f"where lengths vary, say so with schema={{{fields}}}"


def are_finite(array: Array) -> bool:
    """Return whether all numbers are finite."""
    # A sum is not finite where one of its numbers is not, and takes a fifth of the time.
    if array.size <= _FEW and array.ndim == 1 and cmath.isfinite(sum(array.tolist())):
        return True
    return bool(np.isfinite(array).all())


def are_dones(array: Array) -> bool:
    """Return whether all numbers are 0 or 1, or true or false."""
    if array.size <= _FEW:
        return DONES.issuperset(array.ravel().tolist())
    return bool(((array == 0) | (array == 1)).all())


def not_numbers(name: str, found: np.dtype[Any]) -> SchemaError:
    """Return the error of a value or a type that is none of numbers."""
    return SchemaError(
        f"field {name!r}: expected numbers or bools of a fixed shape (found {found})"
    )
