"""Errors as plain values, so that a client raises the error of a served replay."""

from __future__ import annotations

from typing import Any

from diskreplay import errors
from diskreplay.errors import DiskReplayError, ServiceError
from diskreplay.wording import shown

_PLAIN = (bool, int, float, str, bytes, type(None))


def error_to_plain(error: DiskReplayError) -> list[Any]:
    """Return the name of an error's class, and its arguments."""
    name = next(
        kind.__name__
        for kind in type(error).__mro__
        if getattr(errors, kind.__name__, None) is kind
    )  # of a class that a client knows
    arguments = [one if isinstance(one, _PLAIN) else str(one) for one in error.args]
    return [name, arguments]


def error_from_plain(plain: Any) -> DiskReplayError:
    """Return the error that `error_to_plain` described; a server may send anything."""
    match plain:
        case [str(name), list(arguments)]:
            kind = getattr(errors, name, DiskReplayError)
        case _:
            return ServiceError(f"the server sent an error that cannot be read: {shown(plain)}")
    if not isinstance(kind, type) or not issubclass(kind, DiskReplayError):
        kind = DiskReplayError
    return kind(*arguments)
