"""Naive twins of the distributions, and draws by number as a buffer makes them."""

from __future__ import annotations

import bisect
import itertools
import math
from typing import Any

import numpy as np
from sampling import EPSILON, mass

from diskreplay import samplers
from diskreplay.live_range import LiveRange
from diskreplay.sampling import RandomStream, new_seed
from diskreplay.store import RunRanges

RUN_ENDS = [17, 70, 100, 120, 150]
RUNS = RunRanges([
    {"first": first, "end": end, "rows": end - first}
    for first, end in itertools.pairwise([0, *RUN_ENDS])
])  # fmt: skip


def shares(
    distribution: Any, live: LiveRange, priorities: list[float] | None, left_out: set[int]
) -> dict[int, float]:
    """Return P(i) of each live write id that can be drawn, by one formula after the other.

    priorities:  by write id, of all ever written; None in a uniform buffer
    """
    ids = [i for i in range(live.first, live.count) if i not in left_out]
    if isinstance(distribution, samplers.Newest):
        ids = [i for i in ids if i >= live.count - distribution.n]
    if isinstance(distribution, samplers.Range):
        end = live.count if distribution.end is None else distribution.end
        ids = [i for i in ids if distribution.first <= i < end]
    if isinstance(distribution, samplers.Runs):
        ids = [i for i in ids if bisect.bisect_right(RUN_ENDS, i) in distribution.numbers]
    if not ids:
        return {}
    if isinstance(distribution, samplers.Recent):
        ages = [live.count - 1 - i for i in ids]
        masses = [0.5 ** ((age - min(ages)) / distribution.half_life) for age in ages]
    elif isinstance(distribution, samplers.RankBased):
        masses = _rank_masses([priorities[i] for i in ids], distribution.alpha)
    elif isinstance(distribution, samplers.Epoch) or priorities is None:
        masses = [1.0] * len(ids)
    else:
        masses = [mass(priorities[i]) for i in ids]
    found = np.array(masses) / sum(masses)
    if isinstance(distribution, samplers.Mixed):
        found = distribution.uniform / len(ids) + (1 - distribution.uniform) * found
    return dict(zip(ids, found.tolist(), strict=True))


def _rank_masses(priorities: list[float], alpha: float) -> list[float]:
    """Return 1 / rank ** alpha of each priority, the mean of them among ties."""
    # The exponent, and the first five bits after the leading one, of a float of 24 bits.
    parts = [math.frexp(float(np.float32(float(np.float32(p)) + EPSILON))) for p in priorities]
    ties = [(exponent, math.floor(mantissa * 64)) for mantissa, exponent in parts]
    order = sorted(ties, reverse=True)
    found = []
    for tie in ties:
        ranks = range(1 + order.index(tie), 1 + order.index(tie) + order.count(tie))
        found.append(sum(rank**-alpha for rank in ranks) / len(ranks))
    return found


def drawn(sampler: Any, live: LiveRange, n: int, batches: int, seed: int = 1) -> tuple[Any, Any]:
    """Return write ids and probabilities of the draws 0, 1, ..., each of shape (batches, n)."""
    stream = RandomStream(new_seed(seed))
    draws = [sampler.draw(n, live, stream.of_draw(number)) for number in range(batches)]
    ids, probabilities = zip(*draws, strict=True)
    return np.stack(ids), np.stack(probabilities)
