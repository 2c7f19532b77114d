"""The tab of figures: fill and rates, priorities, rewards and episodes."""

from __future__ import annotations

from typing import Any

from nicegui import ui

from diskreplay.wording import count_of, human
from diskreplay_tools.rates import why_not_counted
from diskreplay_tools.terminal import number
from diskreplay_tools.ui import charts
from diskreplay_tools.ui.monitor import Moment, Monitor, Sample

_COUNTED = {"pushes": "Pushes a second", "batches": "Batches a second",
            "updates": "Updates a second", "commits": "Commits a second"}  # fmt: skip


_UNKNOWN = "-"


class OverviewTab:
    """Tiles with the figures of this moment, and figures over time."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self._shown: Moment | None = None
        self._sample: Sample | None = None
        with ui.element().classes("tiles"):
            names = ("Live transitions", *_COUNTED.values(), "Newest row", "Next draw", "On disk")
            self._tiles = {name: _Tile(name) for name in names}
        with ui.element().classes("charts"):
            self._rates = _Chart("Pushes and batches a second")
            self._quantiles = _Chart("Priorities over time")
            self._priorities = _Chart("Priorities now")
            self._rewards = _Chart("Rewards by write id")
            self._reward_bins = _Chart("Rewards")
            self._returns = _Chart("Returns of episodes")
            self._lengths = _Chart("Lengths of episodes")

    def refresh(self, last: Moment) -> None:
        """Show the figures of the last look, unless they are shown."""
        if last is not self._shown:
            self._shown = last
            self._show_tiles(last)
            self._show_history()
        sample = self._monitor.sample
        if sample is not None and sample is not self._sample:
            self._sample = sample
            self._show_sample(sample)

    def _show_tiles(self, last: Moment) -> None:
        stats = last.stats
        size, capacity = stats["size"], stats["capacity"]
        tiles = self._tiles
        tiles["Live transitions"].show(
            f"{size:,}", f"of {capacity:,}, {100 * size / capacity:.1f} % full"
        )
        for name, label in _COUNTED.items():
            counted, rate = last.counters[name], last.rates[name]
            if counted is None:
                tiles[label].show(_UNKNOWN, why_not_counted(name, stats))
            else:
                tiles[label].show(_UNKNOWN if rate is None else _rate(rate), f"{counted:,} in all")
        seconds = stats["newest_seconds"]
        newest = f"{stats['count'] - 1:,}" if size else "none"
        ago = "" if seconds is None else f"committed {seconds:,.0f} s ago"
        tiles["Newest row"].show(newest, ago or "no commit with rows seen yet")
        beta = f"beta {number(stats['beta'])}" if "beta" in stats else "uniform"
        tiles["Next draw"].show(f"{stats['draws']:,}", beta)
        free = human(stats["free_bytes"])
        tiles["On disk"].show(human(stats["disk_bytes"]), f"{free} of it free")

    def _show_history(self) -> None:
        moments = list(self._monitor.moments)
        times = [each.time for each in moments]
        rates = {
            "pushes": (charts.BLUE, [each.rates["pushes"] for each in moments]),
            "batches": (charts.ORANGE, [each.rates["batches"] for each in moments]),
        }
        self._rates.show(charts.over_time(times, rates, log=False))
        quantiles = [each.quantiles for each in moments]
        if not any(quantiles):
            self._quantiles.hide()
            return
        lines = {
            name: (color, [None if each is None else each[place] for each in quantiles])
            for place, (name, color) in enumerate(_QUANTILES)
        }
        self._quantiles.show(
            charts.over_time(times, lines, log=True), "Of a sample, on a log scale"
        )

    def _show_sample(self, sample: Sample) -> None:
        size = sample.size
        if sample.priorities is None:
            self._priorities.hide()
        else:
            words = _of(sample.priorities_of, size)
            self._priorities.show(charts.bars(sample.priorities, charts.PURPLE), words)
        words = _of(sample.rewards_of, size)
        if sample.reward_bins is None:
            why = "No transition yet" if not size else "A reward is not one finite number"
            self._rewards.say(why)
            self._reward_bins.hide()
        else:
            means = charts.over_write_ids(sample.rewards, "mean reward")
            self._rewards.show(means, f"Means along the live write ids, {words}")
            self._reward_bins.show(charts.bars(sample.reward_bins, charts.GREEN), words)
        self._show_episodes(sample)

    def _show_episodes(self, sample: Sample) -> None:
        rows = count_of(sample.episodes_of, "transition")
        if sample.episodes is None or not sample.episodes[0].size:
            known = "none is whole" if sample.episodes is not None else "not known"
            self._returns.say(f"Among the newest {rows}: {known}")
            self._lengths.hide()
            return
        ends, returns, lengths = sample.episodes
        words = f"{ends.size:,} whole among the newest {rows}"
        self._returns.show(charts.episodes(ends, returns, "return"), words)
        self._lengths.show(charts.episodes(ends, lengths, "length"), words)


_QUANTILES = (("10 %", charts.GREEN), ("median", charts.BLUE), ("90 %", charts.ORANGE),
              ("largest", charts.PURPLE))  # fmt: skip


class _Tile:
    def __init__(self, name: str) -> None:
        with ui.element().classes("tile"):
            ui.label(name).classes("name")
            self._value = ui.label(_UNKNOWN).classes("value").mark(name)
            self._note = ui.label().classes("quiet")

    def show(self, value: str, note: str) -> None:
        self._value.set_text(value)
        self._note.set_text(note)


class _Chart:
    def __init__(self, title: str) -> None:
        with ui.column().classes("box") as self._box:
            ui.label(title).classes("title")
            self._note = ui.label().classes("quiet")
            self._chart = ui.echart(charts.empty()).classes("chart")

    def show(self, options: dict[str, Any], note: str = "") -> None:
        self._box.set_visibility(True)
        self._chart.set_visibility(True)
        self._note.set_text(note)
        self._chart.options.clear()
        self._chart.options.update(options)
        self._chart.update()

    def say(self, words: str) -> None:
        self._box.set_visibility(True)
        self._chart.set_visibility(False)
        self._note.set_text(words)

    def hide(self) -> None:
        self._box.set_visibility(False)


def _of(rows: int, size: int) -> str:
    return f"all {rows:,}" if rows >= size else f"a sample of {rows:,} of {size:,}"


def _rate(rate: float) -> str:
    return f"{rate:,.1f}" if rate < 100 else f"{rate:,.0f}"
