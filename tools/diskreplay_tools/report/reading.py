"""What a report reads of a store: a bounded number of transitions, also beside a live writer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from xxhash import xxh3_64_intdigest

import diskreplay
from diskreplay.aliases import Array, Floats, Ints
from diskreplay_tools.report.episodes import Episodes, episodes_of
from diskreplay_tools.stores import spread_ids

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

    def episodes(self, starts: Sequence[int]) -> Episodes:
        """Read the newest transitions, and cut them into episodes.

        starts:  the first write id of each run
        """
        first, count = self.live()
        begin = max(first, count - self._most(RECENT_ROWS))
        parts: list[tuple[Ints, Floats, Array, Ints, Ints]] = []
        for write_ids, batch in self.batches(np.arange(begin, count)):
            n = len(write_ids)
            rewards = batch.rewards.reshape(n).astype(np.float64)
            ended = batch.dones.reshape(n) != 0
            states, next_states = digests(batch.states), digests(batch.next_states)
            parts.append((write_ids, rewards, ended, states, next_states))
        if not parts:
            return Episodes()
        write_ids, rewards, dones, states, next_states = (
            np.concatenate(column) for column in zip(*parts, strict=True)
        )
        # Of later ones nobody can say whether the oldest begins an episode.
        begun = np.array([*starts, 0], np.int64)
        return episodes_of(write_ids, rewards, dones, states, next_states, begun)

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


def digests(values: Array) -> Ints:
    """Return a number for each transition, equal where values are, bit for bit; -0.0 is 0.0."""
    return np.array([xxh3_64_intdigest(row) for row in as_bytes(values)], np.uint64).view(np.int64)


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
