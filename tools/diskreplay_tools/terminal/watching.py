"""What changes in a replay, again and again: `diskreplay top` and `diskreplay inspect --watch`."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import click

from diskreplay.errors import printable
from diskreplay.protocols import Replay
from diskreplay.wording import count_of, human
from diskreplay_tools.plain import dumps
from diskreplay_tools.rates import NewestRow, Rates, counters_of, why_not_counted
from diskreplay_tools.stores import first_of, is_local, other_openers
from diskreplay_tools.terminal.bars import gauge, sparkline
from diskreplay_tools.terminal.numbers import number, percent
from diskreplay_tools.terminal.text import Screen, heading, say, screen

WATCH_SECONDS = 2.0
_KEPT = 200  # rates
_ADDRESSES = 3  # of the clients with one token


@dataclass
class _Look:
    """The figures of a moment, as `stats()` names them, with the counters and their rates."""

    stats: dict[str, Any]
    counters: dict[str, int | None]
    rates: dict[str, float | None]

    def to_plain(self) -> dict[str, Any]:
        """Return it as it is in JSON."""
        a_second = {f"{name}_per_second": rate for name, rate in self.rates.items()}
        return {"time": time.time(), **self.stats, **a_second}


class _Looks:
    """Looks at a replay, again and again."""

    def __init__(self, replay: Replay[Any]) -> None:
        self._replay, self._rates = replay, Rates()
        self._newest = NewestRow(is_here=is_local(replay))

    def look(self) -> _Look:
        """Return the figures of this moment."""
        now, stats = time.monotonic(), self._replay.stats()
        counters = counters_of(stats)
        figures = {
            **stats,
            "first": first_of(stats),
            "openers": other_openers(stats),
            "runs": len(stats["runs"]),
            "marks": len(stats["marks"]),
            **self._newest.look(stats),
        }
        return _Look(figures, counters, self._rates.add(now, counters))


def watch(replay: Replay[Any], name: str, seconds: float, *, as_json: bool) -> None:
    """Print what changes in a replay every so many seconds, until Ctrl-C."""
    redraws = sys.stdout.isatty() and os.environ.get("TERM") != "dumb" and not as_json
    looks, history = _Looks(replay), deque[float](maxlen=_KEPT)
    drawn = 0
    try:
        due = time.monotonic()
        while True:
            now = time.monotonic()
            found = looks.look()
            history.append(found.rates["pushes"] or 0.0)
            if as_json:
                say(dumps(found.to_plain()))
            elif redraws:
                drawn = _redraw(list(_block(name, found, list(history))), drawn)
            else:
                say(_line(found.stats, found.rates))
            sys.stdout.flush()
            due = max(due + seconds, now)
            time.sleep(max(0.0, due - time.monotonic()))
    except KeyboardInterrupt:
        if redraws:
            click.echo()  # below the ^C that the terminal shows


def look_once(replay: Replay[Any], name: str, seconds: float, *, as_json: bool) -> None:
    """Print what changes in a replay within so many seconds: a rate needs two looks."""
    looks = _Looks(replay)
    looks.look()
    time.sleep(seconds)
    found = looks.look()
    say(*([dumps(found.to_plain())] if as_json else _block(name, found, [])))


def _line(stats: dict[str, Any], rates: dict[str, float | None]) -> str:
    """Return the figures of a moment in a line."""
    parts = [
        time.strftime("%H:%M:%S"),
        f"size {stats['size']:,}",
        f"written {stats['count']:,}",
        f"pushes/s {_rate(rates['pushes'])}",
        f"batches/s {_rate(rates['batches'])}",
        f"disk {human(stats['disk_bytes'])}",
    ]
    return "  ".join(parts)


def _rate(rate: float | None) -> str:
    return "-" if rate is None else f"{rate:,.1f}" if rate < 100 else f"{rate:,.0f}"


def _block(name: str, found: _Look, history: list[float]) -> Iterator[str]:
    """Yield the lines of the view that is drawn in place."""
    on, stats = screen(), found.stats
    size, capacity = stats["size"], stats["capacity"]
    yield f"{heading(printable(name))}  {time.strftime('%H:%M:%S')}"
    fill = percent(size, capacity)
    yield f"  {stats['kind']}: {size:,} of {count_of(capacity, 'transition')}"
    yield f"  {gauge(size / capacity, min(on.width, 80) - 6 - len(fill), on)}  {fill}"
    yield ""
    yield from _counters(stats, found.counters, found.rates)
    yield ""
    yield f"  newest row  {_newest_in_words(stats)}"
    yield f"  next draw   number {stats['draws']:,}"
    if stats.get("priority_mean") is not None:
        least, mean, most = (number(stats[f"priority_{part}"]) for part in ("min", "mean", "max"))
        yield f"  priorities  {least} to {most}, mean {mean}"
    if "beta" in stats:
        yield f"  beta        {number(stats['beta'])}, frame {stats['frame']:,}"
    free = human(stats["free_bytes"])
    yield f"  data file   {human(stats['disk_bytes'])}, {free} of it free"
    if history:
        yield f"  pushes/s    {sparkline(history[-(on.width - 14) :], on)}"
    yield from _opener_lines(stats["openers"], on)
    yield from _client_lines(stats.get("clients", []))


def _counters(
    stats: dict[str, Any], counters: dict[str, int | None], rates: dict[str, float | None]
) -> Iterator[str]:
    counts = ["" if value is None else f"{value:,}" for value in counters.values()]
    texts = ["" if value is None else _rate(rates[name]) for name, value in counters.items()]
    width, digits = max(len("in all"), *map(len, counts)), max(len("a second"), *map(len, texts))
    yield f"  {'':<10}  {'in all':>{width}}  {'a second':>{digits}}"
    for (name, known), value, rate in zip(counters.items(), counts, texts, strict=True):
        if known is None:
            yield f"  {name:<10}  {why_not_counted(name, stats)}"
        else:
            yield f"  {name:<10}  {value:>{width}}  {rate:>{digits}}"


def _newest_in_words(stats: dict[str, Any]) -> str:
    if not stats["size"]:
        return "none"
    row, newest, last = (
        f"write id {stats['count'] - 1:,}",
        stats["newest_seconds"],
        stats["last_commit_seconds"],
    )
    if newest is not None:
        return f"{row}, committed {_ago(newest)} ago"
    return f"{row}, committed {'before this look' if last is None else f'{_ago(last)} ago or more'}"


def _ago(seconds: float) -> str:
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.0f} {unit}"
    return f"{seconds:.0f} s"


def _opener_lines(openers: list[dict[str, Any]], on: Screen) -> Iterator[str]:
    if not openers:
        yield "  open        by nobody else"
    label = "open"
    for who in openers:
        access = f"{who['access']}{', stopped' * who['stopped']}"
        yield f"  {label:<10}  pid {who['pid']} on {printable(who['host'])}, {access}"
        label = ""


def _client_lines(clients: list[dict[str, Any]]) -> Iterator[str]:
    """Yield the clients of a service, those of one token in a line."""
    names = Counter(each["name"] for each in clients if not each["is_own"])
    label = "clients"
    for name, n in names.items():
        few = {each["address"] for each in clients if each["name"] == name and each["address"]}
        at = f" at {', '.join(sorted(few)[:_ADDRESSES])}{', ...' * (len(few) > _ADDRESSES)}"
        yield f"  {label:<10}  {printable(name)}: {n:,}{at * bool(few)}"
        label = ""


def _redraw(lines: list[str], drawn: int) -> int:
    """Draw lines over those that were drawn before, and return how many there are."""
    columns, rows = shutil.get_terminal_size()
    lines = [_cut(line, columns - 1) for line in lines][: max(1, rows - 1)]
    up = f"\x1b[{drawn}A" if drawn else ""
    say("\r" + up + "\x1b[0J" + "\n".join(lines))
    return len(lines)


def _cut(line: str, width: int) -> str:
    """Return a line without what would not fit; styles take no room."""
    return line if len(click.unstyle(line)) <= width else click.unstyle(line)[:width]
