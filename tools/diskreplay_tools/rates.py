"""Rates: how fast the counters of a replay grow, as its statistics tell beside its writers."""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from pathlib import Path
from typing import Any

from diskreplay.store import DATA

_AVERAGED = 10.0  # seconds: writers commit once in a while, so shorter spans tell little


def counters_of(stats: dict[str, Any]) -> dict[str, int | None]:
    """Return how many pushes, batches, updates and commits there were; None where nobody counts.

    An exclusive writer stores the number of its draws, and not that of its updates. Shared writers
    store the number of their updates, and draws only where the annealing of beta follows them.
    """
    is_shared = any(opener["access"] == "shared" for opener in stats["openers"])
    updates = [run.get("updated", 0) for run in stats["runs"] if isinstance(run, dict)]
    return {
        "pushes": stats["count"],
        "batches": stats.get("frame", None if is_shared else stats["draws"]),
        "updates": sum(updates) if is_shared and "frame" in stats else None,
        "commits": stats["commits"],
    }


def why_not_counted(name: str, stats: dict[str, Any]) -> str:
    """Return why a counter of `counters_of` is None."""
    if name == "batches":
        return "not counted where processes share a uniform buffer"
    return "not counted by an exclusive writer" if "frame" in stats else "a uniform buffer has none"


class Rates:
    """How fast counters grow, over the last few seconds."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, dict[str, int | None]]] = deque()

    def add(self, at: float, counters: dict[str, int | None]) -> dict[str, float | None]:
        """Add the counters of a moment, in seconds, and return the rate of each a second.

        A rate is None where nothing is counted or known yet, or a counter was set back, as by a
        `load` or a `rewind`.
        """
        self._seen.append((at, counters))
        while len(self._seen) > 2 and self._seen[1][0] <= at - _AVERAGED:
            self._seen.popleft()
        then, before = self._seen[0]
        rates: dict[str, float | None] = {}
        for name, value in counters.items():
            old = before[name]
            known = value is not None and old is not None and value >= old and at > then
            rates[name] = (value - old) / (at - then) if known else None  # type: ignore[operator]
        return rates


class NewestRow:
    """When the newest row was committed, which the store says of no row.

    The row came with a commit between two looks, and the last commit is as old as the data file.

    is_here:  whether the store is on this machine, with its data file
    """

    def __init__(self, *, is_here: bool) -> None:
        self._is_here = is_here
        self._count: int | None = None
        self._at: float | None = None

    def look(self, stats: dict[str, Any]) -> dict[str, float | None]:
        """Return how many seconds ago the newest row, and the last commit, were committed.

        None where that is not known: of a row that was there at the first look, of an empty buffer,
        and of the last commit of a store that is elsewhere.
        """
        now = time.time()
        last: float | None = None
        if self._is_here:
            with contextlib.suppress(OSError):
                last = os.stat(Path(stats["path"]) / DATA).st_mtime
        if self._count is not None and stats["count"] != self._count:
            self._at = now if last is None else last
        self._count = stats["count"]
        return {
            "newest_seconds": max(0.0, now - self._at) if self._at and stats["size"] else None,
            "last_commit_seconds": max(0.0, now - last) if last else None,
        }
