"""The whole report about an open buffer: its sections, and the facts of the store."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diskreplay
from diskreplay.store import real_path
from diskreplay.wording import count_of, human
from diskreplay_tools.report import page
from diskreplay_tools.report.figures import Figures
from diskreplay_tools.report.page import Html, Section
from diskreplay_tools.report.reading import Reader
from diskreplay_tools.report.runs import runs_of
from diskreplay_tools.report.sections import (
    ReportData,
    actions_of,
    episodes_of,
    minute,
    observations_of,
    percent,
    priorities_of,
    rewards_of,
    short_text,
)
from diskreplay_tools.terminal import number

MOST_FIELDS = 100
MOST_OPENERS = 20


def page_of(
    buffer: diskreplay.ReplayBuffer | diskreplay.PrioritizedReplayBuffer,
    figures: Figures,
    show: Callable[[int, int], None],
) -> str:
    """Return the page about an open buffer."""
    made = time.time()
    stats, schema = buffer.stats(), buffer.schema
    reader = Reader(buffer, show)
    right = page.stack([fields_of(schema), settings_of(stats)])
    facts = Section("Facts", [page.columns([store_of(stats), right])])
    sections = []
    if stats["size"] and schema is not None:
        data = ReportData(stats, schema, reader, figures)
        if data.priorities is not None:
            sections.append(priorities_of(data))
        sections += [
            observations_of(data),
            episodes_of(data),
            rewards_of(data),
            actions_of(data),
        ]
    else:
        sections.append(Section("Transitions", [page.paragraph(why_empty(stats))]))
    reader.finish()
    sections += [runs_of(stats, figures), facts]
    head = [tiles_of(stats)]
    if reader.damaged:
        head.append(page.warning(about_damaged(reader.damaged)))
    place = real_path(Path(stats["path"]))
    foot = f"Made by diskreplay {diskreplay.__version__}, {minute(made)}."
    title = f"Replay buffer {short_text(place.name)}"
    return page.page(title, str(place), head, sections, foot)


def tiles_of(stats: dict[str, Any]) -> Html:
    """Return the most important figures."""
    size, capacity, count = stats["size"], stats["capacity"], stats["count"]
    runs = stats["runs"]
    last = runs[-1].get("started") if runs and isinstance(runs[-1], dict) else None
    return page.tiles(
        [
            ("Live transitions", f"{size:,}", f"of {capacity:,}, {percent(size, capacity)} full"),
            ("Ever written", f"{count:,}", f"{number(count / capacity, 3)} times the capacity"),
            ("On disk", human(stats["disk_bytes"]), f"{human(stats['payload_bytes'])} of it live"),
            ("Runs", f"{len(runs):,}", f"the last from {minute(last)}" if runs else "none so far"),
        ]
    )


def store_of(stats: dict[str, Any]) -> Html:
    """Return the facts of a store."""
    facts = [
        ("kind", str(stats["kind"])),
        ("capacity", f"{stats['capacity']:,}"),
        ("size", f"{stats['size']:,}"),
        ("count", f"{stats['count']:,}"),
        ("data file", human(stats["disk_bytes"])),
        ("records", f"{human(stats['records_bytes'])}, {human(stats['payload_bytes'])} of payload"),
    ]
    if stats["observations_bytes"]:
        facts.append(("observations", human(stats["observations_bytes"])))
    if "alpha" in stats:
        facts.append(("priorities", human(stats["priorities_bytes"])))
    facts += [("free pages", human(stats["free_bytes"])), ("commits", f"{stats['commits']:,}")]
    if "alpha" in stats:
        facts += [
            ("frame", f"{stats['frame']:,}"),
            ("largest priority", number(stats["max_priority"])),
            ("stale updates", f"{stats['stale_updates']:,}"),
        ]
    others = [opener for opener in stats["openers"] if opener["pid"] != os.getpid()]
    facts += [
        ("open now", f"pid {o['pid']} on {short_text(o['host'])}, access {short_text(o['access'])}")
        for o in others[:MOST_OPENERS]
    ]
    return page.facts_table("Store", facts)


def settings_of(stats: dict[str, Any]) -> Html:
    """Return the settings of the last run."""
    interval = stats["commit_interval"]
    facts = [
        ("durability", str(stats["durability"])),
        ("commit interval", f"{number(interval)} s" if interval else "0, in each call"),
    ]
    if "alpha" in stats:
        facts += [("alpha", number(stats["alpha"])), ("beta", number(stats["beta"]))]
    return page.facts_table("Settings", facts)


def fields_of(schema: diskreplay.Schema | None) -> Html:
    """Return the fields of a transition."""
    if schema is None:
        return page.facts_table("Fields", [("none yet", "the first push says what they are")])
    rows = [
        (
            short_text(each.name),
            f"{short_text(each.type)}, "
            f"{'of any size' if each.varies else human(each.payload_bytes)}",
        )
        for each in schema.fields[:MOST_FIELDS]
    ]
    if len(schema.fields) > MOST_FIELDS:
        rows.append(("more", count_of(len(schema.fields) - MOST_FIELDS, "field")))
    return page.facts_table(f"Fields, {human(schema.payload_bytes)} a transition", rows)


def why_empty(stats: dict[str, Any]) -> str:
    """Return why a buffer is empty."""
    if not stats["count"]:
        return "The buffer is empty: no transition was written so far."
    return (
        f"The buffer is empty: the {count_of(stats['count'], 'transition')} written were cleared."
    )


def about_damaged(damaged: set[int]) -> str:
    """Return which transitions were left out, and the way out."""
    are = "are" if len(damaged) > 1 else "is"
    return (
        f"{count_of(len(damaged), 'transition')} could not be read and {are} left out (write id "
        f"{min(damaged):,}{' the first' * (len(damaged) > 1)}): what is stored is not what was "
        "written. “diskreplay verify” finds all faults of a store, and “diskreplay repair” copies "
        "what can be read."
    )
