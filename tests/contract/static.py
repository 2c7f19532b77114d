"""What mypy says of the protocols: that both buffers, opened in any way, are a Replay."""

from __future__ import annotations

from diskreplay import Batch, PrioritizedBatch, PrioritizedReplayBuffer, ReplayBuffer
from diskreplay.protocols import Replay

uniform: type[Replay[Batch]] = ReplayBuffer
prioritized: type[Replay[PrioritizedBatch]] = PrioritizedReplayBuffer
