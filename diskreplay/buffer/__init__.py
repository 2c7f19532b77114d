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
from diskreplay.buffer.batch_arrays import reused_arrays
from diskreplay.buffer.batch_form import BatchForm, checked_n_step
from diskreplay.buffer.batch_values import checked_pad
from diskreplay.buffer.batches import Batches
from diskreplay.buffer.marks import Mark
from diskreplay.buffer.open import open
from diskreplay.buffer.prioritized_replay_buffer import (
    PrioritizedReplayBuffer,
    checked_write_ids,
)
from diskreplay.buffer.replay_buffer import ReplayBuffer
from diskreplay.buffer.row_arguments import (
    extra_of,
    extras_of,
    refuse_plurals,
    refuse_singulars,
    refused_priorities,
)
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
    "BatchForm",
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
    "checked_n_step",
    "checked_pad",
    "checked_write_ids",
    "estimate",
    "extra_of",
    "extras_of",
    "live_write_ids",
    "open",
    "refuse_plurals",
    "refuse_singulars",
    "refused_priorities",
    "reused_arrays",
    "warn_of_disk",
    "with_extra",
]
