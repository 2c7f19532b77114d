"""What mypy says of the protocols: that the buffers, opened in any way or limited, are a Replay."""

from __future__ import annotations

from diskreplay import (
    Batch,
    PrioritizedBatch,
    PrioritizedReplayBuffer,
    RateLimited,
    ReplayBuffer,
)
from diskreplay.protocols import Replay

uniform: type[Replay[Batch]] = ReplayBuffer
prioritized: type[Replay[PrioritizedBatch]] = PrioritizedReplayBuffer
limited: type[Replay[Batch]] = RateLimited[Batch]
