"""The figures of a report, drawn by matplotlib: each for a light and for a dark page.

No text of the store is drawn, only numbers: names stand in the page, where they are escaped.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from diskreplay.aliases import Array
from diskreplay_tools.extras import needed
from diskreplay_tools.report.values import limited

Paint = Callable[[Any, "Theme"], None]
WIDTH = 4.8  # inches: on a phone, which shrinks it, letters are still large enough
HEIGHT = 2.5
BINS = 40
MOST_BARS = 40
_EXACT = 2.0**52


@dataclass(frozen=True)
class Theme:
    """The colours of a figure."""

    text: str
    quiet: str
    grid: str
    first: str
    second: str


LIGHT = Theme(text="#1f2328", quiet="#57606a", grid="#d8dee4", first="#2563eb", second="#c2410c")
DARK = Theme(text="#e6edf3", quiet="#9da7b3", grid="#30363d", first="#60a5fa", second="#fb923c")


@dataclass(frozen=True)
class Picture:
    """A figure as two data: URIs."""

    light: str
    dark: str


class Figures:
    """matplotlib, with the style of the report."""

    def __init__(self) -> None:
        self._matplotlib = needed("matplotlib", "report", "a report")
        self._new = needed("matplotlib.figure", "report", "a report").Figure
        self._image = needed("matplotlib.image", "report", "a report")

    def draw(self, paint: Paint, height: float = HEIGHT) -> Picture:
        """Draw a figure for both kinds of page. The height is in inches."""
        return Picture(self._svg(paint, height, LIGHT), self._svg(paint, height, DARK))

    def png(self, frame: Array) -> str:
        """Return a frame, (h, w) or (h, w, 3), uint8, as a data: URI."""
        file = io.BytesIO()
        self._image.imsave(file, frame, format="png", cmap="gray", vmin=0, vmax=255)
        return data_uri("image/png", file.getvalue())

    def _svg(self, paint: Paint, height: float, theme: Theme) -> str:
        file = io.BytesIO()
        with self._matplotlib.rc_context():
            self._matplotlib.rcdefaults()  # whatever the settings of the user are
            self._matplotlib.rcParams.update(style(theme))
            figure = self._new(figsize=(WIDTH, height), layout="constrained")
            paint(figure, theme)
            figure.savefig(file, format="svg", metadata={"Date": None})
        return data_uri("image/svg+xml", file.getvalue())


def style(theme: Theme) -> dict[str, Any]:
    """Return the settings of matplotlib for a theme."""
    return {
        "svg.hashsalt": "diskreplay",  # the same data make the same file
        "font.size": 11,
        "text.color": theme.text,
        "axes.labelcolor": theme.quiet,
        "axes.edgecolor": theme.grid,
        "axes.facecolor": "none",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.titlesize": 10,
        "axes.titlecolor": theme.quiet,
        "grid.color": theme.grid,
        "grid.linewidth": 0.6,
        "xtick.color": theme.grid,
        "ytick.color": theme.grid,
        "xtick.labelcolor": theme.quiet,
        "ytick.labelcolor": theme.quiet,
        "figure.facecolor": "none",
        "savefig.facecolor": "none",
        "legend.frameon": False,
        "legend.fontsize": 10,
        "lines.solid_capstyle": "round",
    }


def data_uri(kind: str, content: bytes) -> str:
    """Return content as a URI that holds all of it."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def histogram(values: Array, label: str) -> Paint:
    """Show how numbers are distributed. A few whole numbers of an integer dtype get a bar each."""
    edges = edges_of(values)

    def paint(figure: Any, theme: Theme) -> None:
        axes = figure.subplots()
        counts = bars(axes, theme, values, edges)
        if log := bool(counts.max() > 200 * np.median(counts[counts > 0])):
            axes.set_yscale("log")  # the small ones would not be seen
            axes.set_ylim(bottom=0.5)
            decades(axes.yaxis)
        else:
            axes.yaxis.set_major_formatter(lambda n, _: short(n))
            axes.locator_params(axis="y", nbins=6, integer=True)
        plain = label.replace("$", r"\$")  # or it would begin a formula
        axes.set(xlabel=plain, ylabel=f"transitions read{' (log)' * log}")

    return paint


