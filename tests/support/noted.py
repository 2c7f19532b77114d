"""Notes that are committed, past the buffer that reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from changed_values import values

from diskreplay.records.seals import unseal
from diskreplay.store import notes_of


def stored(path: Path) -> dict[str, Any]:
    """Return the notes of a store that is not open, read past the library."""
    found = values(path, "notes")
    return {key.decode(): unseal(raw, key.decode(), "note") for key, raw in found.items()}


def committed(buffer: Any) -> dict[str, Any]:
    """Return what is committed, beside what waits in the buffer."""
    with buffer._guard.replica.store.snapshot() as snapshot:
        return notes_of(snapshot)
