"""Buffer: replay buffers assembled from a store, rows in memory and a sampler."""

from __future__ import annotations

from diskreplay.buffer.batch import (
    Batch,
    Draw,
    Experience,
    PrioritizedBatch,
    PrioritizedSequenceBatch,
    SequenceBatch,
    with_extra,
)
from diskreplay.buffer.batches import Batches
from diskreplay.buffer.marks import Mark
from diskreplay.buffer.open import open
from diskreplay.buffer.prioritized_replay_buffer import PrioritizedReplayBuffer
from diskreplay.buffer.replay_buffer import ReplayBuffer
from diskreplay.buffer.scan import Scan, live_write_ids
from diskreplay.buffer.sizing import (
    DiskSpaceWarning,
    Estimate,
    check_batches_ahead,
    estimate,
    warn_of_disk,
)

__all__ = [
    "Batch",
    "Batches",
    "DiskSpaceWarning",
    "Draw",
    "Estimate",
    "Experience",
    "Mark",
    "PrioritizedBatch",
    "PrioritizedReplayBuffer",
    "PrioritizedSequenceBatch",
    "ReplayBuffer",
    "Scan",
    "SequenceBatch",
    "check_batches_ahead",
    "estimate",
    "live_write_ids",
    "open",
    "warn_of_disk",
    "with_extra",
]
