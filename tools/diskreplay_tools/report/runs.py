"""The section of a report on its runs: which of them wrote what is live, and when."""

from __future__ import annotations

import itertools
from typing import Any

from diskreplay.store import Span, spans_of, writer_of
from diskreplay.wording import count_of
from diskreplay_tools.report import figures as draw
from diskreplay_tools.report import page
from diskreplay_tools.report.figures import Figures
from diskreplay_tools.report.page import Html, Section
from diskreplay_tools.report.sections import minute, short_text
from diskreplay_tools.stores import first_of
from diskreplay_tools.terminal import known

MOST_RUNS = 20  # in the table, the newest
MOST_SPANS = 12  # in the figure
MOST_NAMED = 6  # runs in a sentence


def runs_of(stats: dict[str, Any], figures: Figures) -> Section:
    """Show which run wrote what is live, and when."""
    runs = [(n, run) for n, run in enumerate(stats["runs"]) if isinstance(run, dict)]
    if not runs:
        return Section("Age and runs", [page.paragraph("No run has written anything so far.")])
    parts = []
    if live := live_spans(stats):
        parts.append(page.columns([live_by_run(stats, live, figures)]))
    if len(runs) > MOST_RUNS:
        parts.append(page.paragraph(f"The last {MOST_RUNS} of {len(runs):,} runs:"))
    head = ("run", "began", "write ids", "written", "live", "process", "versions")
    parts.append(page.table(head, [run_row(n, run) for n, run in runs[-MOST_RUNS:]]))
    if any(run["live"] and run["live"][0] < run["live"][1] for _, run in runs[-MOST_RUNS:]):
        words = (
            "Where several runs wrote in turn, the store says how many transitions each wrote and "
            "between which write ids, not which: so the number of live ones is a range."
        )
        parts.append(page.paragraph(words, quiet=True))
    return Section("Age and runs", parts)


def live_spans(stats: dict[str, Any]) -> list[Span]:
    """Return the live part of each run of which something may be live, in the order of the runs."""
    first, count = first_of(stats), stats["count"]
    return [
        span._replace(first=max(span.first, first), end=min(span.end, count))
        for span in spans_of(stats["runs"])
        if stats["runs"][span.number]["live"][1]
    ]


def live_by_run(stats: dict[str, Any], live: list[Span], figures: Figures) -> Html:
    """Return the figure of the write ids that each run may have written, and what is known."""
    first, count = first_of(stats), stats["count"]
    began = {span.number: minute(stats["runs"][span.number].get("started")) for span in live}
    words = f"Live are the write ids {first:,} to {count - 1:,}. "
    if len(live) == 1 and stats["runs"][live[0].number]["live"] == (stats["size"],) * 2:
        n = live[0].number
        words += f"Run {n} wrote them; it began {began[n]}."
    else:
        oldest, newest = (
            writer_in_words(stats["runs"], live, id_, began) for id_ in (first, count - 1)
        )
        words += f"The oldest was written by {oldest}, the newest by {newest}."
    gone = f" {count_of(first, 'older transition')} {'is' if first == 1 else 'are'} gone."
    words += gone * (first > 0)
    some = live[-MOST_SPANS:]
    paint, height = draw.timeline(
        [(span.first, span.end) for span in some],
        [f"run {span.number}, {began[span.number]}" for span in some],
    )
    if len(live) > len(some):
        words += f" Shown are the newest {len(some)} of {len(live):,} runs with live transitions."
    ordered = sorted(live, key=lambda span: span.first)
    if any(later.first < before.end for before, later in itertools.pairwise(ordered)):
        words += " Where runs overlap they took turns, and either may have written one."
    return page.plot(figures.draw(paint, height), "Live write ids by run", words)


def writer_in_words(runs: list[Any], live: list[Span], write_id: int, began: dict[int, str]) -> str:
    """Return which run wrote a transition, or which ones may have."""
    writer = writer_of(runs, write_id)
    if writer in began:
        return f"run {writer}, which began {began[writer]}"
    numbers = [span.number for span in live if span.first <= write_id < span.end]
    if not numbers:
        return "a run that the store does not describe"
    if not 1 < len(numbers) <= MOST_NAMED:
        return "one of several runs" if len(numbers) > 1 else "a run that is not certain"
    return f"run {', '.join(map(str, numbers[:-1]))} or {numbers[-1]}"


def run_row(n: int, run: dict[str, Any]) -> list[str]:
    """Return the row of a run in the table. What is stored of it may be anything."""
    ids = wrote = live = "unknown"
    if run["live"] is not None:
        first, end, rows = run["first"], run["end"], run["rows"]
        ids = f"{first:,} to {end - 1:,}" if rows else "none"
        wrote, live = known(run.get("rows_least", rows), rows), known(*run["live"])
    versions = run.get("versions")
    named = list(versions.items())[:8] if isinstance(versions, dict) else []
    return [
        str(n),
        minute(run.get("started")),
        ids,
        wrote,
        live,
        f"pid {short_text(run.get('pid'))} on {short_text(run.get('host'))}",
        ", ".join(f"{short_text(name)} {short_text(version)}" for name, version in named),
    ]
