"""Helpers of the tests of sampling."""

from __future__ import annotations

import numpy as np
import pytest

from diskreplay.live_range import LiveRange
from diskreplay.sampling import Priorities, SumTree, checked_priorities, sum_tree
from diskreplay.sampling.compiled_tree import CompiledTree, compiled_tree

EPSILON = 1e-6
# The steps of a tree that can be had here.
STEPS = {"numpy": None} | ({"compiled": compiled_tree()} if compiled_tree() else {})


def use_steps(patch: pytest.MonkeyPatch, steps: CompiledTree | None) -> None:
    """Let all trees use the compiled functions from their first call on, or numpy for None."""
    patch.setattr(SumTree, "_compiled", steps)
    patch.setattr(sum_tree, "compiled_tree", lambda: steps)


def new_priorities(capacity: int, *, alpha: float = 0.6) -> Priorities:
    return Priorities(capacity, alpha=alpha, epsilon=EPSILON)


def stage(target: Priorities, first: int, priorities: list[float]) -> None:
    target.stage(first, len(priorities), checked_priorities(priorities, len(priorities)))


def of_ones(capacity: int) -> tuple[Priorities, LiveRange]:
    """Full of transitions that were given no priority, and what is live."""
    target = new_priorities(capacity)
    target.stage(0, capacity, None)
    return target, LiveRange(capacity, 0, capacity)


def written(capacity: int, count: int, seed: int) -> tuple[Priorities, LiveRange]:
    """Priorities of `count` write ids, some of them updated since, and what is live."""
    generator = np.random.default_rng(seed)
    target, at = new_priorities(capacity), 0
    while at < count:
        n = min(count - at, int(generator.integers(1, capacity // 2 + 2)))
        stage(target, at, (generator.exponential(size=n) * generator.integers(0, 5, n)).tolist())
        at += n
    live = LiveRange(capacity, 0, count)
    again = generator.integers(live.first, count, capacity // 5)
    new = checked_priorities(generator.exponential(3.0, again.size), again.size)
    assert target.update(again, new, live) == again.size
    return target, live


def mass(priority: float, alpha: float = 0.6) -> float:
    return float((float(np.float32(priority)) + EPSILON) ** alpha)


def tree_bytes(tree: SumTree) -> list[bytes]:
    return [level.tobytes() for level in tree._levels]
