"""Plain facts: numbers and tables that a store holds, checked where they are read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diskreplay.errors import DamageError
from diskreplay.validation import MAX_COUNT
from diskreplay.wording import shown

_MOST = MAX_COUNT // 2  # of a stored count: it can go on counting


def count_in(name: str, fact: str, found: Any) -> int:
    """Return a stored count, or raise DamageError."""
    if type(found) is not int or not 0 <= found <= _MOST:
        raise DamageError(f"the {name} holds no number of {fact} (found {shown(found)})")
    return found


def table_of(name: str, found: Any) -> dict[str, Any]:
    """Return a stored table, or raise DamageError."""
    if not isinstance(found, Mapping):
        raise DamageError(f"the {name} is not a table")
    return dict(found)


def table_or_empty(found: Any) -> Mapping[str, Any]:
    """Return a stored table; an empty one for anything else."""
    return found if isinstance(found, Mapping) else {}
