"""diskreplay: an experience-replay buffer that lives on disk."""

from diskreplay.batch import Batch, Draw, Experience, PrioritizedBatch
from diskreplay.batches import Batches
from diskreplay.buffer import PrioritizedReplayBuffer, ReplayBuffer, open
from diskreplay.errors import (
    ArgumentError,
    ClosedError,
    DamageError,
    DiskReplayError,
    FormatVersionError,
    LockedError,
    MismatchError,
    NotAStoreError,
    NotLiveError,
    PriorityError,
    ReadOnlyError,
    SampleError,
    SchemaError,
    StorageError,
)
from diskreplay.estimation import DiskSpaceWarning, Estimate, estimate
from diskreplay.merging import merge
from diskreplay.pinned_pages import PinnedPagesWarning
from diskreplay.priorities import importance_weights
from diskreplay.rescue import Repair, repair
from diskreplay.rewriting import Rewritten, compact, convert, resize
from diskreplay.schema import Field, Schema
from diskreplay.sum_tree import SumTree
from diskreplay.verification import verify
from diskreplay.version import __version__
from diskreplay.waiting import WaitingWarning

__all__ = [
    "ArgumentError",
    "Batch",
    "Batches",
    "ClosedError",
    "DamageError",
    "DiskReplayError",
    "DiskSpaceWarning",
    "Draw",
    "Estimate",
    "Experience",
    "Field",
    "FormatVersionError",
    "LockedError",
    "MismatchError",
    "NotAStoreError",
    "NotLiveError",
    "PinnedPagesWarning",
    "PrioritizedBatch",
    "PrioritizedReplayBuffer",
    "PriorityError",
    "ReadOnlyError",
    "Repair",
    "ReplayBuffer",
    "Rewritten",
    "SampleError",
    "Schema",
    "SchemaError",
    "StorageError",
    "SumTree",
    "WaitingWarning",
    "__version__",
    "compact",
    "convert",
    "estimate",
    "importance_weights",
    "merge",
    "open",
    "repair",
    "resize",
    "verify",
]
