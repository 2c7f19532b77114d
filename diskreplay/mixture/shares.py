"""Shares: how much of a batch each source gives, and how many transitions that is."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from diskreplay.errors import ArgumentError, SampleError
from diskreplay.wording import shown

WeightsLike: TypeAlias = Mapping[str, float] | Callable[[int], Mapping[str, float]]
NEAR = 1e-9  # of a whole number: 0.1 * 30 is 3


class Shares:
    """The shares of the sources: fixed ones, those of a function, or those of their sizes."""

    def __init__(self, names: Sequence[str], weights: WeightsLike | None) -> None:
        self._names = names
        self._schedule = weights if callable(weights) else None
        self._fixed = None
        if weights is not None and self._schedule is None:
            self._fixed = self._checked(weights, "weights")

    def of(self, number: int, sizes: Sequence[int]) -> list[float]:
        """Return the share of each source in the batch of a number; their sum is 1.

        Raises SampleError where no source holds anything, ArgumentError for what a function of the
        user returned.
        """
        if self._fixed is not None:
            return self._fixed
        if self._schedule is not None:
            return self._checked(self._schedule(number), f"weights({number})")
        total = sum(sizes)
        if not total:
            raise SampleError(
                f"cannot draw: the sources {', '.join(map(repr, self._names))} hold no transitions"
            )
        return [size / total for size in sizes]

    def _checked(self, weights: Any, what: str) -> list[float]:
        """Return weights by name as shares in the order of the names, or raise ArgumentError."""
        if not isinstance(weights, Mapping):
            raise ArgumentError(
                f"{what} must give each source's share by its name, as "
                f"{dict.fromkeys(self._names, 1)} (found {shown(weights)})"
            )
        missing = [name for name in self._names if name not in weights]
        unknown = [name for name in weights if name not in self._names]
        if missing or unknown:
            raise ArgumentError(
                f"{what} must name each source, and 0 leaves one out (missing: "
                f"{', '.join(map(repr, missing)) or 'none'}; unknown: "
                f"{', '.join(map(shown, unknown)) or 'none'})"
            )
        found = [_checked_weight(what, name, weights[name]) for name in self._names]
        total = sum(found)
        if not 0.0 < total < math.inf:
            raise ArgumentError(f"{what} must have a sum above 0 (found {shown(weights)})")
        return [weight / total for weight in found]


def _checked_weight(what: str, name: str, value: Any) -> float:
    try:
        number = float("nan") if isinstance(value, str | bytes) else float(value)
    except Exception:  # an object may raise anything when it is converted
        number = float("nan")
    if not 0.0 <= number < math.inf:
        raise ArgumentError(
            f"{what}[{name!r}] must be a finite number of at least 0 (found {shown(value)})"
        )
    return number


def exact_counts(n: int, shares: Sequence[float], generator: np.random.Generator) -> list[int]:
    """Return how many of n transitions each source gives: `n * share`, rounded down or up.

    The sum is n, and the mean of each count over the random numbers is `n * share`: the counts are
    the whole numbers between the ends of the shares on a line that is moved by one random number.
    Source: systematic sampling, Madow, On the theory of systematic sampling II, 1949.
    """
    counts = []
    shift, end, before = generator.random(), 0.0, 0
    for share in shares[:-1]:
        end += share * n
        whole = round(end)
        if abs(end - whole) >= NEAR * n:
            whole = int(end) + (end % 1.0 + shift >= 1.0)
        counts.append(whole - before)
        before = whole
    return [*counts, n - before]


def mean_counts(n: int, shares: Sequence[float], generator: np.random.Generator) -> list[int]:
    """Return how many of n transitions each source gives, where the source of each is drawn."""
    counts = np.zeros(len(shares), np.int64)
    of = np.array(shares)
    [drawn] = np.nonzero(of)
    counts[drawn] = generator.multinomial(n, of[drawn])
    return counts.tolist()
