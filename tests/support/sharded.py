"""Sharded replays over actors that are used again, since Ray takes seconds to start each."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import ray

from diskreplay.adapters.ray_shards import PrioritizedShardedReplay, ShardedReplay
from diskreplay.adapters.ray_shards.messages import Settings
from diskreplay.adapters.ray_shards.shard import Shard

SUPPORT = str(Path(__file__).parent)
PYTHONPATH = filter(None, [os.environ.get("PYTHONPATH")])


def start_ray() -> None:
    """Start Ray for this process, unless it runs; it ends with the process."""
    if not ray.is_initialized():
        ray.init(
            num_cpus=2,
            object_store_memory=200e6,
            include_dashboard=False,
            logging_level="ERROR",
            log_to_driver=False,
            runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join([SUPPORT, *PYTHONPATH])}},
        )


def start_actors(n: int) -> None:
    """Start Ray and so many idle actors: no test may leave processes that it has started."""
    start_ray()
    _idle.extend(_ACTOR.remote(None, is_restarted=False) for _ in range(n - len(_idle)))
    ray.get([actor.close.remote() for actor in _idle])


class ShardInTurn(Shard):
    """A shard whose process is another one's afterwards."""

    def become(self, settings: Settings) -> None:
        self.close()
        Shard.__init__(self, settings, is_restarted=False)


_ACTOR = ray.remote(ShardInTurn).options(num_cpus=0, max_restarts=-1, max_task_retries=0)
_idle: list[Any] = []


class _InTurn:
    """How a replay takes actors that are idle, and leaves them."""

    _calls: Any

    def _start_shards(self, settings: list[Settings], *_: Any) -> tuple[list[Any], Any]:
        taken = [_idle.pop() for _ in settings]
        ray.get([a.become.remote(each) for a, each in zip(taken, settings, strict=True)])
        return taken, None

    def _end_shards(self) -> None:
        ray.get([actor.close.remote() for actor in self._calls.actors])
        _idle.extend(self._calls.actors)


class Sharded(_InTurn, ShardedReplay):
    """A uniform one."""


class PrioritizedSharded(_InTurn, PrioritizedShardedReplay):
    """A prioritized one."""
