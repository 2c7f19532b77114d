"""The figures of the page, as options of ECharts: numbers, and words of this file alone.

A key that begins with a colon would be run as JavaScript, so no word of a store becomes a key.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from diskreplay.aliases import Floats, Ints
from diskreplay_tools.terminal import Bins

BLUE, ORANGE, GREEN, PURPLE = "#3b82f6", "#f97316", "#10b981", "#a855f7"
_QUIET = "#8b949e"  # readable on a light page, and on a dark one
_GRID = "rgba(139, 148, 158, 0.22)"
_MOST_POINTS = 300
_ROOM = 40  # characters of labels that fit below a figure on a phone


def empty() -> dict[str, Any]:
    """Return a figure without data."""
    return _figure([], {"type": "value"}, {"type": "value"})


def over_time(
    times: Sequence[float], lines: Mapping[str, tuple[str, Sequence[float | None]]], *, log: bool
) -> dict[str, Any]:
    """Return lines over time, by name, each with a colour."""
    kept = _kept(len(times))
    series = [
        {
            **_line(name, color),
            "data": [[round(times[i] * 1000), _drawn(values[i], log=log)] for i in kept],
        }
        for name, (color, values) in lines.items()
    ]
    scale = {"type": "log", "logBase": 10} if log else {"type": "value", "min": 0}
    return _figure(series, {"type": "time"}, scale)


def over_write_ids(points: Iterable[tuple[int, float]], name: str) -> dict[str, Any]:
    """Return a line over write ids."""
    series = [{**_line(name, BLUE), "data": [[x, y] for x, y in points]}]
    return _figure(series, _WRITE_IDS, {"type": "value", "scale": True})


def episodes(ends: Ints, values: Floats | Ints, name: str) -> dict[str, Any]:
    """Return a dot for each of the newest episodes, and their moving average."""
    finite = np.isfinite(values)
    ends, values = ends[finite], values[finite]
    window = max(1, min(20, values.size // 5))
    kept = slice(-4 * _MOST_POINTS, None)
    dots = {
        "name": name,
        "type": "scatter",
        "symbolSize": 5,
        "itemStyle": {"color": BLUE, "opacity": 0.55},
        "data": [[int(x), float(y)] for x, y in zip(ends[kept], values[kept], strict=True)],
    }
    series = [dots]
    if window > 1:
        smooth = np.convolve(values, np.ones(window) / window, "valid")
        points = zip(ends[window - 1 :][kept], smooth[kept], strict=True)
        line = _line(f"mean of {window}", ORANGE)
        # Rounded, or an axis would show the last bits of means of equal numbers.
        series.append({**line, "data": [[int(x), float(f"{y:.6g}")] for x, y in points]})
    return _figure(series, _WRITE_IDS, {"type": "value", "scale": True})


def bars(bins: Bins, color: str) -> dict[str, Any]:
    """Return a histogram."""
    labels = [" ".join(label.split()) for label in bins.labels()]
    series = [
        {
            "type": "bar",
            "data": list(bins.counts),
            "itemStyle": {"color": color, "borderRadius": [2, 2, 0, 0]},
            "barCategoryGap": "12%",
            "barMaxWidth": 80,
        }
    ]
    axis = {
        "type": "category",
        "data": labels,
        "axisLabel": {
            "color": _QUIET,
            "rotate": 35 if len("".join(labels)) > _ROOM else 0,
            "interval": 0,
        },
    }
    return _figure(series, axis, {"type": "value"})


_WRITE_IDS = {"type": "value", "scale": True, "name": "write id", "nameLocation": "middle",
              "nameGap": 26}  # fmt: skip


def _kept(n: int) -> list[int]:
    return np.unique(np.linspace(0, n - 1, min(n, _MOST_POINTS)).astype(int)).tolist() if n else []


def _drawn(value: float | None, *, log: bool) -> float | None:
    hidden = value is None or not math.isfinite(value) or (log and value <= 0)
    return None if hidden else value


def _line(name: str, color: str) -> dict[str, Any]:
    return {
        "name": name,
        "type": "line",
        "showSymbol": False,
        "lineStyle": {"color": color, "width": 1.8},
        "itemStyle": {"color": color},
    }


def _figure(
    series: list[dict[str, Any]], across: dict[str, Any], up: dict[str, Any]
) -> dict[str, Any]:
    quiet = {
        "axisLabel": {"color": _QUIET, "hideOverlap": True},
        "nameTextStyle": {"color": _QUIET},
    }
    line = {"axisLine": {"lineStyle": {"color": _GRID}}, "axisTick": {"show": False}}
    split = {"splitLine": {"lineStyle": {"color": _GRID}}}
    named = sum("name" in each for each in series) > 1
    return {
        "animation": False,
        "textStyle": {"fontFamily": "inherit"},
        "grid": {
            "left": 8,
            "right": 18,
            "top": 34 if named else 14,
            "bottom": 26 if "name" in across else 4,
            "containLabel": True,
        },
        "legend": {"show": named, "top": 0, "left": 0, "textStyle": {"color": _QUIET},
                   "itemWidth": 14, "itemHeight": 8},
        "tooltip": {"trigger": "axis", "confine": True, "renderMode": "richText"},
        "xAxis": {**quiet, **line, "splitLine": {"show": False}, **across},
        "yAxis": {**quiet, **split, "splitNumber": 4, **up},
        "series": series,
    }  # fmt: skip
