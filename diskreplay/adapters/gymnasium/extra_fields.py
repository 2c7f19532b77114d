"""The extra fields of the next transition, which a function of the user returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import diskreplay
from diskreplay.adapters.gymnasium.columns import copied

Extra: TypeAlias = Callable[[], Mapping[str, Any]]

# The arguments of push and extend that the wrappers give, or that are no fields.
_NO_EXTRA = frozenset(
    ("state", "action", "reward", "next_state", "done", "truncated", "env", "priority")
    + ("states", "actions", "rewards", "next_states", "dones", "truncateds", "priorities")
)


def checked_extra(extra: Extra | None) -> Extra | None:
    """Return the function of the extra fields, or raise ArgumentError."""
    if extra is not None and not callable(extra):
        raise diskreplay.ArgumentError(
            "extra must be a function without arguments that returns a dictionary of fields, or "
            f"None (found a {type(extra).__name__})"
        )
    return extra


def extra_fields(extra: Extra | None) -> dict[str, Any]:
    """Return copies of the extra fields of the next transition, or raise ArgumentError."""
    found = {} if extra is None else extra()
    if not isinstance(found, Mapping):
        raise diskreplay.ArgumentError(
            "the function extra= must return a dictionary of fields by name (found a "
            f"{type(found).__name__})"
        )
    for name in found:
        if not isinstance(name, str) or name in _NO_EXTRA:
            raise diskreplay.ArgumentError(
                f"the function extra= must return further fields by name (found {name!r}): "
                "RecordTransitions gives the others, and new priorities are the largest so far"
            )
    return {name: copied(value) for name, value in found.items()}


def check_rows(name: str, column: Any, n: int) -> None:
    """Raise ArgumentError unless each array of an extra field has n rows."""
    if isinstance(column, dict | tuple):
        for part in column.values() if isinstance(column, dict) else column:
            check_rows(name, part, n)
        return
    try:
        found = f"{len(column)} rows"
    except TypeError:
        found = f"a {type(column).__name__}"
    if found != f"{n} rows":
        raise diskreplay.ArgumentError(
            f"extra field {name!r}: expected an array of {n} rows, one for each environment "
            f"(found {found})"
        )
