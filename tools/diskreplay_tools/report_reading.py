"""What a report reads of a store: a bounded number of transitions, also beside a live writer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

import diskreplay
from diskreplay_tools.common import spread_ids

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Array = NDArray[Any]

SPREAD_ROWS = 10_000
RECENT_ROWS = 100_000
SHEET_FRAMES = 12  # at either end of the priorities
READ_BYTES = 128 << 20  # of payload, at most, for the spread and for the recent transitions each
PRIORITIES = 1_000_000
MAX_COMPONENTS = 64  # of a vector; of a longer one as many are taken, evenly spaced
_BATCH_BYTES = 8 << 20
_BATCH_ROWS = 1024
_PRIORITIES_AT_ONCE = 1 << 18
_MOST = 1e100  # what is beyond is drawn there: the span of an axis has to be a number


@dataclass
class Spread:
    """Transitions spread evenly over the live ones; vectors are cut to MAX_COMPONENTS."""

    rewards: Array
    actions: Array
    states: Array
    rows: int


@dataclass
class Episodes:
    """Whole episodes among the newest transitions, oldest first."""

    rows: int = 0
    ends: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    lengths: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    returns: Floats = field(default_factory=lambda: np.zeros(0))
    cut_off: int = 0  # of them, ended by a state that does not follow the one before
    follow: bool = False  # a transition begins, as a rule, where the one before it ended


@dataclass
class Priorities:
    """Priorities with their write ids, ascending, and the write ids of the extreme ones."""

    write_ids: Ints
    values: Floats
    highest: Ints
    lowest: Ints
    count: int  # of the transitions ever written, when they were read


class Reader:
    """Reads a buffer a batch at a time. What is overwritten meanwhile or damaged is left out."""

    def __init__(
        self,
        buffer: diskreplay.ReplayBuffer | diskreplay.PrioritizedReplayBuffer,
        show: Callable[[int, int], None],
    ) -> None:
        self.buffer = buffer
        self.damaged: set[int] = set()
        self._show = show
        schema = buffer.schema
        self._row_bytes = max(1, schema.payload_bytes) if schema else 1
        self._done = 0
        rows = self._most(SPREAD_ROWS), self._most(RECENT_ROWS), self._most(2 * SHEET_FRAMES)
        self._total = sum(rows)

    def live(self) -> tuple[int, int]:
        """Return the range of live write ids; a writer may have moved it on by the next call."""
        count = self.buffer.count
        return max(0, count - len(self.buffer)), count

    def spread(self) -> Spread:
        """Read transitions that are spread evenly over all that are live."""
        first, count = self.live()
        n = self._most(SPREAD_ROWS)
        columns: list[list[Array]] = [[], [], []]
        for _, batch in self.batches(spread_ids(first, count, n)):
            for column, values in zip(
                columns, (batch.rewards, batch.actions, batch.states), strict=True
            ):
                column.append(thinned(values))
        rewards, actions, states = (
            np.concatenate(column) if column else np.zeros(0) for column in columns
        )
        return Spread(rewards, actions, states, len(rewards))

    def episodes(self, runs: list[tuple[int, int]]) -> Episodes:
        """Read the newest transitions, and cut them into episodes.

        runs:  the first write id of each run, and the one after its last
        """
        first, count = self.live()
        begin = max(first, count - self._most(RECENT_ROWS))
        fresh = begin == 0  # else nobody can say whether the oldest begins an episode
        parts: list[tuple[Ints, Floats, Array, Array]] = []
        last: Array | None = None
        for write_ids, batch in self.batches(np.arange(begin, count)):
            states, next_states = as_bytes(batch.states), as_bytes(batch.next_states)
            before = next_states[:1] if last is None else last
            follows = (states == np.concatenate([before, next_states[:-1]])).all(axis=1)
            last = next_states[-1:].copy()
            n = len(write_ids)
            rewards = batch.rewards.reshape(n).astype(np.float64)
            parts.append((write_ids, rewards, batch.dones.reshape(n) != 0, follows))
        if not parts:
            return Episodes()
        write_ids, rewards, dones, follows = (
            np.concatenate(column) for column in zip(*parts, strict=True)
        )
        starts = [start for start, _ in runs] + [begin] * fresh
        return episodes_of(write_ids, rewards, dones, follows, np.array(starts, np.int64))

    def priorities(self) -> Priorities | None:
        """Look at the priorities of all live transitions, and keep up to PRIORITIES of them."""
        if not isinstance(self.buffer, diskreplay.PrioritizedReplayBuffer):
            return None
        first, count = self.live()
        step = max(1, -(-(count - first) // PRIORITIES))
        kept: list[tuple[Ints, Array]] = [(np.zeros(0, np.int64), np.zeros(0, np.float32))]
        high = low = kept[0]
        for at in range(first, count, _PRIORITIES_AT_ONCE):
            write_ids = np.arange(at, min(at + _PRIORITIES_AT_ONCE, count))
            while write_ids.size:
                try:
                    values = self.buffer.priorities(write_ids)
                except diskreplay.NotLiveError:
                    write_ids = self._still_live(write_ids)
                    continue
                chosen = (write_ids - first) % step == 0
                kept.append((write_ids[chosen], values[chosen]))
                high = _lowest(high, write_ids, values, sign=-1)
                low = _lowest(low, write_ids, values, sign=1)
                break
        ids, values = (np.concatenate(column) for column in zip(*kept, strict=True))
        return Priorities(ids, values.astype(np.float64), high[0], low[0], count)

    def priority(self, write_id: int) -> float | None:
        """Return the priority of a transition, None where there is none any more."""
        if not isinstance(self.buffer, diskreplay.PrioritizedReplayBuffer):
            return None
        try:
            return float(self.buffer.priorities([write_id])[0])
        except diskreplay.NotLiveError:
            return None

    def frames(self, write_ids: Ints) -> dict[int, Array]:
        """Return the states of up to SHEET_FRAMES transitions, by write id, in the order given."""
        some = write_ids[: self._most(SHEET_FRAMES)]
        return {
            int(write_id): state
            for ids, batch in self.batches(some)
            for write_id, state in zip(ids, batch.states, strict=True)
        }

    def finish(self) -> None:
        """Show that all is read: not every report needs all that may be read."""
        self._show(self._total, self._total)

    def batches(self, write_ids: Ints) -> Iterator[tuple[Ints, diskreplay.Batch]]:
        """Yield transitions with their write ids, in the order given."""
        step = min(_BATCH_ROWS, max(1, _BATCH_BYTES // self._row_bytes))
        for at in range(0, len(write_ids), step):
            yield from self._got(write_ids[at : at + step])
            self._done += len(write_ids[at : at + step])
            self._show(min(self._done, self._total), self._total)

    def _got(self, write_ids: Ints) -> list[tuple[Ints, diskreplay.Batch]]:
        while write_ids.size:
            try:
                return [(write_ids, self.buffer.get(write_ids))]
            except diskreplay.NotLiveError:
                write_ids = self._still_live(write_ids)
            except diskreplay.DamageError:
                self.buffer.refresh()  # raises when it is not a record that is damaged
                half = len(write_ids) // 2
                if not half:
                    self.damaged.add(int(write_ids[0]))
                    return []
                return self._got(write_ids[:half]) + self._got(write_ids[half:])
        return []

    def _still_live(self, write_ids: Ints) -> Ints:
        first, count = self.live()
        return write_ids[(write_ids >= first) & (write_ids < count)]

    def _most(self, rows: int) -> int:
        """Return how many rows are read where there are enough, within READ_BYTES."""
        return min(rows, len(self.buffer), max(1, READ_BYTES // self._row_bytes))


def episodes_of(
    write_ids: Ints, rewards: Floats, dones: Array, follows: Array, starts: Ints
) -> Episodes:
    """Cut transitions, in the order they were written, into those episodes that are whole.

    An episode ends where `done` is true. Where states follow one another as a rule, one that does
    not begins an episode too. So does a run, but what the run before it left unfinished is no whole
    episode, nor is what stands before or after transitions that are missing.

    follows:  whether the state is the next_state of the transition before it
    starts:   write ids with which a run, or the buffer, began
    """
    gap = np.diff(write_ids) != 1
    new_run = np.isin(write_ids[1:], starts)
    ended = dones[:-1]
    inner = ~(gap | new_run | ended)
    follow = bool(inner.any() and follows[1:][inner].mean() >= 0.5)
    broken = inner & ~follows[1:] & follow
    begins = np.concatenate([np.isin(write_ids[:1], starts), ~gap & (ended | new_run | broken)])
    bounds = np.flatnonzero(np.concatenate([[True], gap | ended | new_run | broken]))
    ends = np.concatenate([ended | broken, dones[-1:]])  # whether one ends with this row
    stops = np.append(bounds[1:], len(write_ids))
    whole = begins[bounds] & ends[stops - 1]
    with np.errstate(over="ignore"):
        returns = np.add.reduceat(rewards, bounds)
    return Episodes(
        rows=len(write_ids),
        ends=write_ids[stops - 1][whole],
        lengths=(stops - bounds)[whole],
        returns=returns[whole],
        cut_off=int((~dones[stops - 1] & whole).sum()),
        follow=follow,
    )


def thinned(values: Array) -> Array:
    """Return one transition a row, of at most MAX_COMPONENTS evenly spaced components."""
    n = math.prod(values.shape[1:])
    flat = values.reshape(len(values), n)
    return flat[:, :: max(1, -(-n // MAX_COMPONENTS))].copy()


def as_bytes(values: Array) -> Array:
    """Return one transition a row, as bytes: NaN is equal to itself."""
    if values.dtype.kind in "fc":
        values = values + 0  # negative zero is zero
    size = values.dtype.itemsize * math.prod(values.shape[1:])
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8).reshape(len(values), size)


def finite(values: Array) -> Floats:
    """Return those of numbers that are neither NaN nor infinite, in one dimension."""
    flat = values.ravel()
    return flat[np.isfinite(flat)].astype(np.float64)


def limited(values: Array) -> Floats:
    """Return what is drawn of numbers."""
    return np.clip(values.astype(np.float64), -_MOST, _MOST)


def _lowest(
    best: tuple[Ints, Array], write_ids: Ints, values: Array, *, sign: int
) -> tuple[Ints, Array]:
    """Return the write ids with the lowest values so far, or the highest, the best first."""
    if len(values) > SHEET_FRAMES:
        some = np.argpartition(sign * values, SHEET_FRAMES)[:SHEET_FRAMES]
        write_ids, values = write_ids[some], values[some]
    ids, found = np.append(best[0], write_ids), np.append(best[1], values)
    order = np.lexsort((-ids, sign * found))[:SHEET_FRAMES]
    return ids[order], found[order]
