"""Bars and lines of blocks, or else of plain ASCII."""

from __future__ import annotations

from collections.abc import Sequence

from diskreplay_tools.terminal.histograms import Bins, _right
from diskreplay_tools.terminal.numbers import percent
from diskreplay_tools.terminal.text import _EIGHTHS, _LEVELS, Screen

_ASCII_LEVELS = "_.:-=+*#"
_LEAST_BAR = 6


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
