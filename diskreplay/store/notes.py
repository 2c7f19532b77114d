"""Notes: small values of the user under names, in the commits of the rows that they tell of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diskreplay.errors import DamageError
from diskreplay.records import unseal
from diskreplay.store.snapshot import Snapshot
from diskreplay.store.transaction import Transaction
from diskreplay.wording import shown

NOTES = "notes"
_MOST_KEY_BYTES = 511  # of LMDB


def note_way_out(name: str) -> str:
    """Return the end of a message about a damaged note."""
    return f"delete_note({name!r}) of a buffer removes it"


def notes_of(snapshot: Snapshot) -> dict[str, Any]:
    """Return the notes of a store by name; raise DamageError for a damaged one."""
    names = snapshot.names(NOTES)
    return {name: snapshot.named(NOTES, name, note_way_out(name)) for name in names}


def sealed_notes_of(snapshot: Snapshot) -> dict[str, bytes]:
    """Return the sealed bytes of all notes by name; raise DamageError for a damaged one."""
    names = snapshot.names(NOTES)
    return {name: snapshot.sealed(NOTES, name, note_way_out(name)) for name in names}


def put_notes(txn: Transaction, notes: Mapping[str, bytes | None]) -> None:
    """Put the sealed bytes of notes by name; None removes a note, if it is there."""
    for name, raw in notes.items():
        if raw is not None:
            txn.put_sealed(NOTES, name, raw)
        elif txn.has_name(NOTES, name):
            txn.drop_named(NOTES, name)


def restore_notes(txn: Transaction, notes: Mapping[str, bytes]) -> None:
    """Put notes in the place of all that are there."""
    put_notes(txn, {**dict.fromkeys(txn.names(NOTES)), **notes})


def checked_notes(found: Any) -> dict[str, bytes]:
    """Return sealed notes that a store keeps elsewhere, or raise DamageError."""
    if not isinstance(found, dict):
        raise DamageError(f"it has no notes (found {shown(found)})")
    for name, raw in found.items():
        if not isinstance(name, str) or not 0 < len(name.encode()) <= _MOST_KEY_BYTES:
            raise DamageError(f"it has a note without a name (found {shown(name)})")
        unseal(raw, name, f"its note {shown(name)}")
    return found
