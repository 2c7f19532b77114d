"""The schema that the first transitions ask for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from diskreplay.errors import SchemaError
from diskreplay.schema.field import Field
from diskreplay.schema.names import nested_names, root_of
from diskreplay.schema.nesting import flattened
from diskreplay.schema.numbers import as_numbers, shape_advice
from diskreplay.schema.schema import Schema
from diskreplay.wording import shown


def infer_schema(values: Mapping[str, Any], given: Mapping[str, Field], *, lead: int) -> Schema:
    """Make a schema from the first transitions, whose values have `lead` leading dimensions.

    Float states, rewards, dones and extras become float32, whole-number actions int64, other whole
    numbers keep their type (Python's are int64), and so do text and bytes. next_state is what state
    is. `given` wins.

    values:  by root, nested or not
    """
    known = nested_names(given)
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if not name.isidentifier():  # or it would be taken as the name of a part
            raise SchemaError(f"a field's name must be a Python identifier (found {shown(name)})")
        flat |= flattened(name, value, known.get(name))
    return infer_fields(flat, given, lead=lead)


def infer_fields(values: Mapping[str, Any], given: Mapping[str, Field], *, lead: int) -> Schema:
    """Make a schema as `infer_schema` does, from values by the names of their fields."""
    fields = {}
    for name in dict.fromkeys((*values, *given)):
        if name in given:
            fields[name] = given[name]
        elif name == "truncated":  # as buffers know it, of the type of done
            fields[name] = Field(name, given["done"].dtype if "done" in given else np.float32)
        elif root_of(name) != "next_state":
            fields[name] = _infer_field(name, values[name], lead)
    if "next_state" not in given:
        for name, state in list(fields.items()):
            if root_of(name) == "state":
                field = replace(state, name=f"next_{name}")
                fields.setdefault(field.name, field)
    return Schema(fields)


def _infer_field(name: str, value: Any, lead: int) -> Field:
    if (text := _text_type(value, lead)) is not None and name not in ("reward", "done"):
        return Field(name, text)
    found = as_numbers(name, value)
    if name in ("reward", "done") and found.ndim > lead:
        advice = shape_advice(name, found, (), lead)
        advice.append(f"set its shape with schema=, where a {name} has one")
        raise SchemaError(
            f"field {name!r}: expected one number a transition (found shape {found.shape}"
            f"{', the first dimension of which counts the transitions' * lead}): "
            f"{', or '.join(advice)}"
        )
    dtype = found.dtype
    if dtype.kind == "f" or name in ("reward", "done"):
        dtype = np.dtype(np.float32)
    elif root_of(name) == "action" and dtype.kind in "iu":
        dtype = np.dtype(np.int64)
    return Field(name, dtype, found.shape[lead:])


def _text_type(value: Any, lead: int) -> type[str] | type[bytes] | None:
    """Return `str` or `bytes` where a value, or each value of a column, is so; else None."""
    values = [value]
    if lead:
        is_array = type(value) is np.ndarray and value.ndim and value.dtype.kind in "OUS"
        values = list(value) if is_array or isinstance(value, list) else []
    for kind, kinds in ((str, str), (bytes, (bytes, bytearray))):
        if values and all(isinstance(each, kinds) for each in values):
            return kind
    return None
