"""Charts for a terminal: histograms, bars and pictures, of blocks or else of plain ASCII."""

from __future__ import annotations

import math
import os
import shutil
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from diskreplay.errors import printable

MOST_BINS = 10
LOG_RATIO = 100.0  # of the largest value to the smallest: from there on bins grow by factors

_EIGHTHS = " ▏▎▍▌▋▊▉█"
_LEVELS = "▁▂▃▄▅▆▇█"
_SHADES = " ░▒▓█"
_ASCII_LEVELS = "_.:-=+*#"
_ASCII_SHADES = " .:-=+*#%@"
_WIDEST, _NARROWEST = 100, 30
_LABEL = 12
_LEAST_BAR = 6
_PICTURE_COLUMNS, _PICTURE_ROWS = 38, 24


@dataclass(frozen=True)
class Screen:
    """What is printed on: its width in columns, and whether it has block characters."""

    width: int
    blocks: bool


def screen() -> Screen:
    """Return what stdout is printed on; what is no terminal has 80 columns."""
    width = shutil.get_terminal_size().columns
    try:
        (_EIGHTHS + _LEVELS + _SHADES + "│").encode(_encoding())
        blocks = os.environ.get("TERM") != "linux"  # the console of the kernel lacks the eighths
    except UnicodeError:
        blocks = False
    return Screen(max(_NARROWEST, min(width, _WIDEST)), blocks)


def say(text: str, *, err: bool = False) -> None:
    """Print text, with escapes in the place of what the output's encoding cannot say."""
    encoding = _encoding()
    click.echo(text.encode(encoding, "backslashreplace").decode(encoding), err=err)


def tell(text: str, *, err: bool = False) -> None:
    """Print plain lines: whatever is quoted in them does not command the terminal."""
    say(printable_lines(text), err=err)


def printable_lines(text: str) -> str:
    """Return text of several lines with escapes in the place of what would command a terminal."""
    return "\n".join(map(printable, text.split("\n")))


def heading(text: str, rest: str = "", on: Screen | None = None) -> str:
    """Return the first line of a section, or several where it is too long for one."""
    if on is not None:
        rest = _wrapped(text, rest, 2, on)[len(text) :]
    return click.style(text, bold=True) + rest


def entry(label: str, text: str, on: Screen) -> str:
    """Return a labelled text, on several lines where it is too long for one."""
    return _wrapped(f"  {label:<{_LABEL}} ", text, _LABEL + 3, on)


def item(text: str, more: str, on: Screen) -> str:
    """Return an item of a list: what it is, and what there is to say of it below."""
    return "\n".join(_wrapped("  " + " " * by, part, 4, on) for by, part in ((0, text), (2, more)))


def _wrapped(lead: str, text: str, indent: int, on: Screen) -> str:
    lines = textwrap.wrap(text, on.width - len(lead), break_on_hyphens=False)
    return ("\n" + " " * indent).join([(lead + (lines or [""])[0]).rstrip(), *lines[1:]])


def _encoding() -> str:
    return getattr(sys.stdout, "encoding", None) or "ascii"


# Numbers


def number(value: Any, digits: int = 4) -> str:
    """Return a number with so many digits that count, and with thousands separators.

    >>> number(1234567), number(0.123456), number(-12345.678), number(1.5e-7), number(2.0)
    ('1,234,567', '0.1235', '-12,346', '1.5e-07', '2')
    """
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    if isinstance(value, int | np.integer):
        return f"{int(value):,}"
    if isinstance(value, complex | np.complexfloating):
        imaginary = number(value.imag, digits)
        sign = "" if imaginary.startswith("-") else "+"
        return f"{number(value.real, digits)}{sign}{imaginary}j"
    value = float(value)
    if not math.isfinite(value):
        return str(value)
    if value == 0:
        return "0"
    if not 1e-4 <= abs(value) < 1e7:
        return f"{value:.{digits}g}"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return _trimmed(f"{value:,.{decimals}f}")


def known(least: int, most: int) -> str:
    """Return a number of which it is known that it is at least and at most so large.

    >>> known(5, 5), known(0, 5), known(1200, 5000)
    ('5', 'at most 5', '1,200 to 5,000')
    """
    if least == most:
        return f"{most:,}"
    return f"{least:,} to {most:,}" if least else f"at most {most:,}"


