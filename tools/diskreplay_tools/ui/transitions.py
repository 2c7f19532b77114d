"""Some transitions of a replay: those that a filter lets through, and those of an episode.

All reads are bounded: a search ends at its limits, and says how far it came.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from diskreplay.aliases import Array, Bools, Ints
from diskreplay.buffer import Scan
from diskreplay.protocols import Replay
from diskreplay.store import RunRanges
from diskreplay_tools.episodes import numbered
from diskreplay_tools.stores import is_local, rows_within

PAGE_ROWS = 20
PAGE_BYTES = 16 << 20  # of payload, for the rows of a page
MOST_LOOKED_AT = 500_000  # transitions of a search by run or priority, which reads no records
MOST_READ = 20_000  # records of a search by their end
MOST_READ_BYTES = 64 << 20
NEAR = 5_000  # transitions on either side, among which those of the same episode are looked for
MOST_STEPS = 200  # of an episode that are shown
MOST_EPISODES = 50  # that are asked for, of a replay elsewhere
_CHUNK = 2_000
ENDS = {"any": "any", "done": "done", "truncated": "truncated", "either": "done or truncated"}


@dataclass(frozen=True)
class Filter:
    """Which transitions to show; None and "any" let all through."""

    run: int | None = None
    least: float | None = None
    most: float | None = None
    end: str = "any"


@dataclass(frozen=True)
class Row:
    """A transition; `fields` is None where its record is damaged."""

    write_id: int
    fields: dict[str, Array] | None
    priority: float | None
    run: int | None
    episode_end: str


@dataclass(frozen=True)
class Page:
    """Transitions that a filter let through, newest first.

    looked_at:  how many transitions the search went over
    before:     the oldest of them, where the next search begins
    at_limit:   whether the search ended at a limit, and not with enough rows or the oldest one
    """

    rows: list[Row]
    looked_at: int
    before: int
    first: int
    at_limit: bool


def search(replay: Replay[Any], wanted: Filter, before: int | None) -> Page:
    """Return the newest transitions below a write id that a filter lets through."""
    stats = replay.stats()
    first, count = int(stats["count"] - stats["size"]), int(stats["count"])
    runs = RunRanges(stats["runs"])
    at = start = count if before is None else max(first, min(before, count))
    rows = rows_within(replay, PAGE_ROWS, PAGE_BYTES)
    reads_records = wanted.end != "any"
    limit = rows_within(replay, MOST_READ, MOST_READ_BYTES) if reads_records else MOST_LOOKED_AT
    chunk = min(_CHUNK, limit) if wanted != Filter() else rows
    found: list[int] = []
    while at > first and len(found) < rows and start - at < limit:
        ids = np.arange(max(first, at - chunk), at)
        some = _passing(replay, wanted, runs, ids)[::-1][: rows - len(found)].tolist()
        found += some
        at = some[-1] if len(found) == rows else int(ids[0])
    at_limit = len(found) < rows and at > first
    return Page(rows_of(replay, found, runs), start - at, at, first, at_limit)


def rows_of(
    replay: Replay[Any],
    write_ids: Sequence[int],
    runs: RunRanges,
    fields: Sequence[str] | None = None,
) -> list[Row]:
    """Return transitions in the order given, without those that were evicted meanwhile."""
    ids = np.array(write_ids, np.int64)
    scan = Scan(replay, ids, fields, priorities=has_priorities(replay), skip_damaged=True)
    found: dict[int, Row] = {}
    for some, columns in scan:
        numbers = runs.numbers(some).tolist()
        for place, write_id in enumerate(some.tolist()):
            values = {name: column[place] for name, column in columns.items()}
            priority = values.pop("priority", None)
            found[write_id] = Row(
                write_id,
                values,
                None if priority is None else float(priority),
                numbers[place] if numbers[place] >= 0 else None,
                _end_of(values),
            )
    for write_id in scan.damaged:
        found[write_id] = Row(write_id, None, None, None, "")
    return [found[write_id] for write_id in write_ids if write_id in found]


def transition(replay: Replay[Any], write_id: int) -> Row | None:
    """Return one transition; None where it is not live."""
    if not replay.first <= write_id < replay.count:
        return None
    found = rows_of(replay, [write_id], RunRanges(replay.stats()["runs"]))
    return found[0] if found else None


def episode_ids(replay: Replay[Any], write_id: int) -> list[int] | None:
    """Return the live transitions of the episode of one, oldest first; None where not known.

    At most MOST_STEPS, around the one that was asked for.
    """
    if is_local(replay):
        ids = _linked(replay, write_id)
    else:
        ids = None
        for episode in itertools.islice(replay.episodes(newest_first=True), MOST_EPISODES):
            if write_id in episode.indices:
                ids = episode.indices.tolist()
                break
    if ids is None or write_id not in ids:
        return None
    begin = max(0, min(ids.index(write_id) - MOST_STEPS // 2, len(ids) - MOST_STEPS))
    return ids[begin : begin + MOST_STEPS]


def has_priorities(replay: Replay[Any]) -> bool:
    """Return whether transitions have priorities."""
    return hasattr(replay, "priorities")


def _linked(replay: Replay[Any], write_id: int) -> list[int] | None:
    """Return the transitions near one that are of its episode, as links tell."""
    near = range(max(replay.first, write_id - NEAR), min(replay.count, write_id + NEAR + 1))
    links = np.zeros(len(near), np.int32)
    for some, columns in Scan(replay, near, (), links=True):
        links[some - near.start] = columns["link"]
    if not links.any() and links.size > 1:
        return None  # older versions stored none
    firsts, _ = numbered(links)
    at = write_id - near.start
    if not 0 <= at < links.size:
        return None
    found: list[int] = (np.flatnonzero(firsts == firsts[at]) + near.start).tolist()
    return found


def _passing(replay: Replay[Any], wanted: Filter, runs: RunRanges, ids: Ints) -> Ints:
    """Return those of some write ids that a filter lets through; damaged ones only without one."""
    if wanted.run is not None:
        ids = ids[runs.numbers(ids) == wanted.run]
    by_priority = wanted.least is not None or wanted.most is not None
    by_priority = by_priority and has_priorities(replay)
    names = _end_names(replay, wanted.end)
    if wanted.end != "any" and not names:
        return ids[:0]
    if not ids.size or not (by_priority or names):
        return ids
    passing = [ids[:0]]
    for some, columns in Scan(replay, ids, names, priorities=by_priority, skip_damaged=True):
        lets: Bools = np.ones(some.size, np.bool_)
        if by_priority:
            values = columns["priority"]
            lets &= values >= (-np.inf if wanted.least is None else wanted.least)
            lets &= values <= (np.inf if wanted.most is None else wanted.most)
        if names:
            ended = [columns[name].reshape(some.size, -1).any(axis=1) for name in names]
            lets &= np.logical_or.reduce(ended)
        passing.append(some[lets])
    return np.concatenate(passing)


def _end_names(replay: Replay[Any], end: str) -> list[str]:
    """Return the fields that say that an episode ends in a way."""
    names = {"any": (), "either": ("done", "truncated")}.get(end, (end,))
    known = () if replay.schema is None else replay.schema.names
    return [name for name in names if name in known]


def _end_of(fields: dict[str, Array]) -> str:
    ends = [name for name in ("done", "truncated") if name in fields and np.any(fields[name])]
    return " and ".join(ends)
