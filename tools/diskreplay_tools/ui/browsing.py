"""The tab of transitions: a filter, a table of those that it lets through, and one in detail."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import Any

from nicegui import ui

from diskreplay.wording import count_of
from diskreplay_tools.terminal import moment
from diskreplay_tools.ui.detail import TransitionDialog
from diskreplay_tools.ui.monitor import PATIENCE, Moment, Monitor
from diskreplay_tools.ui.row_table import RowTable
from diskreplay_tools.ui.source import FAILURES
from diskreplay_tools.ui.transitions import (
    ENDS,
    MOST_LOOKED_AT,
    MOST_READ,
    Filter,
    Page,
    search,
)

_ANY = -1
_MOST_RUNS = 100  # offered: the last ones


class TransitionsTab:
    """The newest transitions that a filter lets through, page by page."""

    def __init__(self, monitor: Monitor) -> None:
        self._source = monitor.source
        self._page: Page | None = None
        self._runs = -1
        self._count = self._shown_count = 0
        self._busy = False
        self._next = 0.0  # when to follow again
        with ui.row().classes("filters"):
            self._run = ui.select({_ANY: "any"}, value=_ANY, label="run").mark("run")
            self._least = ui.number("priority from").mark("least")
            self._most = ui.number("priority to").mark("most")
            self._end = ui.select(ENDS, value="any", label="end").mark("end")
            self._from = ui.number("newest write id", min=0, precision=0).mark("from")
            ui.button("Show", on_click=partial(self.show, newest=False)).props("dense no-caps")
        with ui.row().classes("items-center w-full"):
            ui.button("Newest", on_click=partial(self.show, newest=True)).props(
                "flat dense no-caps"
            )
            self._older = ui.button("Older", on_click=self.older).props("flat dense no-caps")
            self._follow = ui.switch("Follow").props("dense")
            self._said = ui.label().classes("quiet").mark("said")
            self._newer = ui.label().classes("quiet")
        self._table = RowTable(self._open)
        self._dialog = TransitionDialog(self._source)

    async def begin(self) -> None:
        """Show the newest transitions, the first time that the tab is seen."""
        if self._page is None:
            await self.show(newest=True)

    async def refresh(self, last: Moment) -> None:
        """Offer the runs of the store, and say how many transitions are newer than those shown."""
        stats = last.stats
        self._count = int(stats["count"])
        newer = self._count - self._shown_count
        self._newer.set_text(f"{newer:,} newer" if newer > 0 and self._page is not None else "")
        self._least.set_visibility("beta" in stats)
        self._most.set_visibility("beta" in stats)
        if len(stats["runs"]) != self._runs:
            self._runs = len(stats["runs"])
            offered = list(enumerate(stats["runs"]))[-_MOST_RUNS:]
            names = {index: f"{index}, {_started(run_)}" for index, run_ in reversed(offered)}
            self._run.set_options({_ANY: "any", **names})
        began = time.monotonic()
        if self._follow.value and newer > 0 and self._page is not None and began > self._next:
            await self.show(newest=True)
            now = time.monotonic()
            self._next = now + PATIENCE * (now - began)

    async def show(self, *, newest: bool) -> None:
        """Show the newest transitions that the filter lets through, below a write id if given."""
        if newest:
            self._from.set_value(None)
        start = self._from.value
        await self._search(None if start is None else int(start) + 1)

    async def older(self) -> None:
        """Go on below the oldest transition that was looked at."""
        if self._page is not None:
            await self._search(self._page.before)

    async def _search(self, before: int | None) -> None:
        if self._busy:
            return
        self._busy = True
        wanted = Filter(
            run=None if self._run.value == _ANY else self._run.value,
            least=self._least.value,
            most=self._most.value,
            end=self._end.value,
        )
        try:
            self._said.set_text("looking")
            page = await asyncio.to_thread(
                self._source.read, lambda replay: search(replay, wanted, before)
            )
        except FAILURES as error:
            self._said.set_text(f"Not read: {error}")
            return
        finally:
            self._busy = False
        self._page, self._shown_count = page, self._count
        self._table.show(page.rows)
        self._older.set_enabled(page.before > page.first)
        self._said.set_text(_said(page, wanted))

    async def _open(self, write_id: int) -> None:
        await self._dialog.show(write_id)


def _said(page: Page, wanted: Filter) -> str:
    shown = f"{count_of(len(page.rows), 'transition')}, newest first"
    if wanted == Filter():
        return shown if page.rows else "no transition there"
    looked = f"{shown}; {page.looked_at:,} looked at"
    if page.at_limit:
        most = MOST_READ if wanted.end != "any" else MOST_LOOKED_AT
        return f"{looked}, which is as far as one search goes (at most {most:,}): Older goes on"
    return looked


def _started(run_: Any) -> str:
    return moment(run_.get("started"), "%m-%d %H:%M") if isinstance(run_, dict) else "unknown"
