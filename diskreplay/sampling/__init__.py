"""Sampling: draw write ids, uniformly or by priority, without reading transitions."""

from __future__ import annotations

from diskreplay.sampling.at_most import AtMost
from diskreplay.sampling.distribution import (
    Distribution,
    DrawBasis,
    Sampler,
    checked_distribution,
)
from diskreplay.sampling.draw_counts import DrawCounts
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
    PrioritySettings,
    importance_weights,
    weights_of,
)
from diskreplay.sampling.random_stream import RandomStream, new_seed
from diskreplay.sampling.rank_based import RankBased
from diskreplay.sampling.recent import Recent
from diskreplay.sampling.restricted import Usual
from diskreplay.sampling.slot_table import PART_SLOTS, Blocks, SlotTable, ValueT, slot_table_nbytes
from diskreplay.sampling.sum_tree import SumTree
from diskreplay.sampling.write_id_range import Range
from diskreplay.sampling.written_by import Runs

__all__ = [
    "DEFAULT_PRIORITY",
    "PART_SLOTS",
    "AtMost",
    "Blocks",
    "Distribution",
    "DrawBasis",
    "DrawCounts",
    "Epoch",
    "Mixed",
    "Newest",
    "Priorities",
    "PrioritySettings",
    "RandomStream",
    "Range",
    "RankBased",
    "Recent",
    "Runs",
    "Sampler",
    "SlotTable",
    "SumTree",
    "Usual",
    "ValueT",
    "Values",
    "checked_distribution",
    "checked_priorities",
    "importance_weights",
    "new_seed",
    "priorities_nbytes",
    "slot_table_nbytes",
    "weights_of",
]
