"""A replay in shards, for more than one machine: actors of Ray over stores of their own.

::

    directory/shard-0    the store of shard 0, on the disk of its node: rows 0, n, 2 n, ... of the
    directory/shard-1    whole; a write id of the whole is `local * n_shards + shard`

- A batch is drawn as from one buffer: the process that draws divides it over the shards by their
  masses, which come with each answer, and each shard draws its part from its own rows.
- Importance weights are those of the whole: P(i) is the share of the shard times P within it.
- What is pushed is acknowledged when its shard has committed it, and is stored once, whatever dies.
- Rows of an env, and so episodes, stay in one shard.
- A shard whose process dies is restarted by Ray, on the node of its store, and opens it again.
  Meanwhile batches come from the others, rows go to them, ShardAwayWarning tells of it, and `get`
  waits.
- Ray carries objects by pickle, within the cluster of the user; stores hold none.
"""

try:
    import ray  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "ray":
        raise
    raise ModuleNotFoundError(
        "diskreplay.adapters.ray_shards needs ray, which is not installed: "
        'pip install "diskreplay[ray]"',
        name="ray",
    ) from None

from diskreplay.adapters.ray_shards.messages import ShardAwayError
from diskreplay.adapters.ray_shards.shard_calls import ShardAwayWarning
from diskreplay.adapters.ray_shards.sharded_replay import PrioritizedShardedReplay, ShardedReplay

__all__ = ["PrioritizedShardedReplay", "ShardAwayError", "ShardAwayWarning", "ShardedReplay"]
