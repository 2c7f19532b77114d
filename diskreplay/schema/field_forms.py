"""The forms in which a user may give a field, or the parts of a nested one.

A field is a Field, a dtype, a dtype and a shape, or a space of Gymnasium, which is known by its
attributes: nothing is imported. Parts are dictionaries of these, or spaces that have spaces.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from diskreplay.errors import SchemaError
from diskreplay.schema.field import Field
from diskreplay.schema.names import MAX_DEPTH, name_of_key, name_of_place, too_deep
from diskreplay.schema.nesting import entries_of
from diskreplay.wording import shown

_PARTS = (Mapping, tuple, list)  # of a space


def entries_in(name: str, entry: Any, levels: int = MAX_DEPTH) -> Iterator[tuple[str, Any]]:
    """Yield the entries of a dictionary of fields, or of a space that has parts, by name."""
    parts: Any = None if isinstance(entry, Field) else entry
    if parts is not None:
        with contextlib.suppress(Exception):  # an object may raise anything when it is asked
            # As Dict and Tuple of Gymnasium have them; its OneOf is one of them at a time.
            if type(entry).__name__ != "OneOf" and isinstance(entry.spaces, _PARTS):
                parts = entry.spaces
    if isinstance(parts, Mapping):
        named = [(name_of_key(name, key), part) for key, part in entries_of(name, parts).items()]
    elif parts is not entry and isinstance(parts, tuple | list):
        named = [(name_of_place(name, place), part) for place, part in enumerate(parts)]
    else:
        yield name, entry
        return
    if not named or not levels:
        raise too_deep(name) if named else SchemaError(f"field {name!r} has no parts at all")
    for inner, part in named:
        yield from entries_in(inner, part, levels - 1)


def field_of(name: str, entry: Any, *, is_named: bool) -> Field:
    """Return a field, also one that is given as a dtype, with or without a shape."""
    if isinstance(entry, Field):
        return entry
    parts = entry if isinstance(entry, tuple) else (entry, ())
    if not is_named or entry is None or len(parts) != 2 or isinstance(parts[1], str | int):
        raise SchemaError(
            f"field {name!r}: expected a dtype, or a dtype and a shape (found {shown(entry)})"
        )
    return Field(name, *parts)
