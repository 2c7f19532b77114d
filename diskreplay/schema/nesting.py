"""Nesting: values that are dictionaries and tuples, and the way between them and flat fields.

A nested value has a structure: the dictionary or tuple itself, with the places of the fields, or
their names, where it has values. names.py says how the names of fields tell it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

from diskreplay.errors import SchemaError
from diskreplay.schema.names import MAX_DEPTH, name_of_key, name_of_place, root_of, too_deep
from diskreplay.schema.numbers import ONE_DICTIONARY, as_numbers
from diskreplay.validation import as_array
from diskreplay.wording import cut

Structure: TypeAlias = Any  # an int or a str, or a dict or tuple of structures

_DICTS, _TUPLES = (dict, Mapping), (tuple, list)  # of values, where the structure is known


def mapped(value: Any, convert: Callable[[Any], Any]) -> Any:
    """Return a nested value with each of its values converted.

    >>> mapped({"camera": 0, "robot": (1, 2)}, ["red", "left", "right"].__getitem__)
    {'camera': 'red', 'robot': ('left', 'right')}
    """
    if isinstance(value, dict):
        return {key: mapped(part, convert) for key, part in value.items()}
    if isinstance(value, tuple):
        return tuple(mapped(part, convert) for part in value)
    return convert(value)


def leaves(value: Any) -> Iterator[Any]:
    """Yield the values of a nested value in their order."""
    if isinstance(value, dict | tuple):
        for part in value.values() if isinstance(value, dict) else value:
            yield from leaves(part)
    else:
        yield value


def flattened(name: str, value: Any, known: Structure = None) -> dict[str, Any]:
    """Return the values of a first value by the names of their fields.

    A dictionary nests, and a tuple that numpy cannot make one array of numbers of; any other value
    is that of one field. What is known decides instead, where it is.

    known:  the structure, of names, of the fields that are given

    >>> flattened("state", {"robot": (0.5, [1.0, 2.0]), "goal": (3, 4)})
    {'state.robot[0]': 0.5, 'state.robot[1]': [1.0, 2.0], 'state.goal': (3, 4)}
    """
    found: dict[str, Any] = {}
    _flatten(name, value, known, found, MAX_DEPTH)
    return found


def _flatten(name: str, value: Any, known: Structure, found: dict[str, Any], levels: int) -> None:
    if isinstance(known, str):
        found[name] = value
        return
    if known is not None:
        _check_kind(name, value, known)
    if not levels:
        raise too_deep(root_of(name))
    if isinstance(value, Mapping):
        given = entries_of(name, value)
        if not given:
            raise SchemaError(f"field {name!r} is an empty dictionary (expected at least one key)")
        for key, part in given.items():
            inner = known.get(key) if known is not None else None
            _flatten(name_of_key(name, key), part, inner, found, levels - 1)
    elif known is not None or (isinstance(value, tuple) and not _is_one_array(value)):
        for place, part in enumerate(value):
            inner = known[place] if known and place < len(known) else None
            _flatten(name_of_place(name, place), part, inner, found, levels - 1)
    else:
        found[name] = value


def _is_one_array(value: tuple[Any, ...]) -> bool:
    try:
        array = as_array(value, SchemaError, "")
        # numpy makes one array also of empty ones of several shapes.
        alike = array.size or len({as_array(part, SchemaError, "").shape for part in value}) <= 1
    except SchemaError:
        return False
    return array.dtype.kind in "biufc" and bool(alike)


def fill(structure: Structure, value: Any, row: list[Any]) -> bool:
    """Append the values of a nested value to a row, in the order of the fields.

    Returns False if the value has another structure; the row then holds some of its values.
    """
    if type(structure) is dict:
        if not isinstance(value, _DICTS) or len(value) != len(structure):
            return False
        for key, part in structure.items():
            if key not in value:
                return False
            if type(part) is int:
                row.append(value[key])
            elif not fill(part, value[key], row):
                return False
        return True
    if type(structure) is tuple:
        if not isinstance(value, _TUPLES) or len(value) != len(structure):
            return False
        return all(fill(part, value[place], row) for place, part in enumerate(structure))
    row.append(value)
    return True


def misfit(name: str, known: Structure, value: Any) -> SchemaError:
    """Return the error of a value that has another structure than is known, which names its parts.

    known:  the structure, of names
    """
    missing: list[str] = []
    new: list[str] = []
    _compare(name, known, value, missing, new)
    return SchemaError(
        f"expected the fields {', '.join(leaves(known))} (missing: "
        f"{', '.join(missing) or 'none'}; new: {', '.join(new) or 'none'})"
    )


def _compare(name: str, known: Structure, value: Any, missing: list[str], new: list[str]) -> None:
    """Collect the names of the parts that are missing and those that are new."""
    if isinstance(known, str):
        return
    _check_kind(name, value, known)
    name_of: Callable[[str, Any], str]
    if isinstance(known, dict):
        given, expected = entries_of(name, value), known
        name_of = name_of_key
    else:
        given, expected = dict(enumerate(value)), dict(enumerate(known))
        name_of = name_of_place
    for key, part in expected.items():
        if key in given:
            _compare(name_of(name, key), part, given[key], missing, new)
        else:
            missing += leaves(part)
    new += [name_of(name, key) for key in given if key not in expected]


def _check_kind(name: str, value: Any, known: Structure) -> None:
    """Raise SchemaError for a value that is no dictionary or tuple as is known."""
    is_dict = isinstance(known, dict)
    if isinstance(value, _DICTS if is_dict else _TUPLES):
        return
    if value is None:
        as_numbers(name, value)
    what = f"a dictionary with {', '.join(known)}" if is_dict else f"a tuple of {len(known)}"
    advice = ""
    if is_dict and isinstance(value, list | tuple):
        advice = f": {ONE_DICTIONARY}"
    raise SchemaError(
        f"field {name!r}: expected {what}, as the first transition or schema= has set it (found "
        f"{type(value).__name__}){advice}"
    )


def entries_of(name: str, value: Mapping[Any, Any]) -> dict[Any, Any]:
    """Return the entries of a mapping, whatever it is; raise SchemaError if it does not tell."""
    try:
        return dict(value.items())
    except Exception as error:  # an object may raise anything when it is iterated
        raise unusable(name, error) from None


def unusable(name: str, error: Exception) -> SchemaError:
    """Return the error of a value that raises an error when it is asked for its entries."""
    return SchemaError(f"field {name!r} is no usable dictionary: {cut(str(error))}")
