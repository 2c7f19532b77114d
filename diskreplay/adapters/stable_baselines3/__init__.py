"""Replay buffers on disk for Stable-Baselines3: `replay_buffer_class=` of DQN, SAC and others."""

from __future__ import annotations

import importlib

try:
    importlib.import_module("stable_baselines3")
except ModuleNotFoundError as error:
    if error.name != "stable_baselines3":
        raise
    raise ModuleNotFoundError(
        "diskreplay.adapters.stable_baselines3 needs stable-baselines3, which is not installed: "
        'pip install "diskreplay[sb3]"',
        name="stable_baselines3",
    ) from None

from diskreplay.adapters.stable_baselines3.her import HerDiskReplayBuffer
from diskreplay.adapters.stable_baselines3.prioritized_dqn import PrioritizedDQN
from diskreplay.adapters.stable_baselines3.replay_buffers import (
    DictDiskReplayBuffer,
    DiskReplayBuffer,
    PrioritizedDiskReplayBuffer,
    PrioritizedSamples,
)

__all__ = [
    "DictDiskReplayBuffer",
    "DiskReplayBuffer",
    "HerDiskReplayBuffer",
    "PrioritizedDQN",
    "PrioritizedDiskReplayBuffer",
    "PrioritizedSamples",
]
