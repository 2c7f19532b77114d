"""Saved values: what `load` takes of another store, beside its rows."""

from __future__ import annotations

from diskreplay.episodes import Links, LinkValues
from diskreplay.live_range import LiveRange
from diskreplay.records import has_links
from diskreplay.sampling import Priorities, Values
from diskreplay.store import NOTES, Snapshot, Store, sealed_notes_of


def saved_notes(snapshot: Snapshot, store: Store) -> dict[str, bytes | None]:
    """Return the notes of a snapshot as changes of all notes of a store."""
    with store.snapshot() as own:
        names = own.names(NOTES)
    return {**dict.fromkeys(names), **sealed_notes_of(snapshot)}


def saved_priorities(
    table: Priorities, snapshot: Snapshot, live: LiveRange, newest: LiveRange
) -> Values:
    """Return the priorities of the newest transitions of a store with this live range."""
    saved = Priorities(live.ring_slots, alpha=table.alpha, epsilon=table.epsilon)
    saved.load(snapshot.blocks(live.blocks(), table.database), live)
    return saved.live_values(newest)


def saved_links(snapshot: Snapshot, live: LiveRange, newest: LiveRange) -> LinkValues:
    """Return the links of the newest transitions of a store, all 0 if it has none."""
    saved = Links(live.ring_slots)
    if has_links(snapshot.meta("layout")):
        saved.load(snapshot.blocks(live.blocks(), saved.database), live)
    else:
        saved.load_none(live)
    return saved.live_values(newest)
