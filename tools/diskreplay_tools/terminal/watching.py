"""`diskreplay inspect --watch`: what changes in a store, again and again."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

import diskreplay
from diskreplay.errors import printable
from diskreplay.wording import count_of, human
from diskreplay_tools.plain import dumps
from diskreplay_tools.stores import Buffer, first_of, other_openers
from diskreplay_tools.terminal.bars import gauge, sparkline
from diskreplay_tools.terminal.numbers import number, percent
from diskreplay_tools.terminal.text import Screen, heading, say, screen

WATCH_SECONDS = 2.0
_AVERAGED = 10.0  # seconds: writers commit once in a while, so shorter spans tell little
_KEPT = 200  # rates
_COUNTS = {"pushes": "count", "batches": "frame", "commits": "commits"}


class Rates:
    """How fast what is counted grows, over the last few seconds."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, dict[str, int | None]]] = deque()

    def add(self, at: float, stats: dict[str, Any]) -> dict[str, float | None]:
        """Add the figures of a moment, in seconds, and return the rate of each a second.

        A rate is None where nothing is counted or known yet, or a `load` has set the count back.
        """
        now = {name: stats.get(key) for name, key in _COUNTS.items()}
        self._seen.append((at, now))
        while len(self._seen) > 2 and self._seen[1][0] <= at - _AVERAGED:
            self._seen.popleft()
        then, before = self._seen[0]
        rates: dict[str, float | None] = {}
        for name, value in now.items():
            old = before[name]
            known = value is not None and old is not None and value >= old and at > then
            rates[name] = (value - old) / (at - then) if known else None  # type: ignore[operator]
        return rates


def watch_store(path: Path, seconds: float, *, as_json: bool) -> None:
    """Print what changes in a store every so many seconds, until Ctrl-C."""
    redraws = sys.stdout.isatty() and os.environ.get("TERM") != "dumb" and not as_json
    rates, history = Rates(), deque[float](maxlen=_KEPT)
    drawn = 0
    try:
        with diskreplay.open(path, access="read") as buffer:
            due = time.monotonic()
            while True:
                now = time.monotonic()
                stats = _stats(buffer)
                found = rates.add(now, stats)
                history.append(found["pushes"] or 0.0)
                if as_json:
                    a_second = {f"{name}_per_second": rate for name, rate in found.items()}
                    facts = {"time": time.time(), **stats, **a_second}
                    say(dumps(facts))
                elif redraws:
                    drawn = _redraw(list(_block(path, stats, found, list(history))), drawn)
                else:
                    say(_line(stats, found))
                sys.stdout.flush()
                due = max(due + seconds, now)
                time.sleep(max(0.0, due - time.monotonic()))
    except KeyboardInterrupt:
        if redraws:
            click.echo()  # below the ^C that the terminal shows


def _stats(buffer: Buffer) -> dict[str, Any]:
    stats = buffer.stats()
    runs = len(stats.pop("runs"))
    stats["marks"] = len(stats["marks"])
    return {**stats, "first": first_of(stats), "openers": other_openers(stats), "runs": runs}


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


def _block(
    path: Path, stats: dict[str, Any], rates: dict[str, float | None], history: list[float]
) -> Iterator[str]:
    """Yield the lines of the view that is drawn in place."""
    on = screen()
    size, capacity = stats["size"], stats["capacity"]
    yield f"{heading(printable(click.format_filename(path)))}  {time.strftime('%H:%M:%S')}"
    fill = percent(size, capacity)
    yield f"  {stats['kind']}: {size:,} of {count_of(capacity, 'transition')}"
    yield f"  {gauge(size / capacity, min(on.width, 80) - 6 - len(fill), on)}  {fill}"
    yield ""
    yield from _counters(stats, rates)
    if stats.get("priority_mean") is not None:
        least, mean, most = (number(stats[f"priority_{name}"]) for name in ("min", "mean", "max"))
        yield f"  priorities  {least} to {most}, mean {mean}"
    if "beta" in stats:
        yield f"  beta        {number(stats['beta'])}"
    free = human(stats["free_bytes"])
    yield f"  data file   {human(stats['disk_bytes'])}, {free} of it free"
    shown = history[-(on.width - 14) :]
    yield f"  pushes/s    {sparkline(shown, on)}"
    yield from _opener_lines(stats["openers"], on)


def _counters(stats: dict[str, Any], rates: dict[str, float | None]) -> Iterator[str]:
    rows = [("written", stats["count"], "pushes"), ("commits", stats["commits"], "commits")]
    if "frame" in stats:
        rows.insert(1, ("frame", stats["frame"], "batches"))
    counts = [f"{value:,}" for _, value, _ in rows]
    texts = [_rate(rates[name]) for _, _, name in rows]
    width, digits = max(map(len, counts)), max(map(len, texts))
    for (label, _, name), value, rate in zip(rows, counts, texts, strict=True):
        yield f"  {label:<10}  {value:>{width}}  {rate:>{digits}} {name}/s"


def _opener_lines(openers: list[dict[str, Any]], on: Screen) -> Iterator[str]:
    if not openers:
        yield "  open        by nobody else"
    label = "open"
    for who in openers:
        access = f"{who['access']}{', stopped' * who['stopped']}"
        yield f"  {label:<10}  pid {who['pid']} on {printable(who['host'])}, {access}"
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
