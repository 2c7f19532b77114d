"""One transition in detail, and the episode it is of."""

from __future__ import annotations

import asyncio
from typing import Any

from nicegui import ui

from diskreplay.protocols import Replay
from diskreplay.schema import root_of
from diskreplay.store import RunRanges
from diskreplay.wording import count_of
from diskreplay_tools.stores import rows_within
from diskreplay_tools.terminal import number
from diskreplay_tools.ui.row_table import RowTable
from diskreplay_tools.ui.source import FAILURES, Source
from diskreplay_tools.ui.transitions import (
    MOST_STEPS,
    PAGE_BYTES,
    Row,
    episode_ids,
    rows_of,
    transition,
)
from diskreplay_tools.ui.values import Shown, shown


class TransitionDialog:
    """A dialog with all fields of a transition, from which one goes to its neighbours."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._write_id = 0
        with ui.dialog() as self._dialog, ui.card().classes("detail").mark("detail"):
            with ui.row().classes("items-center w-full"):
                self._title = ui.label().classes("text-lg").mark("title")
                ui.space()
                self._button("chevron_left", "One older", -1)
                self._button("chevron_right", "One newer", 1)
                ui.button(icon="close", on_click=self._dialog.close).props(
                    "flat round dense aria-label=Close"
                )
            self._facts = ui.label().classes("quiet")
            self._fields = ui.column().classes("w-full gap-2")
            ui.button("Episode", on_click=self.show_episode).props("flat dense no-caps")
            self._episode_said = ui.label().classes("quiet").mark("episode")
            self._steps = RowTable(self.show, sums=True)
            self._steps.set_visibility(False)

    def _button(self, icon: str, words: str, by: int) -> None:
        async def go() -> None:
            await self.show(self._write_id + by)

        ui.button(icon=icon, on_click=go).props(f'flat round dense aria-label="{words}"')

    async def show(self, write_id: int) -> None:
        """Show a transition; one that is not live any more leaves what is shown."""
        self._dialog.open()
        try:
            found: Row | None = await asyncio.to_thread(
                self._source.read, lambda replay: transition(replay, write_id)
            )
        except FAILURES as error:
            self._facts.set_text(f"Not read: {error}")
            return
        if found is None:
            self._facts.set_text(f"Write id {write_id:,} is not live: evicted, or not written yet")
            return
        self._write_id = write_id
        self._title.set_text(f"Write id {write_id:,}")
        self._facts.set_text(_facts_of(found))
        self._show_fields(found)
        self._hide_episode()

    async def show_episode(self) -> None:
        """Show the transitions of the episode, as far as they are live."""
        write_id = self._write_id
        try:
            found = await asyncio.to_thread(
                self._source.read, lambda replay: _episode_rows(replay, write_id)
            )
        except FAILURES as error:
            self._episode_said.set_text(f"Not read: {error}")
            return
        if found is None:
            self._episode_said.set_text("Nothing tells which transitions are of its episode")
            return
        total, rows = found
        few = f", {len(rows):,} of them shown" * (len(rows) < total)
        most = f" (at most {MOST_STEPS})" if few else ""
        self._episode_said.set_text(f"Episode: {count_of(total, 'live transition')}{few}{most}")
        self._steps.set_visibility(True)
        self._steps.show(rows, chosen=write_id)

    def _hide_episode(self) -> None:
        self._episode_said.set_text("")
        self._steps.set_visibility(False)

    def _show_fields(self, row: Row) -> None:
        self._fields.clear()
        with self._fields:
            if row.fields is None:
                ui.label("The record is damaged: diskreplay repair copies the others")
                return
            group = ""
            for name, value in row.fields.items():
                root = root_of(name)
                is_part = root != name
                if is_part and root != group:
                    with ui.column().classes("field"):
                        ui.label(root).classes("name")
                group = root
                with ui.column().classes("field part" if is_part else "field"):
                    _show_value(name.removeprefix(f"{root}."), value)


def _show_value(name: str, value: Any) -> None:
    found: Shown = shown(value)
    ui.label(name).classes("name")
    if found.pictures:
        with ui.element().classes("frames"):
            for place, picture in enumerate(found.pictures):
                image = ui.element("img")
                image.props["src"] = picture
                image.props["alt"] = f"frame {place + 1}"
        ui.label(found.text).classes("quiet")
        return
    ui.label(found.text).classes("words" if found.is_words else "numbers")
    if found.summary:
        ui.label(found.summary).classes("quiet")


def _facts_of(row: Row) -> str:
    priority = [] if row.priority is None else [f"priority {number(row.priority)}"]
    writer = "run not known" if row.run is None else f"run {row.run}"
    ended = [f"the episode ends here: {row.episode_end}"] if row.episode_end else []
    return ", ".join([*priority, writer, *ended])


def _episode_rows(replay: Replay[Any], write_id: int) -> tuple[int, list[Row]] | None:
    """Return how many transitions of an episode are live, and some of them around one."""
    ids = episode_ids(replay, write_id)
    if ids is None:
        return None
    n = max(1, rows_within(replay, min(len(ids), MOST_STEPS), PAGE_BYTES))
    begin = max(0, min(ids.index(write_id) - n // 2, len(ids) - n))
    runs = RunRanges(replay.stats()["runs"])
    return len(ids), rows_of(replay, ids[begin : begin + n], runs)
