"""Ranges of numbers: those that are expected and not seen, and their words in messages."""

from __future__ import annotations

from collections.abc import Iterable


class ExpectedNumbers:
    """Expected numbers, as ascending ranges; finds the numbers that were not seen."""

    def __init__(self, ranges: Iterable[tuple[int, int]]) -> None:
        self._ranges = sorted((r for r in ranges if r[0] < r[1]), reverse=True)
        self.gaps: list[tuple[int, int]] = []

    def see(self, number: int) -> None:
        """Mark a number as seen; numbers come in ascending order."""
        while self._ranges and self._ranges[-1][0] <= number:
            low, high = self._ranges.pop()
            if low < min(number, high):
                self.gaps.append((low, min(number, high)))
            if number + 1 < high:
                self._ranges.append((number + 1, high))

    def missing(self) -> list[tuple[int, int]]:
        """Return the ranges of numbers that were not seen."""
        return self.gaps + self._ranges[::-1]


def range_text(thing: str, low: int, high: int) -> str:
    """Return the words for the things numbered from `low` up to `high`, which is left out."""
    return f"{thing} {low}" if high - low == 1 else f"{thing}s {low} to {high - 1}"


def merged(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the numbers of any ranges as ascending ranges without overlap.

    >>> merged([(5, 9), (0, 2), (1, 3), (9, 9)])
    [(0, 3), (5, 9)]
    """
    found: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if found and found[-1][1] >= low:
            found[-1] = (found[-1][0], max(found[-1][1], high))
        elif low < high:
            found.append((low, high))
    return found