def percent(part: float, whole: float) -> str:
    """Return a share in percent, which is 0 or 100 only where that is true."""
    share = 100 * part / whole if whole else 0.0
    if 0 < share < 0.05:
        return "<0.1 %"
    return ">99.9 %" if 99.95 <= share < 100 else f"{share:.1f} %"


def _trimmed(text: str) -> str:
    return text.rstrip("0").rstrip(".") if "." in text else text


# Histograms


@dataclass(frozen=True)
class Bins:
    """How many values are where: of each of a few values, or between edges.

    A bin has its lower edge and not its upper one, but for the last, which has both.
    """

    counts: list[int]
    values: list[float] | None = None
    edges: list[float] | None = None

    def labels(self) -> list[str]:
        """Return a label for each count, all of one length."""
        if self.values is not None:
            texts = [number(value, digits=7) for value in self.values]
            if len(set(texts)) < len(texts):
                texts = [repr(value) for value in self.values]
            return _right(texts)
        ends = _edge_texts(self.edges or [])
        lows, highs = _right(ends[:-1]), _right(ends[1:])
        return [f"{low} to {high}" for low, high in zip(lows, highs, strict=True)]

    def to_plain(self) -> dict[str, Any]:
        """Return it as lists of numbers."""
        if self.values is not None:
            return {"values": self.values, "counts": self.counts}
        return {"edges": self.edges, "counts": self.counts}


def bins_of(values: NDArray[Any], *, may_grow: bool = False) -> Bins:
    """Return a histogram of n > 0 finite numbers. Cost: O(n log n).

    may_grow:  non-negative values of different sizes get bins that grow by factors
    """
    if np.unique(values[:1000]).size <= MOST_BINS:
        found, counts = np.unique(values, return_counts=True)
        if found.size <= MOST_BINS:
            return Bins(counts.tolist(), values=[_exact(value) for value in found])
    low, high = _shortest(values.min()), _shortest(values.max())
    if low == high:  # whole numbers that no float tells apart
        return Bins([values.size], edges=[low, float(np.nextafter(low, np.inf))])
    edges: list[float] = []
    if may_grow and low >= 0:
        least = _shortest(values[values > 0].min())
        if high / LOG_RATIO > least:
            edges = _growing_edges(least, high)
            edges = [0.0, *edges] if low < edges[0] else edges
    edges = edges or _even_edges(low, high)
    with np.errstate(over="ignore"):  # 0.1 as float32 is at the edge 0.1 as float32
        inner_edges = np.array(edges[1:-1]).astype(
            values.dtype if values.dtype.kind == "f" else float
        )
    inner = np.searchsorted(inner_edges, values, side="right")
    return Bins(np.bincount(inner, minlength=len(edges) - 1).tolist(), edges=edges)


def _shortest(value: Any) -> float:
    """Return the number that is written with the fewest digits, of those that mean this one."""
    return float(str(value)) if value.dtype.kind == "f" else float(value)


def _exact(value: Any) -> float:
    """Return a number that is not rounded, also one that is no float."""
    is_far = value.dtype.kind in "iu" and abs(int(value)) > 2**53
    return int(value) if is_far else _shortest(value)


def _even_edges(low: float, high: float) -> list[float]:
    """Return round edges, all as far apart, around [low, high], where low < high."""
    width = high / MOST_BINS - low / MOST_BINS
    power = math.floor(math.log10(width)) if 1e-300 < width < 1e300 else 0
    for factor in (1, 2, 5, 10):
        if factor * 10.0**power >= width * (1 - 1e-9):
            break
    step = factor * 10.0**power
    most = max(abs(low), abs(high))
    if most < 1e300 and most / step < 1e12:
        ends = range(math.floor(low / step), math.ceil(high / step) + 1)
        up, down = 10 ** max(power, 0), 10 ** max(-power, 0)
        edges = [n * factor * up / down for n in ends]  # 3 / 10, which is 0.3; 3 * 0.1 is not
        if edges[0] <= low and high <= edges[-1] and len(edges) > 2:
            return edges
    # Far from zero beside their distance: no round number is near.
    return sorted(set((np.linspace(low / 4, high / 4, MOST_BINS + 1) * 4).tolist()))


