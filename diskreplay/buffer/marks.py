"""Marks as the user sees them, and the errors of those that are missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diskreplay.buffer.named_data import MARK
from diskreplay.errors import MismatchError
from diskreplay.store import Identity, State, StoredMark
from diskreplay.wording import count_of


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


def found_mark(marks: Sequence[StoredMark], name: str, path: Path) -> StoredMark:
    """Return the mark of a name, or raise ArgumentError."""
    MARK.check_known(name, [mark.name for mark in marks], path)
    return next(mark for mark in marks if mark.name == name)


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
