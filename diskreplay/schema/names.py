"""Names: a field may be a part of a nested value, and its name says where in the value it is.

A part of a dictionary has the name of its key, and a part of a tuple its place::

    state.camera        state["camera"]
    state.robot[1]      state["robot"][1]

So the names of fields are enough to nest their values again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from diskreplay.errors import SchemaError
from diskreplay.wording import shown

MAX_DEPTH = 32  # of parts within parts
_STEP = re.compile(r"\.([^.\[\]]+)|\[(0|[1-9][0-9]{0,8})\]")

Step = str | int


def root_of(name: str) -> str:
    """Return the name of the value that a field is, or is a part of."""
    return re.split(r"[.\[]", name, maxsplit=1)[0]


def steps_of(name: Any) -> tuple[Step, ...]:
    """Return the root of a name, and the keys and places after it; raise SchemaError for others.

    >>> steps_of("state.robot[1]")
    ('state', 'robot', 1)
    """
    root = root_of(name) if isinstance(name, str) else ""
    if not root.isidentifier():
        raise SchemaError(f"a field's name must be a Python identifier (found {shown(name)})")
    steps: list[Step] = [root]
    at = len(root)
    while found := _STEP.match(name, at):
        key, place = found.groups()
        steps.append(int(place) if key is None else key)
        at = found.end()
    if at < len(name) or not name.isprintable():
        raise SchemaError(
            f"a part of a field is named as in state.camera or state[0] (found {shown(name)})"
        )
    if len(steps) > MAX_DEPTH:
        raise too_deep(root)
    return tuple(steps)


def too_deep(root: str) -> SchemaError:
    """Return the error of a value that is nested too deeply."""
    return SchemaError(f"field {root!r} is nested too deeply (expected at most {MAX_DEPTH} levels)")


def name_of_key(name: str, key: Any) -> str:
    """Return the name of the part of a dictionary, or raise SchemaError for an unusable key."""
    if isinstance(key, str) and key.isprintable() and key and not set(".[]") & set(key):
        return f"{name}.{key}"
    raise SchemaError(
        f"field {name!r}: the keys of a dictionary must be printable strings without '.', '[' and "
        f"']', since they name its parts (found {shown(key)}): choose another key"
    )


def name_of_place(name: str, place: int) -> str:
    """Return the name of the part of a tuple."""
    return f"{name}[{place}]"


def nested_names(names: Iterable[str]) -> dict[str, Any]:
    """Return names of fields nested as their values are, by root; raise SchemaError if they cannot.

    >>> nested_names(["state.camera", "state.robot[1]", "state.robot[0]"])
    {'state': {'camera': 'state.camera', 'robot': ('state.robot[0]', 'state.robot[1]')}}
    """
    roots: dict[Step, Any] = {}
    for name in names:
        *steps, last = steps_of(name)
        group: Any = roots
        for step in steps:
            group = group.setdefault(step, {})
            if isinstance(group, str):
                raise _contradiction(f"{group!r} is a value, and {name!r} a part of it")
        if last in group:
            raise _contradiction(f"{name!r} is a value, and has parts")
        group[last] = name
    return {str(root): _closed(str(root), group) for root, group in roots.items()}


def _closed(name: str, group: Any) -> Any:
    """Return a group with tuples in place of dictionaries of places."""
    if isinstance(group, str):
        return group
    places = sorted(step for step in group if isinstance(step, int))
    if places and len(places) < len(group):
        raise _contradiction(f"{name!r} has both keys and places")
    for place, found in enumerate(places):
        if place != found:
            missing = name_of_place(name, place)
            raise _contradiction(f"{name_of_place(name, found)!r} is there without {missing!r}")
    name_of: Callable[[str, Any], str] = name_of_place if places else name_of_key
    closed = {step: _closed(name_of(name, step), part) for step, part in group.items()}
    return tuple(closed[place] for place in places) if places else closed


def _contradiction(what: str) -> SchemaError:
    return SchemaError(f"the names of the fields contradict each other: {what}")
