"""What mypy says of the protocols: that buffers, limited ones and clients are a Replay."""

from __future__ import annotations

from diskreplay import (
    Batch,
    PrioritizedBatch,
    PrioritizedReplayBuffer,
    RateLimited,
    ReplayBuffer,
)
from diskreplay.adapters.ray_shards import PrioritizedShardedReplay, ShardedReplay
from diskreplay.protocols import Replay
from diskreplay.service.client import RemotePrioritizedReplayBuffer, RemoteReplayBuffer

uniform: type[Replay[Batch]] = ReplayBuffer
prioritized: type[Replay[PrioritizedBatch]] = PrioritizedReplayBuffer
limited: type[Replay[Batch]] = RateLimited[Batch]
remote_uniform: type[Replay[Batch]] = RemoteReplayBuffer
remote_prioritized: type[Replay[PrioritizedBatch]] = RemotePrioritizedReplayBuffer
sharded: type[Replay[Batch]] = ShardedReplay
prioritized_sharded: type[Replay[PrioritizedBatch]] = PrioritizedShardedReplay
