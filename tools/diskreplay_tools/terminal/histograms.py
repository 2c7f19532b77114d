"""Histograms: which bins values fall in, and the labels of the bins."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diskreplay_tools.terminal.numbers import number

MOST_BINS = 10
LOG_RATIO = 100.0  # of the largest value to the smallest: from there on bins grow by factors


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
