"""Helpers of the tests of samplers."""

from __future__ import annotations

from typing import Any

import numpy as np

from diskreplay.sampling.priorities import checked_priorities
from diskreplay.sampling.prioritized import PrioritizedSampler as Sampler


def sampler(capacity: int, **changes: Any) -> Sampler:
    arguments = dict(alpha=0.6, beta_start=0.4, beta_end=1.0, beta_frames=100, epsilon=1e-6)  # noqa: C408
    return Sampler(capacity, **{**arguments, **changes})


def append(target: Sampler, first: int, priorities: list[float]) -> None:
    target.hold(first, len(priorities), checked_priorities(priorities, len(priorities)))


def mass(priority: float, alpha: float = 0.6, epsilon: float = 1e-6) -> float:
    return (float(np.float32(priority)) + epsilon) ** alpha


def tree_bytes(target: Sampler) -> list[bytes]:
    return [level.tobytes() for level in target._tree._levels]


def written(capacity: int, count: int, seed: int, **changes: Any) -> tuple[Sampler, int]:
    """A sampler of `count` write ids, some with new priorities since, and its oldest live one."""
    generator = np.random.default_rng(seed)
    target, at = sampler(capacity, **changes), 0
    while at < count:
        n = min(count - at, int(generator.integers(1, capacity // 2 + 2)))
        append(target, at, (generator.exponential(size=n) * generator.integers(0, 5, n)).tolist())
        at += n
    first = max(0, count - capacity)
    again = generator.integers(first, count, capacity // 5)
    new = checked_priorities(generator.exponential(3.0, again.size), again.size)
    assert target.update(again, new, first, count) == again.size
    return target, first
