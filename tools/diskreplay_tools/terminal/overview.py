"""What `diskreplay inspect` shows of a whole store: its figures and their distributions."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

import diskreplay
from diskreplay.aliases import Array
from diskreplay.buffer import Scan
from diskreplay.errors import printable
from diskreplay.wording import count_of, cut, human
from diskreplay_tools.plain import dumps, json_lines
from diskreplay_tools.stores import (
    ATTEMPTS,
    Buffer,
    Summary,
    gather,
    rows_within,
    spread_ids,
    summarise,
)
from diskreplay_tools.terminal.bars import gauge, histogram, table
from diskreplay_tools.terminal.episodes import EpisodeFigures
from diskreplay_tools.terminal.histograms import Bins, bins_of
from diskreplay_tools.terminal.numbers import known, moment, number, percent
from diskreplay_tools.terminal.text import Screen, entry, heading, item, say, screen

_ROWS = 10_000  # of which rewards and dones are read, at most
_BYTES = 64 << 20  # of their transitions, at most
_AGES = 8  # parts of the live write ids
_RUNS_SHOWN = 3
_MARKS_SHOWN = _NOTES_SHOWN = 8
_DATA = 200  # characters of the data of a mark or note


@dataclass
class _Sampled:
    """The values of a field in some of the live transitions."""

    rows: int
    bins: Bins | None = None
    least: float = 0.0
    mean: float = 0.0
    most: float = 0.0
    not_finite: int = 0

    @classmethod
    def of(cls, column: Array, *, may_grow: bool = False) -> _Sampled:
        """Return the figures of a column."""
        values = column.reshape(-1)
        if values.dtype.kind == "c" or not values.size:
            return cls(len(column))
        finite = values[np.isfinite(values)]
        not_finite = values.size - finite.size
        if not finite.size:
            return cls(len(column), not_finite=not_finite)
        mean = float((finite.astype(np.float64) / finite.size).sum())
        bins = bins_of(finite, may_grow=may_grow)
        least, most = float(finite.min()), float(finite.max())
        return cls(len(column), bins, least, mean, most, not_finite)

    def to_plain(self) -> dict[str, Any]:
        """Return it as it is in JSON."""
        bins = self.bins.to_plain() if self.bins else {"values": [], "counts": []}
        return {**bins, "of": self.rows, "not_finite": self.not_finite}


def show_overview(buffer: Buffer, path: Path, *, as_json: bool) -> None:
    """Print all there is to know of a store, but for its transitions."""
    for _ in range(ATTEMPTS):
        found = summarise(buffer)
        wanted = spread_ids(found.first, found.count, rows_within(buffer, _ROWS, _BYTES))
        rows = Scan(buffer, wanted, ("reward", "done"), skip_damaged=True)
        _, columns = gather(rows)
        if 2 * rows.evicted <= wanted.size:
            break
    episodes = EpisodeFigures(buffer, rows_within(buffer, _ROWS, _BYTES))
    facts = found.to_plain() | {"damaged": found.stats["damaged"] + len(rows.damaged)}
    sampled = {name: _Sampled.of(column) for name, column in columns.items()}
    if found.priorities is not None and found.priorities.size:
        sampled = {"priority": _Sampled.of(found.priorities, may_grow=True), **sampled}
    ages = _ages(found)
    if as_json:
        plain: dict[str, Any] = {name: one.to_plain() for name, one in sampled.items()}
        plain["age"] = {key: [row[key] for row in ages] for key in ages[0]} if ages else {}
        say(*json_lines({**facts, "episodes": episodes.to_plain(), "histograms": plain}))
        return
    on = screen()
    say(*_overview(facts, path, on))
    for name, one in sampled.items():
        of = "" if one.rows == facts["size"] else f" of {one.rows:,} of {facts['size']:,}"
        say("", *_distribution(name, one, of, on))
    say(*episodes.lines(facts, on))
    say(*_age_lines(ages, facts, on))
    if rows.damaged:
        are = "is" if len(rows.damaged) == 1 else "are"
        told = (
            f"{len(rows.damaged):,} of {count_of(wanted.size, 'record')} read {are} damaged: "
            "diskreplay verify finds all of them"
        )
        say("", textwrap.fill(told, on.width))


def _ages(found: Summary) -> list[dict[str, Any]]:
    """Return ranges of age in write ids, newest first, with the mean priority of each."""
    size = found.count - found.first
    ends = sorted({size * i // _AGES for i in range(_AGES + 1)})
    ages = []
    for begin, end in itertools.pairwise(ends):
        row: dict[str, Any] = {"from": begin, "to": end - 1, "count": end - begin}
        if found.priorities is not None:
            newest_first = found.priorities[::-1][begin:end].astype(np.float64)
            row["mean_priority"] = float(newest_first.mean()) if newest_first.size else None
        ages.append(row)
    return ages


def _overview(facts: dict[str, Any], path: Path, on: Screen) -> Iterator[str]:
    """Yield all but the distributions, line by line."""
    size, capacity, count = facts["size"], facts["capacity"], facts["count"]
    shown = printable(click.format_filename(path))
    yield heading(shown)
    fill = percent(size, capacity)
    kept = f", and {facts['keep_rows']:,} kept" if facts["keep_rows"] else ""
    yield f"  {facts['kind']}: {size:,} of {count_of(capacity, 'transition')}{kept}"
    yield f"  {gauge(size / capacity, min(on.width, 80) - 6 - len(fill), on)}  {fill}"
    yield ""
    yield heading("Contents")
    live = f"{facts['first']:,} to {count - 1:,} are live" if size else "none is live"
    yield entry("write ids", f"{live}; {count:,} written in all", on)
    yield entry("commits", f"{facts['commits']:,}", on)
    if facts["kind"] == "prioritized":
        late = f"{facts['stale_updates']:,}, of transitions that were evicted before"
        yield entry("late updates", late, on)
    yield from _field_lines(facts["schema"], on)
    yield ""
    yield from _disk_lines(facts, on)
    yield ""
    yield heading("Settings")
    if facts["kind"] == "prioritized":
        yield entry("alpha", number(facts["alpha"]), on)
        calls = f"{count_of(facts['frame'], 'call')} of sample (frame)"
        yield entry("beta", f"{number(facts['beta'])}, after {calls}", on)
        yield entry("new priority", f"{number(facts['max_priority'])}, the largest so far", on)
    interval = facts["commit_interval"]
    commits = f"a commit after {number(interval)} s" if interval else "a commit in each call"
    if interval == float("inf"):
        commits = "no commit by time"
    yield entry("durability", f"{facts['durability']}, {commits}", on)
    yield ""
    yield from _run_lines(facts["runs"], on)
    yield ""
    yield from _mark_lines(facts["marks"], on)
    yield from _note_lines(facts["notes"], on)
    yield heading("Open now", "" if facts["openers"] else ": by nobody")
    for who in facts["openers"]:
        since = f"since {moment(who['since'])}"
        yield item(f"pid {who['pid']} on {printable(who['host'])}", f"{who['access']}, {since}", on)
        if who["stopped"]:
            yield f"    it is stopped: kill -CONT {who['pid']} lets it go on"
    oldest = facts["oldest_reader"]
    if oldest is not None and oldest["commits_behind"] > 1:
        behind = count_of(oldest["commits_behind"], "commit")
        yield f"  pid {oldest['pid']} reads what was there {behind} ago,"
        yield "    so that no page that was freed since is used again"


def _field_lines(plain: Sequence[Any] | None, on: Screen) -> Iterator[str]:
    if plain is None:
        yield entry("schema", "none yet: the first transition that is pushed fixes it", on)
        return
    fields = diskreplay.Schema.from_plain(plain).fields
    total = sum(each.payload_bytes for each in fields)
    yield entry("transition", f"{count_of(total, 'byte')} in {count_of(len(fields), 'field')}", on)
    width = max(max(len(each.name) for each in fields), 10)
    kinds = max(len(each.type) for each in fields)
    sizes = ["varies" if each.varies else count_of(each.payload_bytes, "byte") for each in fields]
    digits = max(map(len, sizes))
    for each, size in zip(fields, sizes, strict=True):
        line = f"    {each.name:<{width}} {each.type:<{kinds}}"
        fits = len(line) + 2 + digits <= on.width
        yield f"{line}  {size:>{digits}}" if fits else line.rstrip()
        if each.log:
            yield f"      {each.place}"


def _disk_lines(facts: dict[str, Any], on: Screen) -> Iterator[str]:
    payload, records = facts["payload_bytes"], facts["records_bytes"]
    yield heading("Disk and memory")
    yield entry("data file", human(facts["disk_bytes"]), on)
    inside = f", for {human(payload)} of payload" if payload else ""
    if observations := facts["observations_bytes"]:
        yield entry("  records", human(records), on)
        yield entry("  observations", f"{human(observations)}{inside}", on)
    else:
        yield entry("  records", f"{human(records)}{inside}", on)
    if facts["kind"] == "prioritized":
        yield entry("  priorities", human(facts["priorities_bytes"]), on)
    if facts["marks"]:
        yield entry("  marks", f"{human(facts['marks_bytes'])}, with what is kept for them", on)
    yield entry("  free pages", f"{human(facts['free_bytes'])}, for later commits", on)
    yield entry("memory", f"{human(facts['memory_bytes'])} in a process, when full", on)


def _run_lines(runs: list[dict[str, Any]], on: Screen) -> Iterator[str]:
    few = "" if len(runs) <= _RUNS_SHOWN else f": the last {_RUNS_SHOWN} of {len(runs):,}"
    yield heading("Runs", few if runs else ": nothing was written yet")
    for run in runs[-_RUNS_SHOWN:]:
        versions = run.get("versions")
        named = versions.items() if isinstance(versions, dict) else ()
        with_ = ", ".join(f"{printable(name)} {printable(version)}" for name, version in named)
        by = f"pid {printable(run.get('pid'))} on {printable(run.get('host'))}"
        yield item(f"{moment(run.get('started'))}  {_written_in_words(run)}", f"{by}: {with_}", on)


def _mark_lines(marks: list[dict[str, Any]], on: Screen) -> Iterator[str]:
    if not marks:
        return
    few = "" if len(marks) <= _MARKS_SHOWN else f": the last {_MARKS_SHOWN} of {len(marks):,}"
    yield heading("Marks", few)
    for mark in marks[-_MARKS_SHOWN:]:
        written = f"{moment(mark['time'])}, {mark['count']:,} written"
        data = "" if mark["data"] is None else f"; {cut(printable(dumps(mark['data'])), _DATA)}"
        yield item(printable(mark["name"]), f"{written}{data}", on)
    yield ""


def _note_lines(notes: dict[str, Any], on: Screen) -> Iterator[str]:
    if not notes:
        return
    few = "" if len(notes) <= _NOTES_SHOWN else f": the first {_NOTES_SHOWN} of {len(notes):,}"
    yield heading("Notes", few)
    for name, data in itertools.islice(notes.items(), _NOTES_SHOWN):
        yield item(printable(name), cut(printable(dumps(data)), _DATA), on)
    yield ""


def _written_in_words(run: dict[str, Any]) -> str:
    """Return how many transitions a run wrote, and how many are live, as far as is known."""
    if run["live"] is None:
        return "says nothing that makes sense of what it wrote"
    wrote = known(run.get("rows_least", run["rows"]), run["rows"])
    if not run["rows"]:
        return "wrote none"
    live, (least, most) = known(*run["live"]), run["live"]
    if run["rows"] == 1:
        return f"wrote 1, which {'is live' if least else 'may be live' if most else 'is gone'}"
    if least == most in (0, run.get("rows_least", run["rows"])):
        live = "all" if most else "none"
    return f"wrote {wrote}, {live} of them live"


_NAMES = {"priority": "Priorities", "reward": "Rewards", "done": "Done"}


def _distribution(name: str, one: _Sampled, of: str, on: Screen) -> Iterator[str]:
    if one.bins is None:
        why = "no numbers in order"
        if one.not_finite:
            why = f"{count_of(one.not_finite, 'value')}, none finite"
        yield heading(_NAMES[name], f"{of}: {why}", on)
        return
    few = one.bins.values is not None and len(one.bins.values) == 1
    span = f"{number(one.least)} to {number(one.most)}, mean {number(one.mean)}"
    said = "all the same" if few else span
    not_finite = f", and {one.not_finite:,} not finite" if one.not_finite else ""
    yield heading(_NAMES[name], f"{of}: {said}{not_finite}", on)
    yield from histogram(one.bins, on)


def _age_lines(ages: list[dict[str, Any]], facts: dict[str, Any], on: Screen) -> Iterator[str]:
    if not ages or "mean_priority" not in ages[0]:
        return  # nothing but the range of the write ids, which is told above
    yield ""
    oldest = f"0 to {ages[-1]['to']:,} write ids behind the newest"
    yield heading("Age", f": {oldest}; their mean priorities", on)
    width = max(len(f"{row['to']:,}") for row in ages)
    labels = [f"{row['from']:>{width},} to {row['to']:>{width},}" for row in ages]
    means = [row["mean_priority"] for row in ages]
    texts = ["-" if mean is None else number(mean) for mean in means]
    yield from table(labels, [texts], [mean or 0.0 for mean in means], on)
