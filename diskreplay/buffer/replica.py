"""Replica: the state of a store in memory, as of a commit; it loads later commits.

A buffer with access="read" is a replica. The two writers are replicas that change: `Writer` is
ahead of its store, `SharedWriter` follows the store and keeps its own changes apart.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from diskreplay.aliases import Columns, Floats, Ints
from diskreplay.buffer.prefetch import PrefetchQueues
from diskreplay.buffer.rows import Rows
from diskreplay.episodes import Links
from diskreplay.errors import DamageError, StorageError
from diskreplay.live_range import LiveRange
from diskreplay.records import has_links
from diskreplay.sampling import DrawBasis, RandomStream, Sampler, SlotTable
from diskreplay.store import (
    RunRanges,
    Snapshot,
    State,
    Store,
    Transaction,
    check_marks,
    complete,
    notes_of,
)

_COUNTED = "draw_counts"  # the setting that names the last commit with counts of draws
# Makes a mark, or deletes one: returns the state of a commit after it has put more.
StateChange: TypeAlias = Callable[[Transaction, State], State]


def counts_hold(state: State) -> bool:
    """Return whether the last commit kept the counts of draws: otherwise they are out of date."""
    return state.settings.get(_COUNTED) == f"{state.run} {state.commits}"


def with_counts(state: State) -> State:
    """Return the state of a commit that keeps the counts of draws."""
    return replace(state, settings={**state.settings, _COUNTED: f"{state.run} {state.commits}"})


@dataclass
class Parts:
    """The slot tables and the sampler of a replica; priorities make the kind of a buffer.

    follows_runs:  whether the sampler needs to know who wrote which transition
    """

    basis: DrawBasis
    links: Links
    sampler: Sampler
    follows_runs: bool


class Replica:
    """Rows, slot tables and a sampler, as of the last commit that was loaded."""

    draws_are_kept = False  # True where the store keeps their number: then a draw is a change

    def __init__(
        self,
        store: Store,
        rows: Rows,
        parts: Parts,
        settings: dict[str, Any],
        stream: RandomStream | None = None,
    ) -> None:
        self.store = store
        self.identity = store.identity
        self.rows = rows
        self.priorities, self.links = parts.basis.priorities, parts.links
        self._basis = parts.basis if parts.follows_runs else None
        self.counts = parts.basis.counts
        tables: tuple[SlotTable[Any] | None, ...] = (self.priorities, self.links, self.counts)
        self.tables = [table for table in tables if table is not None]
        self.sampler = parts.sampler
        self.settings = settings
        self.damaged: set[int] = set()  # write ids of records that draws have left out
        self.prefetch_queues = PrefetchQueues()  # one for each iterator that draws ahead
        self.count = self.start = self.committed = self.commits = self.runs = self.rewinds = 0
        self.draws = 0  # given so far, which is the number of the next draw
        self.stale_updates = self._stored_cuts = self._stored_draws = 0
        self._links_are_stored = False  # True from the first commit with links on
        self._counts_are_stored = False  # True while all commits keep the counts of draws
        self._frame_at_start = 0  # the frame without the draws of this replica
        self._seals: dict[str, dict[int, bytes]] = {}
        self._loaded_state: bytes | None = None  # as stored, of the last load
        self._own_state: tuple[bytes, State] | None = None  # of the last own commit
        self._stream = stream
        self.restore()

    @property
    def live(self) -> LiveRange:
        """The live range."""
        identity = self.identity
        return LiveRange(identity.capacity, self.start, self.count, identity.keep_rows)

    @property
    def nbytes(self) -> int:
        """The memory of all parts in a full buffer, in bytes."""
        tables = sum(table.nbytes for table in self.tables)
        return self.rows.nbytes + tables + self.prefetch_queues.nbytes

    # Following the store

    def restore(self) -> None:
        """Load the last commit of the store as a whole."""
        self._loaded_state = None
        with self.store.snapshot() as snapshot:
            self.follow(snapshot)

    def view(self) -> contextlib.AbstractContextManager[Snapshot | None]:
        """Load the last commit, and yield its snapshot."""
        return self._view()

    @contextlib.contextmanager
    def _view(self) -> Iterator[Snapshot | None]:
        self.store.check_place()
        with self.store.snapshot() as snapshot:
            self.follow(snapshot)
            yield snapshot

    def follow(self, snapshot: Snapshot) -> None:
        """Load the changes of the commits since the last call."""
        raw = snapshot.raw("state")
        if raw is not None and raw == self._loaded_state and self.rows.schema is not None:
            return
        self.rows.adopt_stored(snapshot)
        state = self.read_state(snapshot)
        is_rewound = state.rewinds.number != self.rewinds
        is_new = self._loaded_state is None or state.start != self.start or is_rewound
        self._loaded_state = None  # after an interrupt the next call loads all again
        self.count = self.committed = state.count
        self.start, self.commits, self.runs = state.start, state.commits, state.runs
        if is_rewound:  # write ids were given again
            self.rows.forget_rows()
            self.damaged.clear()
            self.rewinds = state.rewinds.number
        if is_new:
            self.prefetch_queues.drop()
            self._clear_tables()
        self._load_state(state, snapshot)
        if self._basis is not None:
            self._basis.runs = self.run_ranges(snapshot)
        if is_new and self.damaged:
            damaged = np.array(sorted(self.damaged))
            self.sampler.leave_out(damaged[self.live.holds(damaged)], self.live)
        self._loaded_state = raw

    def read_state(self, snapshot: Snapshot) -> State:
        """Return the state of the store; raise StorageError for one older than the last."""
        path, raw = self.store.path, snapshot.raw("state")
        if self._own_state is not None and self._own_state[0] == raw:
            state = self._own_state[1]
        else:
            try:
                state = State.parse(snapshot.meta("state"), self.identity)
            except DamageError as error:
                raise DamageError(f"{error}, in {path}") from None
        is_short = state.count < self.committed and state.rewinds.number <= self.rewinds
        if is_short or state.commits < self.commits:
            raise StorageError(
                f"{path} has {state.count} transitions in {state.commits} commits (there were "
                f"{self.committed} in {self.commits}): its files were replaced; close the buffer, "
                "and open the store again"
            )
        self.rows.check_count(snapshot, state.live(self.identity))
        return state

    def _clear_tables(self) -> None:
        self._seals = {}
        for table in self.tables:
            table.clear(self.live.first)
        self.sampler.readmit()

    def _load_state(self, state: State, snapshot: Snapshot) -> None:
        self.stale_updates, self._frame_at_start = state.stale_updates, state.frame
        self._stored_cuts, self._stored_draws = state.cuts, state.draws
        if self.counts is not None:
            stored = snapshot.seals(self.counts.database)
            self._counts_are_stored = counts_hold(state) and stored.keys() >= {*self.live.blocks()}
        for table in self._stored_tables(snapshot):
            seals = snapshot.seals(table.database)
            self._check_blocks(table, seals, self.live)
            known = self._seals.get(table.database, {})
            changed = [number for number, seal in seals.items() if known.get(number) != seal]
            with table.read_from(self.store.path):
                table.load(snapshot.blocks(changed, table.database), self.live)
            self._seals[table.database] = seals
        if not self._links_are_stored:
            self.links.load_none(self.live)
        if self.priorities is not None:
            self.priorities.largest = state.max_priority
        if self._stream is None:
            self._stream = RandomStream(state.seed)

    def _stored_tables(self, snapshot: Snapshot) -> list[SlotTable[Any]]:
        """Return the tables that the store has: older versions wrote no links, others no counts."""
        if not self._links_are_stored:
            self._links_are_stored = has_links(snapshot.meta("layout"))
        absent = {None if self._links_are_stored else self.links.database}
        if self.counts is not None and not self._counts_are_stored:
            absent.add(self.counts.database)
        return [table for table in self.tables if table.database not in absent]

    @property
    def draw_number(self) -> int:
        """The number of the next draw of the store, as of the last commit that was loaded."""
        return self._stored_draws

    @property
    def cuts(self) -> int:
        """The number of episodes that were cut, over all runs."""
        return self._stored_cuts

    def run_ranges(self, snapshot: Snapshot) -> RunRanges:
        """Return who wrote which transition, as far as it is known. Cost: O(runs)."""
        return RunRanges([*map(complete, snapshot.runs())], self._own_run())

    def _own_run(self) -> tuple[int, int] | None:
        """Return the number of the run of a lone writer, and its first uncommitted write id."""
        return None

    def _check_blocks(self, table: SlotTable[Any], numbers: Iterable[int], live: LiveRange) -> None:
        """Raise DamageError if a block of a live range is not among those of the store."""
        if missing := set(live.blocks()) - set(numbers):
            raise DamageError(
                f"{table.item} {min(missing)} of {self.store.path} is missing: "
                "diskreplay.repair() copies the transitions"
            )

    def _read_blocks(self, table: SlotTable[Any], snapshot: Snapshot, live: LiveRange) -> None:
        """Read the blocks of a live range; raise DamageError for a damaged one."""
        with table.read_from(self.store.path):
            dict(snapshot.blocks(live.blocks(), table.database))

    # Drawing

    @property
    def stream(self) -> RandomStream:
        """The random stream of the draws."""
        if self._stream is None:
            raise TypeError("the store, which has the seed of the stream, was not read yet")
        return self._stream

    def draw_ids(self, n: int, number: int) -> tuple[Ints, Floats]:
        """Return the write ids of a draw and the probability of each."""
        return self.sampler.draw(n, self.live, self.stream.of_draw(number))

    def leave_out_damaged(self, write_ids: Ints, snapshot: Snapshot | None) -> bool:
        """Draw those of some live write ids whose record is damaged never again.

        Returns whether there are any that were not left out before.
        """
        damaged, known = self.rows.damaged(write_ids, snapshot), len(self.damaged)
        self.sampler.leave_out(damaged, self.live)
        self.damaged.update(damaged.tolist())
        return len(self.damaged) > known

    def fetch(
        self, write_ids: Ints, snapshot: Snapshot | None, fields: Sequence[int] | None = None
    ) -> Columns:
        """Return the rows of live write ids as columns."""
        return self.rows.fetch(write_ids, self.committed, snapshot, fields)

    def count_draw(self) -> None:
        """Count a draw that was given to the user."""
        if self.counts is not None:
            self.counts.give(self.draws, self.live)
        self.draws += 1

    def is_current(self, number: int, write_ids: Ints) -> bool:
        """Return whether a batch that was drawn ahead may be given: its draws are still taken."""
        return self.counts is None or self.counts.is_current(number, write_ids)

    def frame_of(self, number: int) -> int:
        """Return the number of batches given before a draw, over all runs."""
        return self._frame_at_start

    @property
    def frame(self) -> int:
        """The number of batches given so far, over all runs."""
        return self.frame_of(self.draws)

    # The whole

    def notes(self, snapshot: Snapshot) -> dict[str, Any]:
        """Return the notes by name, as of the last commit."""
        return notes_of(snapshot)

    def faults(self, snapshot: Snapshot) -> list[str]:
        """Return one sentence for each fault in memory and in the store. Cost: reads the store."""
        live = self.live
        # Not the rows that uncommitted ones evict: an interrupted commit may have replaced them.
        first = min(live.first, self.committed)
        committed = replace(live, start=first, count=self.committed)
        found = self.rows.faults(committed, snapshot) if committed.size else []
        checks: list[Callable[[], object]] = [
            snapshot.runs,
            partial(check_marks, snapshot, self.identity),
            partial(notes_of, snapshot),
        ]
        for table in self._stored_tables(snapshot):
            checks.append(partial(self._read_blocks, table, snapshot, committed))
        if self.priorities is not None:
            checks.append(partial(self.priorities.check, live))
        if self.counts is not None:
            checks.append(partial(self.counts.check, live))
        for check in checks:
            try:
                check()
            except DamageError as error:
                found.append(str(error))
        return found
