"""What the page shows of the whole replay over time: rates, priorities, rewards, episodes.

The reads are few: each round waits twenty times as long as the one before took, at least.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np

from diskreplay.aliases import Array, Floats, Ints
from diskreplay.buffer import Scan
from diskreplay.protocols import Replay
from diskreplay_tools.episodes import have_returns, read_linked_episodes
from diskreplay_tools.rates import NewestRow, Rates, counters_of
from diskreplay_tools.stores import gather, is_local, rows_within, spread_ids
from diskreplay_tools.terminal import Bins, bins_of
from diskreplay_tools.ui.source import FAILURES, Source
from diskreplay_tools.ui.transitions import MOST_EPISODES, has_priorities

ROUND_SECONDS = 2.0
SAMPLE_SECONDS = 10.0
PATIENCE = 20  # times as long as a read took until the next one
_KEPT = 1_800  # moments
_PRIORITIES = 10_000
_REWARDS = 2_000
_EPISODE_ROWS = 20_000
_BYTES = 16 << 20  # of payload, for rewards and for episodes each
_PARTS = 50  # of the live write ids, each with its mean reward


@dataclass(frozen=True)
class Moment:
    """The figures of a moment. quantiles: 10 %, 50 % and 90 % of the priorities, and the largest"""

    time: float
    stats: dict[str, Any]
    counters: dict[str, int | None]
    rates: dict[str, float | None]
    quantiles: list[float] | None


@dataclass(frozen=True)
class Sample:
    """What some transitions of all ages tell.

    size:      how many transitions were live
    rewards:   the mean in each part of the live write ids, as (write id, mean)
    episodes:  of whole ones, the write id of the last transition, return and length; None where
               they are not known
    """

    size: int
    priorities: Bins | None
    priorities_of: int
    rewards: list[tuple[int, float]]
    reward_bins: Bins | None
    rewards_of: int
    episodes: tuple[Ints, Floats, Ints] | None
    episodes_of: int


class Monitor:
    """Looks at a replay again and again, and keeps the last hour in memory.

    problem:         why the last look failed, or ""
    sample_problem:  why the last sample failed, or ""
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self.moments: deque[Moment] = deque(maxlen=_KEPT)
        self.sample: Sample | None = None
        self.problem = self.sample_problem = ""
        self._rates = Rates()
        self._newest = NewestRow(is_here=not source.target.is_url)
        self._opened = source.times_opened
        self._lock = threading.Lock()
        self._next_look = self._next_sample = 0.0

    @property
    def last(self) -> Moment | None:
        """The figures of the last look."""
        return self.moments[-1] if self.moments else None

    def look(self, *, with_sample: bool) -> None:
        """Look at the replay, unless it was looked at just now; a failure is kept in `problem`."""
        with self._lock:
            began = time.monotonic()
            if began < self._next_look:
                return
            try:
                self.moments.append(self.source.read(self._moment))
                self.problem = ""
            except FAILURES as error:
                self.problem = str(error)
                self.source.drop()
            if with_sample and not self.problem and began >= self._next_sample:
                self._take_sample()
            now = time.monotonic()
            self._next_look = began + max(ROUND_SECONDS, PATIENCE * (now - began)) * 0.9

    def _take_sample(self) -> None:
        began = time.monotonic()
        try:
            self.sample, self.sample_problem = self.source.read(_sample), ""
        except FAILURES as error:  # what is wrong with some rows is nothing that opening again ends
            self.sample_problem = str(error)
        now = time.monotonic()
        self._next_sample = began + max(SAMPLE_SECONDS, PATIENCE * (now - began))

    def _moment(self, replay: Replay[Any]) -> Moment:
        if self.source.times_opened != self._opened:  # it may be another store
            self._opened = self.source.times_opened
            self.moments.clear()
            self._rates, self.sample = Rates(), None
            self._newest = NewestRow(is_here=is_local(replay))
        stats = replay.stats()
        stats |= self._newest.look(stats)
        counters = counters_of(stats)
        return Moment(
            time.time(),
            stats,
            counters,
            self._rates.add(time.monotonic(), counters),
            _quantiles(replay, stats),
        )


def _quantiles(replay: Replay[Any], stats: dict[str, Any]) -> list[float] | None:
    values = _priorities(replay)
    if not values.size:
        return None
    largest = max(float(values.max()), stats.get("priority_max") or 0.0)
    return [*np.quantile(values, (0.1, 0.5, 0.9)).tolist(), largest]


def _priorities(replay: Replay[Any]) -> Array:
    if not has_priorities(replay):
        return np.zeros(0)
    ids = spread_ids(replay.first, replay.count, _PRIORITIES)
    _, columns = gather(Scan(replay, ids, (), priorities=True))
    return columns.get("priority", np.zeros(0))


def _sample(replay: Replay[Any]) -> Sample:
    size, priorities = len(replay), _priorities(replay)
    ids, rewards = _rewards(replay)
    rows, episodes = _episodes(replay)
    return Sample(
        size=size,
        priorities=bins_of(priorities, may_grow=True) if priorities.size else None,
        priorities_of=priorities.size,
        rewards=_means(ids, rewards),
        reward_bins=bins_of(rewards) if rewards.size else None,
        rewards_of=rewards.size,
        episodes=episodes,
        episodes_of=rows,
    )


def _rewards(replay: Replay[Any]) -> tuple[Ints, Floats]:
    """Return the finite rewards of some transitions of all ages, where a reward is one number."""
    if replay.schema is None or not have_returns(replay.schema):
        return np.zeros(0, np.int64), np.zeros(0)
    ids = spread_ids(replay.first, replay.count, rows_within(replay, _REWARDS, _BYTES))
    found, columns = gather(Scan(replay, ids, ["reward"], skip_damaged=True))
    if not found.size:
        return found, np.zeros(0)
    rewards = columns["reward"].reshape(found.size).astype(np.float64)
    finite = np.isfinite(rewards)
    return found[finite], rewards[finite]


def _means(ids: Ints, rewards: Floats) -> list[tuple[int, float]]:
    parts = np.array_split(np.arange(ids.size), min(_PARTS, ids.size)) if ids.size else []
    with np.errstate(over="ignore"):
        means = [(int(ids[part[-1]]), float(rewards[part].mean())) for part in parts]
    return [(write_id, mean) for write_id, mean in means if np.isfinite(mean)]


def _episodes(replay: Replay[Any]) -> tuple[int, tuple[Ints, Floats, Ints] | None]:
    """Return whole episodes among the newest transitions, and how many these are."""
    rows = rows_within(replay, _EPISODE_ROWS, _BYTES)
    if is_local(replay):
        linked = read_linked_episodes(replay, rows)
        return rows, None if linked is None else (linked.ends, linked.returns, linked.lengths)
    if replay.schema is None or not have_returns(replay.schema):
        return rows, None
    ends, returns, lengths = [], [], []
    for episode in itertools.islice(replay.episodes(newest_first=True), MOST_EPISODES):
        ends.append(int(episode.indices[-1]))
        returns.append(float(np.sum(episode.rewards, dtype=np.float64)))
        lengths.append(len(episode.indices))
        if sum(lengths) >= rows:
            break
    order = np.argsort(ends)
    found = np.array(ends, np.int64), np.array(returns), np.array(lengths, np.int64)
    return sum(lengths), (found[0][order], found[1][order], found[2][order])