def shares(priorities: Array, masses: Array, *, of: int, log: bool) -> Paint:
    """Show the share of the transitions and of the draws that each range of priorities has.

    of:  how many priorities there are, with those that are not drawn
    """
    edges = edges_of(priorities, log=log)

    def paint(figure: Any, theme: Theme) -> None:
        axes = figure.subplots()
        have = np.histogram(priorities, edges)[0] / of * 100
        drawn = np.histogram(priorities, edges, weights=masses)[0] / masses.sum() * 100
        axes.stairs(have, edges, fill=True, color=theme.first, alpha=0.55, label="of transitions")
        axes.stairs(drawn, edges, color=theme.second, linewidth=1.8, label="of draws")
        if log:
            axes.set_xscale("log")
            decades(axes.xaxis)
        axes.set(xlabel=f"priority{' (log)' * log}", ylabel="share, %")
        axes.set_ylim(0, max(have.max(), drawn.max()) * 1.25)
        axes.legend(loc="upper left", ncols=2)

    return paint


def small_multiples(values: Array) -> tuple[Paint, float]:
    """Show the distribution of each component of vectors, (n, k); and the height of that."""
    k = values.shape[1]
    columns = min(k, 2 if k <= 4 else 3)
    rows = -(-k // columns)

    def paint(figure: Any, theme: Theme) -> None:
        grid = figure.subplots(rows, columns, squeeze=False)
        for i, axes in enumerate(grid.flat):
            if i >= k:
                axes.set_axis_off()
                continue
            column = values[:, i]
            column = column[np.isfinite(column)]
            if column.size:
                column = column if column.dtype.kind in "iu" else limited(column)
                bars(axes, theme, column, edges_of(column))
            axes.locator_params(axis="x", nbins=4 if columns == 2 else 3)
            axes.set_title(f"[{i}]", loc="left", pad=2)
            axes.set_yticks([])
            axes.spines["left"].set_visible(False)

    return paint, 0.3 + 1.15 * rows


def ranges(values: Array) -> Paint:
    """Show where each component of long vectors is: (n, k), NaN and infinite ones left out."""
    parts = {i: limited(column[np.isfinite(column)]) for i, column in enumerate(values.T)}
    places = [i for i, part in parts.items() if part.size]
    found = np.array([np.quantile(parts[i], [0.05, 0.5, 0.95]) for i in places])

    def paint(figure: Any, theme: Theme) -> None:
        axes = figure.subplots()
        axes.vlines(places, found[:, 0], found[:, 2], color=theme.first, alpha=0.6, linewidth=3)
        axes.plot(places, found[:, 1], ".", color=theme.second, markersize=5)
        axes.set(xlabel="component", ylabel="5 % to 95 %, median")

    return paint


def course(places: Array, values: Array, label: str) -> Paint:
    """Show a number of each episode over write ids, and its moving average."""
    window = average_of(len(values))

    def paint(figure: Any, theme: Theme) -> None:
        axes = figure.subplots()
        many, few = len(values) > 1500, len(values) < 150
        axes.plot(
            places, values, ".", color=theme.first, markersize=6 if few else 4,
            alpha=0.9 if few else 0.45, markeredgewidth=0, rasterized=many,
        )  # fmt: skip
        if window > 1:
            smooth = np.convolve(values, np.ones(window) / window, "valid")
            keep = np.unique(np.linspace(0, len(smooth) - 1, 1000).astype(int))
            axes.plot(places[window - 1 :][keep], smooth[keep], color=theme.second, lw=1.8)
        axes.set(xlabel="write id of the last transition", ylabel=label)
        plain_numbers(axes)

    return paint


def average_of(n: int) -> int:
    """Return over how many of n episodes the moving average goes."""
    return min(20, n // 5)


def priority_by_age(ages: Array, priorities: Array, *, log: bool) -> Paint:
    """Show the middle of the priorities and where most of them are, by age in transitions."""
    edges = np.unique(np.linspace(0, ages.max() + 1, 61).astype(np.int64))
    order = np.argsort(ages)
    parts = np.split(priorities[order], np.searchsorted(ages[order], edges[1:-1]))
    middles = (edges[1:] + edges[:-1] - 1) / 2
    found = [
        (x, *np.quantile(part, [0.1, 0.5, 0.9]))
        for x, part in zip(middles, parts, strict=True)
        if part.size
    ]
    x, low, middle, high = np.array(found).T
    log = log and is_wide(np.concatenate([low, high]))

    def paint(figure: Any, theme: Theme) -> None:
        axes = figure.subplots()
        axes.fill_between(
            x, low, high, color=theme.first, alpha=0.25, linewidth=0, label="eight of ten"
        )
        axes.plot(x, middle, color=theme.first, linewidth=1.8, label="median")
        if log:
            axes.set_yscale("log")
            decades(axes.yaxis)
        axes.set(xlabel="age: transitions written since", ylabel=f"priority{' (log)' * log}")
        axes.legend(loc="best", ncols=2)
        plain_numbers(axes)

    return paint


def timeline(spans: Sequence[tuple[int, int]], names: Sequence[str]) -> tuple[Paint, float]:
    """Show which of the live write ids each run wrote; and the height of that."""

    def paint(figure: Any, theme: Theme) -> None:
        axes = figure.subplots()
        for row, (first, end) in enumerate(spans):
            axes.broken_barh([(first, end - first)], (row - 0.32, 0.64), color=theme.first)
        axes.set_yticks(range(len(spans)), names)
        axes.set_ylim(-0.6, max(len(spans), 2) - 0.4)
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("write id")
        plain_numbers(axes)

    return paint, 0.8 + 0.3 * max(len(spans), 2)


def bars(axes: Any, theme: Theme, values: Array, edges: Array) -> Array:
    """Draw a histogram, and return its counts."""
    counts = np.histogram(values, edges)[0]
    widths = np.diff(edges)
    single = bool(np.all(widths == 1.0)) and len(counts) <= MOST_BARS  # a bar for each whole number
    middles = (edges[1:] + edges[:-1]) / 2
    axes.bar(middles, counts, widths * (0.82 if single else 1.0), color=theme.first, linewidth=0)
    if single:
        if len(counts) <= 10:
            axes.set_xticks(middles)
        else:
            axes.locator_params(axis="x", integer=True)
        if len(counts) < 3:
            axes.set_xlim(middles[0] - 1.5, middles[-1] + 1.5)
    return counts


def edges_of(values: Array, *, log: bool = False) -> Array:
    """Return the edges of the bins of a histogram of finite numbers, at least one."""
    low, high = float(values.min()), float(values.max())
    if values.dtype.kind in "biu" and high - low < MOST_BARS and max(-low, high) < _EXACT:
        return np.arange(low, high + 2) - 0.5
    if log:
        return np.geomspace(low, high, BINS + 1)
    if high - low <= 1e-12 * max(-low, high):
        half = max(0.5, 0.1 * abs(high))
        return np.array([low - half, high + half])
    return np.linspace(low, high, BINS + 1)


def is_wide(values: Array) -> bool:
    """Return whether positive numbers are better seen on a log axis."""
    return bool(values.size and values.min() > 0 and values.max() > 50 * values.min())


def plain_numbers(axes: Any) -> None:
    """Label the x axis with few whole numbers, short ones."""
    axes.xaxis.set_major_formatter(lambda n, _: short(n))
    axes.locator_params(axis="x", nbins=6, integer=True)


def decades(axis: Any) -> None:
    """Label powers of ten only, as plain numbers: small superscripts are not readable."""
    axis.set_major_formatter(lambda n, _: short(n))
    axis.set_minor_formatter("")


def short(n: float) -> str:
    """Return a number as an axis has room for it.

    >>> short(1500), short(2e6), short(7)
    ('1.5k', '2M', '7')
    """
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(n) >= size:
            return f"{n / size:.9g}{letter}"
    return f"{n:g}"
