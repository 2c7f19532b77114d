"""PendingNotes: the notes that wait for the next commit of a writer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diskreplay.records import unseal
from diskreplay.store import Transaction, put_notes

_MOST_BYTES = 1 << 20


class PendingNotes:
    """Notes that were set or deleted since the last commit, by name; it is never changed itself.

    number:  counts the changes of this run; it never begins anew, see PendingChanges
    """

    def __init__(
        self, number: int = 0, changes: Mapping[str, tuple[int, bytes | None]] | None = None
    ) -> None:
        self.number = number
        self._changes = changes or {}

    def __bool__(self) -> bool:
        return bool(self._changes)

    @property
    def must_be_committed(self) -> bool:
        """True if no more should wait."""
        return sum(len(raw or b"") for _, raw in self._changes.values()) > _MOST_BYTES

    def changed(self, notes: Mapping[str, bytes | None]) -> PendingNotes:
        """Return these and further notes: their sealed bytes by name, or None to delete one."""
        number = self.number + 1
        changes = {name: (number, raw) for name, raw in notes.items()}
        return PendingNotes(number, {**self._changes, **changes})

    def none(self) -> PendingNotes:
        """Return that nothing waits: the changes were committed, or were taken back."""
        return PendingNotes(self.number)

    def put(self, txn: Transaction, after: int = 0) -> None:
        """Put the changes after a number into a commit."""
        changes = self._changes.items()
        put_notes(txn, {name: raw for name, (number, raw) in changes if number > after})

    def applied_to(self, notes: dict[str, Any]) -> dict[str, Any]:
        """Return notes as they are after the next commit, in the order of their names."""
        found = dict(notes)
        for name, (_, raw) in self._changes.items():
            if raw is None:
                found.pop(name, None)
            else:
                found[name] = unseal(raw, name, "the note")
        return dict(sorted(found.items(), key=lambda note: note[0].encode("utf-8", "replace")))
