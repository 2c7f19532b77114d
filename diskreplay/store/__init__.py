"""Store: a directory with an LMDB environment, its locks, commits and state; it knows bytes."""

from __future__ import annotations

from diskreplay.store.creation import (
    beside,
    building,
    check_outside,
    real_path,
    remove_tree,
    replacing,
    sync,
    work_directory,
)
from diskreplay.store.directory import DATA, HIDDEN, LOCK, StoreDirectory
from diskreplay.store.known_note import make_known
from diskreplay.store.manifest import FORMAT, holds_store, raise_format, read_manifest
from diskreplay.store.marks import (
    StoredMark,
    check_marks,
    drop_mark,
    mark_way_out,
    marks_of,
    put_mark,
    rewound,
    summary_of,
)
from diskreplay.store.notes import NOTES, note_way_out, notes_of, put_notes, sealed_notes_of
from diskreplay.store.openers import ALONE, openers
from diskreplay.store.os_errors import explained, raising_own_errors, start_thread
from diskreplay.store.own_run import OwnRun
from diskreplay.store.pinned_pages import PinnedPagesWarning
from diskreplay.store.runs import RunRanges, Span, complete, spans_of, with_live, writer_of
from diskreplay.store.snapshot import MARKS, Snapshot
from diskreplay.store.state import (
    KINDS,
    Identity,
    Run,
    RunSettings,
    State,
)
from diskreplay.store.state_parts import MarkSummary, ObservationRange, Rewinds
from diskreplay.store.store import Store
from diskreplay.store.tables import TABLES, KeptBlock, name_of
from diskreplay.store.transaction import Transaction
from diskreplay.store.trust import held_data_file, pinned_commit
from diskreplay.store.waiting import WaitingWarning

__all__ = [
    "ALONE",
    "DATA",
    "FORMAT",
    "HIDDEN",
    "KINDS",
    "LOCK",
    "MARKS",
    "NOTES",
    "TABLES",
    "Identity",
    "KeptBlock",
    "MarkSummary",
    "ObservationRange",
    "OwnRun",
    "PinnedPagesWarning",
    "Rewinds",
    "Run",
    "RunRanges",
    "RunSettings",
    "Snapshot",
    "Span",
    "State",
    "Store",
    "StoreDirectory",
    "StoredMark",
    "Transaction",
    "WaitingWarning",
    "beside",
    "building",
    "check_marks",
    "check_outside",
    "complete",
    "drop_mark",
    "explained",
    "held_data_file",
    "holds_store",
    "make_known",
    "mark_way_out",
    "marks_of",
    "name_of",
    "note_way_out",
    "notes_of",
    "openers",
    "pinned_commit",
    "put_mark",
    "put_notes",
    "raise_format",
    "raising_own_errors",
    "read_manifest",
    "real_path",
    "remove_tree",
    "replacing",
    "rewound",
    "sealed_notes_of",
    "spans_of",
    "start_thread",
    "summary_of",
    "sync",
    "with_live",
    "work_directory",
    "writer_of",
]
