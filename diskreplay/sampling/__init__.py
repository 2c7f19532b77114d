"""Sampling: the sum-tree, the priorities and the random stream. It knows write ids, and no data."""

from __future__ import annotations

from diskreplay.sampling.priorities import (
    Blocks,
    Priorities,
    block_of,
    checked_priorities,
    importance_weights,
    weights_of,
)
from diskreplay.sampling.prioritized import (
    DEFAULTS,
    PrioritizedSampler,
    UniformSampler,
    side_table_nbytes,
)
from diskreplay.sampling.random_stream import (
    generator_from_plain,
    generator_to_plain,
    new_generator,
)
from diskreplay.sampling.sum_tree import SumTree

__all__ = [
    "DEFAULTS",
    "Blocks",
    "Priorities",
    "PrioritizedSampler",
    "SumTree",
    "UniformSampler",
    "block_of",
    "checked_priorities",
    "generator_from_plain",
    "generator_to_plain",
    "importance_weights",
    "new_generator",
    "side_table_nbytes",
    "weights_of",
]
