"""The page: its head, its tabs, and what it says when the replay cannot be read."""

from __future__ import annotations

import asyncio

from nicegui import Client, ui

from diskreplay_tools.ui.browsing import TransitionsTab
from diskreplay_tools.ui.facts import FactsTab
from diskreplay_tools.ui.monitor import Monitor
from diskreplay_tools.ui.overview import OverviewTab
from diskreplay_tools.ui.style import CSS

_THEMES = {None: ("brightness_auto", "as the system"), True: ("dark_mode", "dark"),
           False: ("light_mode", "light")}  # fmt: skip


class ReplayPage:
    """The page about a replay, built anew for each visitor."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor

    async def look(self) -> None:
        """Look at the replay; at its transitions only while somebody has the page open."""
        with_sample = any(client.has_socket_connection for client in Client.instances.values())
        await asyncio.to_thread(lambda: self._monitor.look(with_sample=with_sample))

    def build(self) -> None:
        """Build the page for a visitor."""
        ui.add_css(CSS)
        ui.colors(primary="#2563eb")
        with ui.header().classes("top-bar"):
            ui.label("diskreplay").classes("brand")
            ui.label(self._monitor.source.target.place).classes("path").mark("path")
            state = ui.label().classes("state")
            self._theme_button()
        with ui.column().classes("page"):
            problem = ui.label().classes("problem").props("role=alert").mark("problem")
            with ui.tabs().classes("tabs").props("dense no-caps align=left") as tabs:
                names = [ui.tab(name) for name in ("Overview", "Transitions", "Store")]
            with ui.tab_panels(tabs, value=names[0], animated=False).classes("panels"):
                with ui.tab_panel(names[0]):
                    overview = OverviewTab(self._monitor)
                with ui.tab_panel(names[1]):
                    transitions = TransitionsTab(self._monitor)
                with ui.tab_panel(names[2]):
                    facts = FactsTab(self._monitor.source.target)

        async def refresh() -> None:
            found, last = self._monitor.problem, self._monitor.last
            said = found or self._monitor.sample_problem
            problem.set_text(f"Not read at the moment: {said}" if said else "")
            problem.set_visibility(bool(said))
            state.set_text("waiting" if found or last is None else "live")
            state.classes(replace=f"state {'waiting' if found else 'live'}")
            if last is not None:
                overview.refresh(last)
                facts.refresh(last)
                await transitions.refresh(last)

        async def change_tab() -> None:
            if tabs.value == "Transitions":
                await transitions.begin()

        tabs.on_value_change(change_tab)
        ui.timer(1.0, refresh)

    def _theme_button(self) -> None:
        dark = ui.dark_mode(None)
        order = list(_THEMES)

        def turn() -> None:
            dark.set_value(order[(order.index(dark.value) + 1) % len(order)])
            icon, words = _THEMES[dark.value]
            button.props(f"icon={icon}")
            button.tooltip(f"Colours: {words}")

        button = ui.button(icon="brightness_auto", on_click=turn).props("flat round dense")
        button.props('aria-label="Colours: light, dark, or as the system"')
