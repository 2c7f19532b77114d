"""Whether frequencies are those of a distribution.

The significance is 1e-3: a correct sampler passes for 999 of 1000 seeds.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.stats import chi2

SIGNIFICANCE = 1e-3


def chi_square(observed: Any, expected: Any) -> tuple[float, int]:
    """Pearson's statistic and its degrees of freedom, with bins pooled to 5 expected or more."""
    bins, waiting = [], np.zeros(2)
    for pair in np.stack([observed, expected], axis=1)[np.argsort(expected, kind="stable")]:
        waiting = waiting + pair
        if waiting[1] >= 5.0:
            bins.append(waiting)
            waiting = np.zeros(2)
    if bins:
        bins[-1] = bins[-1] + waiting
    return float(sum((found - wanted) ** 2 / wanted for found, wanted in bins)), len(bins) - 1


def assert_not_too_far(statistic: float, freedom: int) -> None:
    assert statistic <= chi2.ppf(1 - SIGNIFICANCE, max(1, freedom))


def assert_neither_too_far_nor_too_near(statistic: float, freedom: int) -> None:
    low, high = chi2.ppf([SIGNIFICANCE / 2, 1 - SIGNIFICANCE / 2], freedom)
    assert low <= statistic <= high
