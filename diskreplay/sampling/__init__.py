"""Sampling: draw write ids, uniformly or by priority, without reading transitions."""

from __future__ import annotations

from diskreplay.sampling.distribution import Distribution, Sampler, checked_distribution
from diskreplay.sampling.epoch import Epoch
from diskreplay.sampling.mixed import Mixed
from diskreplay.sampling.newest import Newest
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
from diskreplay.sampling.recent import Recent
from diskreplay.sampling.slot_table import PART_SLOTS, Blocks, SlotTable
from diskreplay.sampling.sum_tree import SumTree
from diskreplay.sampling.uniform import UniformSampler
from diskreplay.sampling.write_id_range import Range

__all__ = [
    "DEFAULT_PRIORITY",
    "PART_SLOTS",
    "Blocks",
    "Distribution",
    "Epoch",
    "Mixed",
    "Newest",
    "Priorities",
    "PrioritizedSampler",
    "PrioritySettings",
    "RandomStream",
    "Range",
    "Recent",
    "Sampler",
    "SlotTable",
    "SumTree",
    "UniformSampler",
    "Values",
    "checked_distribution",
    "checked_priorities",
    "importance_weights",
    "new_seed",
    "priorities_nbytes",
    "weights_of",
]