def _growing_edges(least: float, high: float) -> list[float]:
    """Return powers of ten around [least, high], with 2 and 5 between where there is room."""
    first, last = math.floor(math.log10(least)), math.floor(math.log10(high)) + 1
    if last - first <= 4:
        ends = [float(f"{m}e{p}") for p in range(first, last + 1) for m in (1, 2, 5)]
        begin = max(i for i, end in enumerate(ends) if end <= least or i == 0)
        return ends[begin : next(i for i, end in enumerate(ends) if end > high) + 1]
    step = -(-(last - first) // MOST_BINS)
    return [float(f"1e{p}") for p in range(first, last + step, step)]


def _edge_texts(edges: list[float]) -> list[str]:
    most, step = max(map(abs, edges)), edges[-1] - edges[-2]
    ratio = step / (edges[1] - edges[0])
    if 0.9 < ratio < 1.1 and step > 1e-6 and most < 1e12:  # even ones: the same decimals
        decimals = max(0, -math.floor(math.log10(step) + 1e-9))
        texts = [f"{edge:,.{decimals}f}" for edge in edges]
    else:
        texts = [number(edge) for edge in edges]
    return texts if len(set(texts)) == len(texts) else [repr(edge) for edge in edges]


def _right(texts: list[str]) -> list[str]:
    width = max(map(len, texts), default=0)
    return [text.rjust(width) for text in texts]


# Bars


def bar(share: float, width: int, on: Screen) -> str:
    """Return a bar of a share of a width. What is not 0 is seen."""
    if not on.blocks:
        full = round(share * width)
        return "#" * full if full or share <= 0 else "."
    eighths = round(share * width * 8) or (1 if share > 0 else 0)
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()


def gauge(share: float, width: int, on: Screen) -> str:
    """Return a bar of a share of a width, and what it leaves."""
    full = round(share * width)
    return ("█" if on.blocks else "#") * full + ("░" if on.blocks else ".") * (width - full)


def table(
    labels: Sequence[str],
    columns: Sequence[Sequence[str]],
    lengths: Sequence[float],
    on: Screen,
) -> list[str]:
    """Return a line for each label: its columns, as far as there is room, and a bar."""
    lines = [f"  {label}" for label in _right(list(labels))]
    for column in columns:
        longer = [f"{line}  {text}" for line, text in zip(lines, _right(list(column)), strict=True)]
        if longer and len(longer[0]) + 2 + _LEAST_BAR > on.width:
            break
        lines = longer
    room = on.width - len(lines[0]) - 2 if lines else 0
    most = max(lengths, default=0) or 1
    return [
        f"{line}  {bar(length / most, max(room, 1), on)}".rstrip()
        for line, length in zip(lines, lengths, strict=True)
    ]


def histogram(bins: Bins, on: Screen) -> list[str]:
    """Return a line for each bin: its label, its count, its share, and a bar."""
    total = sum(bins.counts)
    columns = [[f"{n:,}" for n in bins.counts], [percent(n, total) for n in bins.counts]]
    return table(bins.labels(), columns, bins.counts, on)


def sparkline(values: Sequence[float], on: Screen) -> str:
    """Return one character for each value, as high as the value is beside the largest."""
    levels = _LEVELS if on.blocks else _ASCII_LEVELS
    most = max(values, default=0) or 1
    return "".join(levels[round(max(value, 0) / most * (len(levels) - 1))] for value in values)


# Pictures


def picture(pixels: NDArray[Any], width: int, on: Screen) -> list[str]:
    """Return a picture of a matrix in shades, from its darkest to its lightest value."""
    high, wide = pixels.shape
    columns = min(width, 2 * wide, _PICTURE_COLUMNS)
    rows = max(1, round(columns * high / wide / 2))
    if rows > _PICTURE_ROWS:
        rows, columns = _PICTURE_ROWS, max(1, round(_PICTURE_ROWS * 2 * wide / high))
    across, down = _parts(wide, columns), _parts(high, rows)
    small = np.array([[pixels[y, x].mean() for x in across] for y in down], np.float64)
    low, high_value = float(small.min()), float(small.max())
    shades = _SHADES if on.blocks else _ASCII_SHADES
    spread = high_value - low
    light = (small - low) / spread if spread else np.full(small.shape, low / 255)
    levels = np.rint(light * (len(shades) - 1)).astype(int)
    return ["".join(shades[level] for level in row) for row in levels]


def _parts(length: int, parts: int) -> list[slice]:
    """Return where each of as many parts of a length begins and ends; none is empty."""
    begins = [length * i // parts for i in range(parts)]
    return [slice(b, max(b + 1, length * (i + 1) // parts)) for i, b in enumerate(begins)]
