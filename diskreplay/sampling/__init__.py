"""Sampling: draw write ids, uniformly or by priority, without reading transitions."""

from __future__ import annotations

from diskreplay.sampling.priorities import (
    DEFAULT_PRIORITY,
    Priorities,
    Values,
    checked_priorities,
    priorities_nbytes,
)
from diskreplay.sampling.prioritized import (
    PrioritizedSampler,
    PrioritySettings,
    importance_weights,
    weights_of,
)
from diskreplay.sampling.random_stream import RandomStream, new_seed
from diskreplay.sampling.slot_table import PART_SLOTS, Blocks, SlotTable
from diskreplay.sampling.sum_tree import SumTree
from diskreplay.sampling.uniform import UniformSampler

__all__ = [
    "DEFAULT_PRIORITY",
    "PART_SLOTS",
    "Blocks",
    "Priorities",
    "PrioritizedSampler",
    "PrioritySettings",
    "RandomStream",
    "SlotTable",
    "SumTree",
    "UniformSampler",
    "Values",
    "checked_priorities",
    "importance_weights",
    "new_seed",
    "priorities_nbytes",
    "weights_of",
]
