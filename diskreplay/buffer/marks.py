"""Marks as the user sees them, and the checks of their names and data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diskreplay.errors import ArgumentError, MismatchError
from diskreplay.records import seal
from diskreplay.store import Identity, State, StoredMark
from diskreplay.wording import count_of, shown

_NAME_BYTES = 200
_DATA_BYTES = 8192
_LEVELS = 32
_KINDS = (
    "the data of a mark must be None, bool, int, float, str, bytes, or lists and dictionaries of "
    f"these with str as keys, at most {_LEVELS} levels deep and {_DATA_BYTES} bytes in all"
)


@dataclass(frozen=True)
class Mark:
    """A named commit to which a buffer can be rewound.

    name:   as given to `mark`
    count:  number of transitions ever written, as of the mark
    frame:  batches given, over all runs; 0 in a uniform buffer
    draws:  number of the next draw
    time:   when it was made, in seconds since 1970
    data:   the value given to `mark`
    """

    name: str
    count: int
    frame: int
    draws: int
    time: float
    data: Any

    @classmethod
    def of(cls, stored: StoredMark) -> Mark:
        """Return a mark as the user sees it."""
        state = stored.state
        return cls(stored.name, state.count, state.frame, state.draws, stored.time, stored.data)

    def to_plain(self) -> dict[str, Any]:
        """Return the mark as `stats()` has it."""
        return dict(vars(self))


def checked_name(name: Any) -> str:
    """Return the name of a mark, or raise ArgumentError."""
    is_text = isinstance(name, str) and name.isprintable()
    if is_text and 0 < len(name.encode()) <= _NAME_BYTES:
        return str(name)
    raise ArgumentError(
        f"the name of a mark must be printable text of 1 to {_NAME_BYTES} bytes "
        f"(found {shown(name)})"
    )


def checked_data(data: Any) -> Any:
    """Return the data of a mark, or raise ArgumentError for a value that would come back changed.

    That is all but None, bool, int, float, str, bytes, lists, and dictionaries with str as keys.
    """
    _check_plain(data, _LEVELS)
    try:
        size = len(seal("", data))
    except (ValueError, OverflowError) as error:
        raise ArgumentError(f"the data of a mark cannot be stored: {error}: {_KINDS}") from None
    if size > _DATA_BYTES:
        raise ArgumentError(
            f"the data of a mark must be small, at most {_DATA_BYTES} bytes (found {size}): keep "
            "it in a file, and give the name and the hash of the file"
        )
    return data


def _check_plain(value: Any, levels: int) -> None:
    if type(value) is list and levels:
        for item in value:
            _check_plain(item, levels - 1)
    elif type(value) is dict and levels and all(type(key) is str for key in value):
        for item in value.values():
            _check_plain(item, levels - 1)
    elif value is not None and type(value) not in (bool, int, float, str, bytes):
        raise ArgumentError(f"{_KINDS} (found {shown(value)})")
    elif type(value) is int and not -(2**63) <= value < 2**64:
        raise ArgumentError(
            f"an int in the data of a mark must be at least -2**63 and less than 2**64 (found "
            f"{shown(value)}): give larger ones as text, such as the state of a numpy generator as "
            "json.dumps(rng.bit_generator.state)"
        )


def found_mark(marks: Sequence[StoredMark], name: str, path: Path) -> StoredMark:
    """Return the mark of a name, or raise ArgumentError."""
    check_name(name, [mark.name for mark in marks], path)
    return next(mark for mark in marks if mark.name == name)


def check_name(name: str, known: Sequence[str], path: Path) -> None:
    """Raise ArgumentError if a name is none of the known ones."""
    if name not in known:
        found = ", ".join(map(repr, known[-8:])) or "none"
        raise ArgumentError(f"{path} has no mark {name!r} (found {found}): marks() lists them")


def missing_rows(mark: StoredMark, state: State, identity: Identity) -> int:
    """Return how many transitions that were live at a mark the ring has overwritten since."""
    live = mark.state.live(identity)
    return max(0, min(state.oldest_stored(identity), live.count) - live.first)


def refuse_missing(mark: StoredMark, state: State, identity: Identity, path: Path) -> None:
    """Raise MismatchError if transitions that were live at a mark are overwritten."""
    missing = missing_rows(mark, state, identity)
    if missing:
        live = mark.state.live(identity)
        needed = state.given - live.first - identity.capacity
        raise MismatchError(
            f"{path} cannot go back to mark {mark.name!r} exactly: of the "
            f"{count_of(live.size, 'transition')} that were live then, the ring has overwritten "
            f"{missing:,}, write ids {live.first} to {live.first + missing - 1}; "
            f"rewind({mark.name!r}, missing='drop') goes back without them, and keep_rows={needed} "
            f"(found {identity.keep_rows}) would have kept them: diskreplay.resize() changes it "
            "for later marks"
        )
