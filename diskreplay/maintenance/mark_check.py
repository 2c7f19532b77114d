"""The checks of the marks of a store, of the blocks kept for them, and of notes, without LMDB."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from diskreplay.errors import DamageError
from diskreplay.live_range import BLOCK_SLOTS
from diskreplay.lmdbfile import Tree, Walk
from diskreplay.records import unseal
from diskreplay.store import (
    NOTES,
    Identity,
    KeptBlock,
    MarkSummary,
    State,
    StoredMark,
    mark_way_out,
    name_of,
    note_way_out,
    summary_of,
)
from diskreplay.wording import shown

_MARKS = b"marks"
_KEPT = b"kept_blocks"


class MarkCheck:
    """The check of all marks, and the rows and blocks that they need.

    identity, state:  None where they cannot be read
    """

    def __init__(self, walk: Walk, identity: Identity | None, state: State | None) -> None:
        self._walk = walk
        self._faults = walk.faults
        self._identity = identity
        self._state = state
        self._marks: list[StoredMark] = []
        self._kept: dict[tuple[str, int], list[int]] = {}  # marks by table and block, ascending

    def check(
        self, marks: Tree, kept: Tree, check_block: Callable[[str, int, Any], object]
    ) -> None:
        """Check both databases.

        check_block:  raises DamageError for the content of a block of a table and number
        """
        identity = self._identity
        damaged = 0
        for key, _, raw in self._walk.values(_MARKS, marks):
            name = _text(key)
            damaged += 1
            with self._faults.collected():
                plain = _unsealed(name, raw, "mark", mark_way_out(name))
                if identity is not None:
                    self._marks.append(StoredMark.parse(name, plain, identity))
                damaged -= 1
        self._marks.sort(key=lambda mark: mark.number)
        for key, _, raw in self._walk.values(_KEPT, kept):
            name = _text(key)
            with self._faults.collected():
                block = KeptBlock.parse(name)
                inner = unseal(raw, name, f"the kept block {name!r}")
                if inner is not None:
                    content = unseal(inner, block.number, f"the content of kept block {name!r}")
                    check_block(block.database, block.number, content)
                is_known = any(mark.number == block.mark for mark in self._marks)
                if not is_known and not damaged:  # it may be of a damaged mark
                    raise DamageError(f"the kept block {name!r} is of no mark")
                self._kept.setdefault(block[::2], []).append(block.mark)
        if not damaged:
            self._check_summary()

    def _check_summary(self) -> None:
        """Check that the state agrees with the marks."""
        if self._identity is None or self._state is None:
            return
        state, marks = self._state, self._marks
        expected = summary_of(marks, state.marks.made, self._identity)
        if state.marks != expected:
            self._faults.add(f"the state does not agree with the marks: {_said(state.marks)}")
        for mark in marks:
            if mark.state.count > state.count or mark.number >= state.marks.made:
                self._faults.add(f"the mark {shown(mark.name)} is beyond the state")

    def needed(self) -> list[tuple[int, int]]:
        """Return the write ids that a rewind may make live again, as ranges [first, end).

        Their records are those that the ring has not overwritten.
        """
        if self._identity is None or self._state is None:
            return []
        oldest = self._state.oldest_stored(self._identity)
        found = [mark.state.live(self._identity).since(oldest) for mark in self._marks]
        return [(live.first, live.count) for live in found if live.count <= self._state.count]

    def needed_blocks(self, table: str) -> list[tuple[int, int]]:
        """Return the blocks of a table that are as they were at a mark, as ranges [first, end)."""
        found: list[tuple[int, int]] = []
        if self._identity is None:
            return found
        for mark in self._marks:
            kept = sorted(
                number
                for (of, number), marks in self._kept.items()
                if of == table and marks[-1] >= mark.number
            )
            for span in mark.state.live(self._identity).spans():
                low, end = span.start // BLOCK_SLOTS, (span.stop - 1) // BLOCK_SLOTS + 1
                for number in kept:
                    if low <= number < end:
                        found.append((low, number))
                        low = number + 1
                found.append((low, end))
        return found


def check_notes(walk: Walk, notes: Tree) -> None:
    """Check the database of notes."""
    for key, _, raw in walk.values(NOTES.encode(), notes):
        name = _text(key)
        with walk.faults.collected():
            _unsealed(name, raw, "note", note_way_out(name))


def _text(key: Any) -> str:
    return name_of(key) if isinstance(key, bytes) else str(key)


def _unsealed(name: str, raw: bytes, thing: str, way_out: str) -> Any:
    """Return the content of a name, or raise DamageError with the way out."""
    try:
        return unseal(raw, name, f"the {thing} {shown(name)}")
    except DamageError as error:
        raise DamageError(f"{error}: {way_out}") from None


def _said(summary: MarkSummary) -> str:
    return (
        f"it says that {summary.made} were made, the newest is {summary.newest}, and the oldest "
        f"write id is {summary.first}"
    )
