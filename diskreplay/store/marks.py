"""Marks: named commits to which a store can be rewound.

A mark keeps the state as of its commit. The slot tables as of that commit are the blocks of now,
but for those that changed since: the commit that changes a block first after the newest mark keeps
its old content under the number of that mark::

    mark 0     commit: block 7     mark 1     commit: block 7, block 8     rewind to mark 0
               kept: 0/7                      kept: 1/7, 1/8               puts back 0/7 and 1/8

So a block as of mark m is the one kept for the lowest mark from m on, or else the block of now. The
records as of a mark are in their slots until the ring overwrites them.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from diskreplay.errors import DamageError
from diskreplay.records import MARKS_FEATURE, with_features
from diskreplay.store.notes import checked_notes, restore_notes, sealed_notes_of
from diskreplay.store.snapshot import KEPT_BLOCKS, MARKS, Snapshot
from diskreplay.store.state import Identity, Run, State
from diskreplay.store.state_parts import MarkSummary, Rewinds
from diskreplay.store.tables import SLOT_TABLES, KeptBlock
from diskreplay.store.transaction import Transaction
from diskreplay.validation import MAX_COUNT
from diskreplay.wording import shown


@dataclass(frozen=True)
class StoredMark:
    """A mark as the store has it.

    number:  counts the marks ever made, from 0
    time:    when it was made, in seconds since 1970
    data:    the plain value of the user
    state:   as of its commit
    notes:   as of its commit, sealed, by name
    """

    name: str
    number: int
    time: float
    data: Any
    state: State
    notes: Mapping[str, bytes] = field(default_factory=dict)

    @classmethod
    def parse(cls, name: str, plain: Any, identity: Identity) -> StoredMark:
        """Return the mark that a store holds under a name, or raise DamageError."""
        found = plain if isinstance(plain, dict) else {}
        number, when = found.get("number"), found.get("time")
        if type(number) is not int or not 0 <= number <= MAX_COUNT or type(when) is not float:
            raise DamageError(
                f"the mark {shown(name)} is damaged: it has no number and time: "
                f"{mark_way_out(name)}"
            )
        try:
            state = State.parse(found.get("state"), identity)
            notes = checked_notes(found.get("notes", {}))
        except DamageError as error:
            raise DamageError(
                f"the mark {shown(name)} is damaged: {error}: {mark_way_out(name)}"
            ) from None
        return cls(name, number, when, found.get("data"), state, notes)

    def to_plain(self, identity: Identity) -> dict[str, Any]:
        """Return the mark as plain data; without `notes` where there are none."""
        state = self.state.to_plain(identity)
        plain = {"number": self.number, "time": self.time, "data": self.data, "state": state}
        return {**plain, "notes": self.notes} if self.notes else plain


def mark_way_out(name: str) -> str:
    """Return the end of a message about a damaged mark."""
    return f"delete_mark({name!r}) of a buffer removes it"


def marks_of(snapshot: Snapshot, identity: Identity) -> list[StoredMark]:
    """Return the marks of a store, oldest first; raise DamageError for a damaged one."""
    found = [
        StoredMark.parse(name, snapshot.named(MARKS, name, mark_way_out(name)), identity)
        for name in snapshot.names(MARKS)
    ]
    return sorted(found, key=lambda mark: mark.number)


def check_marks(snapshot: Snapshot, identity: Identity) -> None:
    """Raise DamageError if a mark or a kept block is damaged. Cost: reads all of them."""
    marks_of(snapshot, identity)
    for name in snapshot.names(KEPT_BLOCKS):
        KeptBlock.parse(name)
        snapshot.named(KEPT_BLOCKS, name)


def put_mark(txn: Transaction, state: State, identity: Identity, name: str, data: Any) -> State:
    """Put a mark of this commit, in place of one of the same name; return the state with it."""
    state = drop_mark(txn, state, identity, name)
    number = state.marks.made
    mark = StoredMark(name, number, time.time(), data, state, sealed_notes_of(txn))
    txn.put_named(MARKS, name, mark.to_plain(identity))
    txn.put_meta({"layout": with_features(txn.meta("layout"), (MARKS_FEATURE,))})
    first, oldest = state.live(identity).first, state.marks.first
    first = first if oldest is None else min(first, oldest)
    return replace(state, marks=MarkSummary(number + 1, number, first))


def drop_mark(txn: Transaction, state: State, identity: Identity, name: str) -> State:
    """Remove a mark, if it is there; return the state without it. It may be damaged.

    A block that is kept for it is the one of the mark before it, too, if that has none of its own.
    """
    if not txn.has_name(MARKS, name):
        return state
    txn.drop_named(MARKS, name)
    try:
        marks = marks_of(txn, identity)
    except DamageError:  # which blocks are kept for that one is not known: all stay, without harm
        return state
    numbers = [mark.number for mark in marks]
    for key in txn.names(KEPT_BLOCKS):
        with contextlib.suppress(DamageError):  # of a key that names no block
            block = KeptBlock.parse(key)
            if block.mark in numbers:
                continue
            if older := [number for number in numbers if number < block.mark]:
                _keep_for(txn, block, older[-1])
        txn.drop_named(KEPT_BLOCKS, key)
    return replace(state, marks=summary_of(marks, state.marks.made, identity))


def _keep_for(txn: Transaction, block: KeptBlock, mark: int) -> None:
    """Keep a kept block for an older mark, if none is kept for it yet."""
    older = str(block._replace(mark=mark))
    if txn.has_name(KEPT_BLOCKS, older):
        return
    content = b""  # of a damaged one: a rewind to the older mark then says that it is missing
    with contextlib.suppress(DamageError):
        content = txn.named(KEPT_BLOCKS, str(block))
    txn.put_named(KEPT_BLOCKS, older, content)


def rewound(
    txn: Transaction, state: State, identity: Identity, mark: StoredMark, start: int
) -> State:
    """Put slot tables, notes, marks and runs back to a mark; return the state as it was.

    The state counts one rewind more. Observation ids are not taken back. Marks made since are gone.

    state:  of now
    start:  the oldest write id of the mark whose record the ring has not overwritten
    """
    for table in SLOT_TABLES:
        restored: set[int] = set()
        for block in _kept_from(txn, table, mark.number):
            if block.number not in restored:
                txn.restore_block(block)
                restored.add(block.number)
            txn.drop_named(KEPT_BLOCKS, str(block))
    restore_notes(txn, mark.notes)
    marks = marks_of(txn, identity)
    for other in marks:
        if other.number > mark.number:
            txn.drop_named(MARKS, other.name)
    then = mark.state
    if then.count > state.count:
        raise DamageError(f"the mark {shown(mark.name)} is of more transitions than there are")
    for number in txn.run_numbers():
        with contextlib.suppress(DamageError):  # verify reports the damage
            plain = txn.run(number)
            run = None if plain is None else Run.parse(number, plain)
            if run is not None and run.end > then.count:
                txn.put_run(number, run.until(then.count).to_plain())
    return replace(
        then.keeping(state, then),
        start=max(then.start, start),
        commits=state.commits,
        runs=state.runs,
        run=state.run,
        observations=state.observations,
        marks=summary_of(
            [other for other in marks if other.number <= mark.number], state.marks.made, identity
        ),
        rewinds=Rewinds(state.rewinds.number + 1, state.given),
    )


def summary_of(marks: list[StoredMark], made: int, identity: Identity) -> MarkSummary:
    """Return the summary of some marks, oldest first, of so many that were ever made."""
    if not marks:
        return MarkSummary(made)
    first = min(mark.state.live(identity).first for mark in marks)
    return MarkSummary(made, marks[-1].number, first)


def _kept_from(snapshot: Snapshot, table: str, mark: int) -> Iterator[KeptBlock]:
    """Yield the kept blocks of a table for the marks from a number on, in order."""
    names = snapshot.names(KEPT_BLOCKS, str(KeptBlock(table, mark, 0)))
    yield from itertools.takewhile(
        lambda block: block.database == table, map(KeptBlock.parse, names)
    )
