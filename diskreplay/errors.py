"""The errors of diskreplay.

Each is a `DiskReplayError` and the builtin that a caller expects::

    DiskReplayError
    ├── ArgumentError        ValueError    a constructor or method argument out of its range
    ├── SchemaError          ValueError    a transition that does not fit the schema
    ├── PriorityError        ValueError    a priority that is negative, NaN or infinite
    ├── MismatchError        ValueError    a store of another capacity, kind or schema than expected
    ├── SampleError          ValueError    a draw of more transitions than the buffer holds
    ├── NotLiveError         IndexError    a write id that was evicted or never written
    ├── NotAStoreError       OSError       a path that does not hold a store
    ├── LockedError          OSError       the store is held by another opener
    ├── ReadOnlyError        OSError       a write to a buffer that may only read
    ├── NotAllowedError      PermissionError  a call that a service does not allow to this client
    ├── StorageError         OSError       the disk refused: it is full, forbidden or gone
    ├── DamageError          RuntimeError  stored bytes are not the bytes that were written
    ├── FormatVersionError   RuntimeError  a store of a format that this version does not know
    ├── NotInstalledError    ImportError   a codec whose package is not installed
    ├── ServiceError         OSError       a server that does not answer
    ├── RateLimitError       TimeoutError  an insert or a sample that was not allowed in time
    └── ClosedError          RuntimeError  a call on a closed buffer

An `EpisodeWarning` is a UserWarning.
"""

from __future__ import annotations

import sys
import warnings


def printable(text: object) -> str:
    r"""Return a text with escapes for characters that control a terminal or break a line.

    Names, paths and the contents of a store may come from strangers.

    >>> printable(f"runs{chr(27)}[2J")
    'runs\\x1b[2J'
    """
    text = str(text)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class DiskReplayError(Exception):
    """The root of all errors of diskreplay; their messages are printable."""

    def __init__(self, *args: object) -> None:
        super().__init__(*(printable(arg) if isinstance(arg, str) else arg for arg in args))


class ArgumentError(DiskReplayError, ValueError):
    """A constructor or method argument is out of its range."""


class SchemaError(DiskReplayError, ValueError):
    """A transition does not fit the schema, or no schema can be made of the given fields."""


class PriorityError(DiskReplayError, ValueError):
    """A priority is negative, NaN or infinite."""


class MismatchError(DiskReplayError, ValueError):
    """A store has another capacity, kind or schema than the caller expects."""


class SampleError(DiskReplayError, ValueError):
    """More transitions were requested than the buffer holds."""


class NotLiveError(DiskReplayError, IndexError):
    """A write id is not live: evicted, cleared, or never written."""


class NotAStoreError(DiskReplayError, OSError):
    """A path does not hold a diskreplay store."""


class LockedError(DiskReplayError, OSError):
    """The store is held by another opener."""


class ReadOnlyError(DiskReplayError, OSError):
    """A buffer that may only read was asked to write."""


class NotAllowedError(DiskReplayError, PermissionError):
    """A service does not know the token of a client, or the token has no right to a call."""


class StorageError(DiskReplayError, OSError):
    """The file system or the storage engine refused an operation."""


class DamageError(DiskReplayError, RuntimeError):
    """Stored bytes are not the bytes that were written."""


class FormatVersionError(DiskReplayError, RuntimeError):
    """A store has a format that this version of diskreplay does not know."""


class NotInstalledError(DiskReplayError, ImportError):
    """The package of a codec is not installed."""


class ServiceError(DiskReplayError, OSError):
    """A server does not answer, or the connection to it cannot be used."""


class RateLimitError(DiskReplayError, TimeoutError):
    """A rate limiter allowed no insert, or no sample, in time."""


class ClosedError(DiskReplayError, RuntimeError):
    """A method was called on a closed buffer."""


class EpisodeWarning(UserWarning):
    """Transitions that should follow each other do not, so that episodes are cut or mixed."""


def warn_caller(message: str, category: type[Warning]) -> None:
    """Warn at the line of the caller outside of this package, with a printable message."""
    level, frame = 1, sys._getframe()
    inside = ("diskreplay", "contextlib")  # our context managers run in frames of contextlib
    while frame.f_back is not None and frame.f_globals["__name__"].split(".")[0] in inside:
        level, frame = level + 1, frame.f_back
    warnings.warn(printable(message), category, stacklevel=level)
