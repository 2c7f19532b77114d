"""What a report reads of a store: a bounded number of transitions, also beside a live writer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

import diskreplay
from diskreplay.aliases import Array, Floats, Ints
from diskreplay.buffer import Scan
from diskreplay.schema import root_of
from diskreplay_tools.episodes import read_linked_episodes
from diskreplay_tools.report.episodes import Episodes, episodes_of
from diskreplay_tools.report.values import digests, thinned
from diskreplay_tools.stores import Buffer, rows_within, spread_ids

SPREAD_ROWS = 10_000
RECENT_ROWS = 100_000
SHEET_FRAMES = 12  # at either end of the priorities
READ_BYTES = 128 << 20  # of payload, at most, for the spread and for the recent transitions each
PRIORITIES = 1_000_000


@dataclass
class Priorities:
    """Priorities with their write ids, ascending, and the write ids of the extreme ones."""

    write_ids: Ints
    values: Floats
    highest: Ints
    lowest: Ints
    count: int  # of the transitions ever written, when they were read


class Reader:
    """Reads some transitions of a buffer. What is evicted meanwhile, or damaged, is left out."""

    def __init__(self, buffer: Buffer, show: Callable[[int, int], None]) -> None:
        self.buffer = buffer
        self.damaged: set[int] = set()
        self._show, self._done = show, 0
        self._total = sum(map(self._most, (SPREAD_ROWS, RECENT_ROWS, 2 * SHEET_FRAMES)))

    def parts(self, root: str) -> list[str]:
        """Return the names of the fields of a value: its own, or those of its parts."""
        names = () if self.buffer.schema is None else self.buffer.schema.names
        return [name for name in names if root_of(name) == root]

    def spread(self, names: Sequence[str]) -> dict[str, Array]:
        """Read fields of transitions that are spread evenly over all that are live, by name.

        Vectors are cut to MAX_COMPONENTS.
        """
        ids = spread_ids(self.buffer.first, self.buffer.count, self._most(SPREAD_ROWS))
        parts = [[thinned(columns[name]) for name in names] for _, columns in self.scan(ids, names)]
        if not parts:
            return {name: np.zeros(0) for name in names}
        found = map(np.concatenate, zip(*parts, strict=True))
        return dict(zip(names, found, strict=True))

    def linked_episodes(self) -> Episodes | None:
        """Return the whole episodes among the newest transitions, as their links tell.

        None where there are none, or no links, and where an episode ended with neither `done` nor
        `truncated`: then transitions of several environments may have been taken for one stream.
        """
        found = read_linked_episodes(
            self.buffer,
            self._most(RECENT_ROWS),
            lambda ids, names: self.scan(ids, names, links=True),
        )
        if found is None or found.undeclared or not found.ends.size:
            return None
        return Episodes(
            found.rows, found.ends, found.lengths, found.returns, found.cut_off, are_linked=True
        )

    def episodes(self, starts: Sequence[int]) -> Episodes:
        """Read the newest transitions, and cut them into episodes by their states.

        starts:  the first write id of each run
        """
        states = self.parts("state")
        next_states = [f"next_{name}" for name in states]
        first, count = self.buffer.first, self.buffer.count
        newest = np.arange(max(first, count - self._most(RECENT_ROWS)), count)
        parts: list[tuple[Ints, Floats, Array, Ints, Ints]] = []
        for ids, columns in self.scan(newest, ("reward", "done", *states, *next_states)):
            rewards = columns["reward"].reshape(ids.size).astype(np.float64)
            ended = columns["done"].reshape(ids.size) != 0
            firsts, lasts = (
                digests([columns[name] for name in names]) for names in (states, next_states)
            )
            parts.append((ids, rewards, ended, firsts, lasts))
        if not parts:
            return Episodes()
        write_ids, rewards, dones, firsts, lasts = (
            np.concatenate(column) for column in zip(*parts, strict=True)
        )
        # Of later ones nobody can say whether the oldest begins an episode.
        begun = np.array([*starts, 0], np.int64)
        return episodes_of(write_ids, rewards, dones, firsts, lasts, begun)

    def priorities(self) -> Priorities | None:
        """Read the priorities of all live transitions, and keep up to PRIORITIES of them."""
        if not isinstance(self.buffer, diskreplay.PrioritizedReplayBuffer):
            return None
        first, count = self.buffer.first, self.buffer.count
        step = max(1, -(-(count - first) // PRIORITIES))
        kept: list[tuple[Ints, Array]] = [(np.zeros(0, np.int64), np.zeros(0, np.float32))]
        high = low = kept[0]
        for ids, columns in Scan(self.buffer, range(first, count), (), priorities=True):
            values = columns["priority"]
            chosen = (ids - first) % step == 0
            kept.append((ids[chosen], values[chosen]))
            high = _lowest(high, ids, values, sign=-1)
            low = _lowest(low, ids, values, sign=1)
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

    def frames(self, write_ids: Ints, name: str) -> dict[int, Array]:
        """Return a field of up to SHEET_FRAMES transitions, by write id, in the order given."""
        return {
            int(write_id): frame
            for ids, columns in self.scan(write_ids[: self._most(SHEET_FRAMES)], (name,))
            for write_id, frame in zip(ids, columns[name], strict=True)
        }

    def finish(self) -> None:
        """Show that all is read: not every report needs all that may be read."""
        self._show(self._total, self._total)

    def scan(
        self, write_ids: Ints, names: Sequence[str], *, links: bool = False
    ) -> Iterator[tuple[Ints, dict[str, Array]]]:
        """Yield some fields of transitions with their write ids, in the order given."""
        rows = Scan(self.buffer, write_ids, names, links=links, skip_damaged=True)
        before = self._done
        for found in rows:
            yield found
            self._done = before + rows.done
            self._show(min(self._done, self._total), self._total)
        self.damaged.update(rows.damaged)

    def _most(self, rows: int) -> int:
        """Return how many rows are read where there are enough, within READ_BYTES."""
        return rows_within(self.buffer, rows, READ_BYTES)


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
