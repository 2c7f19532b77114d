"""Runs: which transitions the openings of a store for writing (runs) wrote, and how many are live.

The description of a run says that it wrote `rows` transitions, with write ids in [first, end).
Where several processes wrote together, those of others lie between them, and nothing says whose is
which. So what is known is often a range. A run of a merged store has `rows_least`, too: how many of
its transitions came along may have been a range already.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from diskreplay.aliases import Ints

_MOST = 2**62


class Span(NamedTuple):
    """What a run wrote: at least `least` and at most `most` transitions, in [first, end)."""

    number: int
    first: int
    end: int
    least: int
    most: int


def complete(run: Any) -> Any:
    """Return the description of a run with what those of the first version did not say.

    Nobody else could write then, so all between the first and the last were its rows.
    """
    if isinstance(run, dict) and type(run.get("first")) is type(run.get("end")) is int:
        missing = {"rows": run["end"] - run["first"], "run": ""}
        return run | {name: fact for name, fact in missing.items() if name not in run}
    return run


def spans_of(runs: Sequence[Any]) -> list[Span]:
    """Return the span of each run that wrote anything, but for descriptions that make no sense."""
    spans = (_span(number, run) for number, run in enumerate(runs))
    return [span for span in spans if span is not None and span.most]


def writer_of(runs: Sequence[Any], write_id: int) -> int | None:
    """Return the number of the run that wrote a live transition; None where several can have."""
    if any(_span(number, run) is None for number, run in enumerate(runs)):
        return None
    found = [span for span in spans_of(runs) if span.first <= write_id < span.end]
    found = [span for span in found if span.least == span.end - span.first] or found
    return found[0].number if len(found) == 1 else None


class RunRanges:
    """The ranges of write ids of each run, as far as the descriptions of the runs tell.

    Where several runs wrote in turns, nothing tells who wrote which. Cost: O(n log n) for n runs.

    >>> ranges = RunRanges([{"first": 0, "end": 9, "rows": 9}, {"first": 9, "end": 12, "rows": 3}])
    >>> ranges.of([1]), ranges.numbers(np.array([8, 9, 12])).tolist()
    ([(9, 12)], [0, 1, -1])

    own:  number and first write id of a run that alone writes what no description tells yet
    """

    def __init__(self, runs: Sequence[Any], own: tuple[int, int] | None = None) -> None:
        # A run whose description makes no sense may have written anything.
        is_known = all(_span(number, run) is not None for number, run in enumerate(runs))
        spans = spans_of(runs) if is_known else []
        if own is not None:
            spans.append(Span(*own, _MOST, _MOST - own[1], _MOST - own[1]))
        whole = [span for span in spans if span.least == span.end - span.first]
        self._borders = np.unique([(span.first, span.end) for span in spans]).astype(np.int64)
        n_of_all, of_all = self._overlaps(spans)
        n_of_whole, of_whole = self._overlaps(whole)
        others = np.where((n_of_whole == 0) & (n_of_all == 1), of_all, -1)
        self._numbers: Ints = np.where(n_of_whole == 1, of_whole, others)

    def _overlaps(self, spans: Sequence[Span]) -> tuple[Ints, Ints]:
        """Return how many spans are over each place between two borders, and the sum of their
        numbers: for one, that is its number."""
        counts, sums = np.zeros((2, self._borders.size), np.int64)
        for span in spans:
            at, end = np.searchsorted(self._borders, (span.first, span.end))
            counts[at] += 1
            counts[end] -= 1
            sums[at] += span.number
            sums[end] -= span.number
        return counts.cumsum(), sums.cumsum()

    def numbers(self, write_ids: Ints) -> Ints:
        """Return the number of the run of each write id, -1 where it is not known."""
        at = self._borders.searchsorted(write_ids, side="right") - 1
        return np.append(self._numbers, -1)[at]  # the one appended for those before all runs

    def of(self, numbers: Iterable[int]) -> list[tuple[int, int]]:
        """Return the ranges [first, end) that are known to be of some runs, ascending."""
        places = np.flatnonzero(np.isin(self._numbers, [*numbers]) & (self._numbers >= 0))
        return [(int(self._borders[at]), int(self._borders[at + 1])) for at in places]


def with_live(runs: Sequence[Any], first: int, count: int) -> list[Any]:
    """Return descriptions of runs with `live`: at least and at most so many rows of it are live.

    The two are equal where nobody else wrote among the rows, and in some cases more. `live` is None
    where a description makes no sense. Cost: O(n log n) for n runs, and O(k) for each of k that
    wrote together.

    first, count:  the live write ids are [first, count)
    """
    is_known = all(_span(number, run) is not None for number, run in enumerate(runs))
    spans = [span for span in spans_of(runs) if span.first < count and first < span.end]
    spans.sort(key=lambda span: span.first)
    columns = np.array(spans, np.int64).reshape(-1, len(Span._fields)).T
    _, firsts, ends, least, most = columns
    # The live part of each, and the slice of those that overlap it.
    begins, stops = np.maximum(firsts, first), np.minimum(ends, count)
    lows = np.searchsorted(np.maximum.accumulate(ends), begins, "right")
    highs = np.searchsorted(firsts, stops)
    parts = np.array([begins, stops, lows, highs]).T.tolist()
    live: dict[int, tuple[int, int]] = {}
    for at, (span, (begin, end, near, beyond)) in enumerate(zip(spans, parts, strict=True)):
        there = end - begin
        of_others_least = of_others_most = 0
        if beyond - near > 1:
            others = np.delete(np.arange(near, beyond), at - near)
            overlap = np.minimum(ends[others], end) - np.maximum(firsts[others], begin)
            overlap = np.maximum(overlap, 0)
            elsewhere = ends[others] - firsts[others] - overlap
            of_others_least = int(np.maximum(least[others] - elsewhere, 0).sum())
            of_others_most = int(np.minimum(most[others], overlap).sum())
        high = max(0, min(span.most, there - of_others_least))
        low = span.least - (span.end - span.first - there)
        if is_known:  # else somebody unknown may have written the others
            low = max(low, there - of_others_most)
        live[span.number] = (min(max(low, 0), high), high)
    return [
        {**run, "live": live.get(number, (0, 0)) if _span(number, run) is not None else None}
        if isinstance(run, dict)
        else run
        for number, run in enumerate(runs)
    ]


def _span(number: int, run: Any) -> Span | None:
    if not isinstance(run, dict):
        return None
    first, end, most = (run.get(name) for name in ("first", "end", "rows"))
    least = run.get("rows_least", most)
    if not (type(first) is type(end) is type(least) is type(most) is int):
        return None
    if not (0 <= first <= end <= _MOST and 0 <= least <= most <= end - first):
        return None
    return Span(number, first, end, least, most)
