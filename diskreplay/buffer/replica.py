"""Replica: the live transitions of a store in memory, as of a commit; it follows later ones.

It is the whole of a buffer with access="read". The two kinds of writers are replicas that change:
`Writer` is ahead of its store, `SharedWriter` follows the store and keeps its own changes apart.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np

from diskreplay.aliases import Columns, Floats, Ints
from diskreplay.buffer.prefetch import Lanes
from diskreplay.buffer.rows import Rows
from diskreplay.errors import DamageError, StorageError
from diskreplay.live_range import LiveRange
from diskreplay.sampling import Priorities, RandomStream
from diskreplay.store import Snapshot, State, Store


class Sampler(Protocol):
    """Draws write ids of a live range. It knows no data."""

    def draw(self, n: int, live: LiveRange, generator: np.random.Generator) -> tuple[Ints, Floats]:
        """Return n write ids and the probability of each."""

    def total_mass(self, live: LiveRange) -> float:
        """Return the sum of the masses."""

    def leave_out(self, write_ids: Ints, live: LiveRange) -> None:
        """Never draw these again."""


@dataclass
class Parts:
    """The parts of which a replica is made: the one place that knows the kind of a buffer."""

    tables: tuple[Priorities, ...]
    sampler: Sampler


class Replica:
    """Rows, slot tables and a sampler, as of the newest commit that was seen."""

    draws_are_kept = False  # by the store, so that a draw is a change to commit

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
        self.tables: Sequence[Priorities] = parts.tables
        self.sampler = parts.sampler
        self.settings = settings
        self.damaged: set[int] = set()  # write ids of records that draws have left out
        self.lanes = Lanes()  # of batches that are drawn ahead
        self.count = self.start = self.committed = self.commits = self.runs = 0
        self.draws = 0  # that were given: the number of the next
        self.stale_updates = 0
        self._frame_at_start = 0  # with the draws of this replica left out
        self._seals: dict[str, dict[int, bytes]] = {}
        self._seen: bytes | None = None  # the state that was taken over, as its bytes
        self._parsed: tuple[bytes, State] | None = None  # the state of an own commit
        self._stream = stream
        self.restore()

    @property
    def live(self) -> LiveRange:
        """The live range."""
        return LiveRange(self.identity.capacity, self.start, self.count)

    @property
    def nbytes(self) -> int:
        """The memory of all parts when full, in bytes."""
        return self.rows.nbytes + sum(table.nbytes for table in self.tables)

    # Following the store

    def restore(self) -> None:
        """Take over all that the store holds, as of its last commit."""
        self._seen = None
        with self.store.snapshot() as snapshot:
            self.follow(snapshot)

    def view(self) -> contextlib.AbstractContextManager[Snapshot | None]:
        """Follow the store, and yield the snapshot that was taken over."""
        return self._view()

    @contextlib.contextmanager
    def _view(self) -> Iterator[Snapshot | None]:
        self.store.check_place()
        with self.store.snapshot() as snapshot:
            self.follow(snapshot)
            yield snapshot

    def follow(self, snapshot: Snapshot) -> None:
        """Take over what was committed since the last call."""
        raw = snapshot.raw("state")
        if raw is not None and raw == self._seen and self.rows.schema is not None:
            return
        self.rows.adopt_stored(snapshot)
        state = self.read_state(snapshot)
        is_new = self._seen is None or state.start != self.start
        self._seen = None  # an interrupt on the way has all of it taken over again
        self.count = self.committed = state.count
        self.start, self.commits, self.runs = state.start, state.commits, state.runs
        if is_new:
            self._forget()
        self._take_over(state, snapshot)
        self._seen = raw

    def read_state(self, snapshot: Snapshot) -> State:
        """Return the state of the store, which cannot be older than the one before."""
        path, raw = self.store.path, snapshot.raw("state")
        if self._parsed is not None and self._parsed[0] == raw:
            state = self._parsed[1]
        else:
            try:
                state = State.parse(snapshot.meta("state"), self.identity)
            except DamageError as error:
                raise DamageError(f"{error}, in {path}") from None
        if state.count < self.committed or state.commits < self.commits:
            raise StorageError(
                f"{path} has {state.count} transitions in {state.commits} commits (there were "
                f"{self.committed} in {self.commits}): its files are others now: open it again"
            )
        self.rows.check_count(snapshot, state.live(self.identity.capacity))
        return state

    def _forget(self) -> None:
        self._seals = {}
        for table in self.tables:
            table.clear(self.live.first)

    def _take_over(self, state: State, snapshot: Snapshot) -> None:
        self.stale_updates, self._frame_at_start = state.stale_updates, state.frame
        for table in self.tables:
            seals = snapshot.seals(table.database)
            if missing := set(self.live.blocks()) - set(seals):
                raise DamageError(f"priority block {min(missing)} of {self.store.path} is missing")
            known = self._seals.get(table.database, {})
            changed = [number for number, seal in seals.items() if known.get(number) != seal]
            table.load(snapshot.blocks(changed, table.database), self.live)
            table.largest = state.max_priority
            self._seals[table.database] = seals
        if self._stream is None:
            self._stream = RandomStream(state.seed)

    # Drawing

    @property
    def stream(self) -> RandomStream:
        """The random stream of the draws."""
        if self._stream is None:
            raise TypeError("the stream is that of the store, which was not read yet")
        return self._stream

    def draw_ids(self, n: int, number: int) -> tuple[Ints, Floats]:
        """Return the write ids of a draw, by its number, and the probability of each."""
        return self.sampler.draw(n, self.live, self.stream.of_draw(number))

    def draw(
        self, n: int, number: int, snapshot: Snapshot | None, *, skip_damaged: bool
    ) -> tuple[Ints, Floats, Columns]:
        """Return the write ids of a draw, the probability of each, and their rows.

        skip_damaged:  draw again, on the same stream, without those whose record is damaged
        """
        live, generator = self.live, self.stream.of_draw(number)
        while True:
            write_ids, probabilities = self.sampler.draw(n, live, generator)
            try:
                return write_ids, probabilities, self.fetch(write_ids, snapshot)
            except DamageError:
                damaged = self.rows.damaged(write_ids, snapshot)
                if not (skip_damaged and damaged.size):
                    raise
                self.sampler.leave_out(damaged, live)
                self.damaged.update(damaged.tolist())

    def fetch(
        self, write_ids: Ints, snapshot: Snapshot | None, fields: Sequence[int] | None = None
    ) -> Columns:
        """Return the rows of live write ids as columns."""
        return self.rows.fetch(write_ids, self.committed, snapshot, fields)

    def count_draw(self) -> None:
        """Count a draw as given."""
        self.draws += 1

    def frame_of(self, number: int) -> int:
        """Return how many batches were given before a draw, over all runs."""
        return self._frame_at_start

    @property
    def frame(self) -> int:
        """How many batches were given, over all runs."""
        return self.frame_of(self.draws)

    # The whole

    def faults(self, snapshot: Snapshot) -> list[str]:
        """Return one sentence for each fault in memory and in the store. Cost: reads it all."""
        live = self.live
        # Not the rows that uncommitted ones evict: their commit may be done, and not known here.
        first = min(live.first, self.committed)
        committed = LiveRange(live.capacity, first, self.committed)
        found = self.rows.faults(committed, snapshot) if committed.size else []
        checks: list[Callable[[], object]] = [snapshot.runs]
        for table in self.tables:
            checks += [
                partial(table.check, live),
                partial(dict, snapshot.blocks(committed.blocks(), table.database)),
            ]
        for check in checks:
            try:
                check()
            except DamageError as error:
                found.append(str(error))
        return found
