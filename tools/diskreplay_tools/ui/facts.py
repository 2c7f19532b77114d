"""The tab of facts: who has the store open, its runs, marks, fields and settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nicegui import ui

import diskreplay
from diskreplay.errors import printable
from diskreplay.wording import count_of, cut, human
from diskreplay_tools.plain import dumps
from diskreplay_tools.stores import Target, other_openers
from diskreplay_tools.terminal import known, moment, number
from diskreplay_tools.ui.monitor import Moment

_MOST = 50  # rows of a table: the last ones
_MOST_TEXT = 300  # characters of a cell


class FactsTab:
    """Tables that change when the store does."""

    def __init__(self, target: Target) -> None:
        if target.is_url:
            ui.label("These are the facts of the store on the machine of the service.").classes(
                "quiet"
            )
        names = ("Open now", "Runs", "Marks", "Fields", "Disk", "Settings")
        clients = ("Clients",) * target.is_url
        self._tables = {name: _Table(name) for name in (*clients, *names)}

    def refresh(self, last: Moment) -> None:
        """Show the facts of the last look."""
        stats = last.stats
        tables = self._tables
        if "Clients" in tables:
            tables["Clients"].show(("token", "rights", "address", "since"), _clients(stats))
        tables["Open now"].show(("process", "access", "since"), _openers(stats))
        tables["Runs"].show(("run", "started", "wrote", "live", "where"), _runs(stats))
        tables["Marks"].show(("mark", "made", "written then", "data"), _marks(stats))
        tables["Fields"].show(("field", "type", "bytes", "kept"), _fields(stats))
        tables["Disk"].show(("", "bytes"), _disk(stats))
        tables["Settings"].show(("", ""), _settings(stats))


class _Table:
    """A small table of texts, which is built again only where a text is another one."""

    def __init__(self, title: str) -> None:
        with ui.column().classes("box w-full").mark(title):
            self._title = ui.label(title).classes("title")
            self._place = ui.element().classes("facts-place")
        self._name = title
        self._shown: Any = None

    def show(self, heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Show the last rows."""
        cells = [[_text(cell) for cell in row] for row in rows[-_MOST:]]
        if (heads, cells) == self._shown:
            return
        self._shown = (heads, cells)
        more = f": the last {_MOST} of {len(rows):,}" * (len(rows) > _MOST)
        self._title.set_text(f"{self._name}{more or ': none' * (not rows)}")
        self._place.clear()
        with self._place, ui.element("table").classes("facts"):
            if any(heads) and cells:
                _line("th", heads)
            for row in cells:
                _line("td", row)


def _line(tag: str, texts: Sequence[str]) -> None:
    with ui.element("tr"):
        for text in texts:
            with ui.element(tag):
                ui.label(text)


def _text(value: Any) -> str:
    return cut(printable(str(value)), _MOST_TEXT)


def _openers(stats: dict[str, Any]) -> list[list[str]]:
    rows, others = [], other_openers(stats)
    for who in stats["openers"]:
        stopped = f", stopped: kill -CONT {who['pid']} lets it go on" * bool(who["stopped"])
        access = f"{who['access']}{stopped}{', this page' * (who not in others)}"
        rows.append([f"pid {who['pid']} on {who['host']}", access, moment(who["since"])])
    return rows


def _clients(stats: dict[str, Any]) -> list[list[str]]:
    rows = []
    for each in stats.get("clients", ()):  # not of a service of an older version
        streams = count_of(each["streams"], "stream")
        rights = "not shown" if each["rights"] is None else ", ".join(each["rights"])
        address = each["address"] or "not shown"
        own = ", this page" * each["is_own"]
        rows.append(
            [f"{each['name']}{own}", rights, f"{address}, {streams}", moment(each["since"])]
        )
    return rows


def _runs(stats: dict[str, Any]) -> list[list[str]]:
    rows = []
    for index, run in enumerate(stats["runs"]):
        if not isinstance(run, dict) or run.get("live") is None:
            rows.append([str(index), "", "not known", "", ""])
            continue
        wrote = known(run["rows_least" if "rows_least" in run else "rows"], run["rows"])
        versions = run.get("versions")
        named = versions.items() if isinstance(versions, dict) else ()
        with_ = ", ".join(f"{name} {version}" for name, version in named)
        where = f"pid {run.get('pid')} on {run.get('host')}: {with_}"
        rows.append([str(index), moment(run.get("started")), wrote, known(*run["live"]), where])
    return rows


def _marks(stats: dict[str, Any]) -> list[list[str]]:
    return [
        [
            mark["name"],
            moment(mark["time"]),
            f"{mark['count']:,}",
            "" if mark["data"] is None else dumps(mark["data"]),
        ]
        for mark in stats["marks"]
    ]


def _fields(stats: dict[str, Any]) -> list[list[str]]:
    if stats["schema"] is None:
        return [["none yet", "the first transition that is pushed fixes them", "", ""]]
    return [
        [
            each.name,
            each.type,
            "varies" if each.varies else f"{each.payload_bytes:,}",
            each.place if each.log else "in the record",
        ]
        for each in diskreplay.Schema.from_plain(stats["schema"]).fields
    ]


def _disk(stats: dict[str, Any]) -> list[list[str]]:
    names = {"disk_bytes": "data file", "payload_bytes": "payload of live transitions",
             "records_bytes": "records", "observations_bytes": "observations",
             "priorities_bytes": "priorities", "links_bytes": "links", "marks_bytes": "marks",
             "free_bytes": "free pages", "memory_bytes": "memory of a reader"}  # fmt: skip
    return [[words, human(stats[name])] for name, words in names.items() if stats.get(name)]


def _settings(stats: dict[str, Any]) -> list[list[str]]:
    shown = [["place", stats["path"]], ["kind", stats["kind"]]]
    for name in ("capacity", "keep_rows", "durability", "commit_interval", "alpha", "beta",
                 "beta_start", "beta_end", "beta_frames", "epsilon", "frame", "max_priority",
                 "stale_updates", "cuts", "damaged"):  # fmt: skip
        if name in stats:
            value = stats[name]
            shown.append([name, value if isinstance(value, str) else number(value)])
    oldest = stats.get("oldest_reader")
    if oldest is not None and oldest["commits_behind"] > 1:
        reader = f"pid {oldest['pid']}, {oldest['commits_behind']:,} commits behind"
        shown.append(["oldest reader", f"{reader}: pages freed since are not used again"])
    return shown
