"""Store: a directory with an LMDB environment, its locks, commits and state; it knows bytes."""

from __future__ import annotations

from diskreplay.store.creation import (
    beside,
    check_outside,
    real_path,
    remove_tree,
    replacing,
    sync,
    work_directory,
)
from diskreplay.store.directory import DATA, HIDDEN, LOCK, StoreDirectory
from diskreplay.store.known_note import make_known
from diskreplay.store.manifest import FORMAT, holds_store, raise_format
from diskreplay.store.openers import ALONE, openers
from diskreplay.store.os_errors import explained, raising_own_errors, start_thread
from diskreplay.store.own_run import OwnRun
from diskreplay.store.pinned_pages import PinnedPagesWarning
from diskreplay.store.runs import Span, complete, spans_of, with_live, writer_of
from diskreplay.store.snapshot import Snapshot
from diskreplay.store.state import KINDS, Identity, ObservationRange, Run, RunSettings, State
from diskreplay.store.store import Store
from diskreplay.store.tables import TABLES
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
    "TABLES",
    "Identity",
    "ObservationRange",
    "OwnRun",
    "PinnedPagesWarning",
    "Run",
    "RunSettings",
    "Snapshot",
    "Span",
    "State",
    "Store",
    "StoreDirectory",
    "Transaction",
    "WaitingWarning",
    "beside",
    "check_outside",
    "complete",
    "explained",
    "held_data_file",
    "holds_store",
    "make_known",
    "openers",
    "pinned_commit",
    "raise_format",
    "raising_own_errors",
    "real_path",
    "remove_tree",
    "replacing",
    "spans_of",
    "start_thread",
    "sync",
    "with_live",
    "work_directory",
    "writer_of",
]
