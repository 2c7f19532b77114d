"""ShardedReplay and PrioritizedShardedReplay: how each draws."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

import diskreplay
from diskreplay.adapters.ray_shards.opening import OpenedShards

_QUEUE_BYTES = 64 << 20


class ShardedReplay(OpenedShards):
    """A replay whose transitions are in shards: buffers in actors of Ray, on one node or many.

    Batches are drawn as from one ReplayBuffer of the whole capacity: with equal probability,
    without duplicates.

    >>> with ShardedReplay(2, 1_000_000, seed=1, directory="/data/replay") as replay:
    ...     replay.push([0.0], 0, 1.0, [1.0], False)
    ...     replay.flush()
    ...     batch = replay.sample(1)

    n_shards:     each is an actor, restarted by Ray when its process dies
    capacity:     of the whole, a multiple of n_shards
    seed:         of new shards; existing ones keep their own
    directory:    on the node of shard k its store is `directory/shard-<k>`
    placement:    "SPREAD", "STRICT_SPREAD", "PACK" or "STRICT_PACK" places new shards by a
                  placement group of Ray; a shard whose store is on a node comes to that node, and
                  stays there. None leaves the place to Ray, for one node
    num_cpus:     that Ray reserves for each shard
    spread:       rows without env= go to the next shard with each episode ("episodes"), so that
                  episodes stay whole, or with each row ("rows"), evenly from the first row on, but
                  then each is an episode of its own. Rows of an env go to shard env % n_shards
    queue_bytes:  the most memory of rows that are pushed and not yet committed by their shard, an
                  equal part of it for each
    options:      further arguments of the buffers, as durability=, schema= or window_bytes=
    """

    _kind = "uniform"

    def __init__(
        self,
        n_shards: int,
        capacity: int,
        seed: int | None = None,
        *,
        directory: Any,
        placement: str | None = None,
        num_cpus: float = 1,
        spread: str = "episodes",
        queue_bytes: int = _QUEUE_BYTES,
        **options: Any,
    ) -> None:
        self._open(
            n_shards, capacity, seed, directory, placement, num_cpus, spread, queue_bytes, options
        )

    def sample(
        self,
        batch_size: int,
        *,
        out: Any = None,
        pad: bool = False,
        n_step: int = 1,
        gamma: float = 0.99,
    ) -> diskreplay.Batch:
        """Draw transitions with equal probability, without duplicates in the batch.

        Rows come in the order of their shards. Raises SampleError when the shards that are there
        hold fewer, and ShardAwayError when none is. See ReplayBuffer.sample.
        """
        options = {"pad": pad, "n_step": n_step, "gamma": gamma}
        found: diskreplay.Batch = self._sampled(batch_size, out, None, options)
        return found

    def sample_sequences(
        self, n: int, length: int, *, pad: bool = True, across: bool = False
    ) -> diskreplay.SequenceBatch:
        """Draw n sequences, see ReplayBuffer.sample_sequences; each lies within one shard."""
        options = {"length": length, "pad": pad, "across": across}
        found: diskreplay.SequenceBatch = self._sequences(n, None, options)
        return found


class PrioritizedShardedReplay(OpenedShards):
    """A sharded replay that draws a transition in proportion to its mass, as one buffer does.

    See ShardedReplay, and PrioritizedReplayBuffer for the exponents.
    """

    _kind = "prioritized"
    _copied = ("_betas",)

    def __init__(
        self,
        n_shards: int,
        capacity: int,
        alpha: float = 0.6,
        beta_start: float = 0.4,
        beta_end: float = 1.0,
        beta_frames: int = 100_000,
        epsilon: float = 1e-6,
        seed: int | None = None,
        *,
        directory: Any,
        placement: str | None = None,
        num_cpus: float = 1,
        spread: str = "episodes",
        queue_bytes: int = _QUEUE_BYTES,
        **options: Any,
    ) -> None:
        with diskreplay.PrioritizedReplayBuffer(
            1, alpha, beta_start, beta_end, beta_frames, epsilon
        ):
            pass  # it refuses wrong numbers
        self._betas = (float(beta_start), float(beta_end), int(beta_frames))
        options = {"alpha": float(alpha), "epsilon": float(epsilon), **options}
        self._open(
            n_shards, capacity, seed, directory, placement, num_cpus, spread, queue_bytes, options
        )

    def sample(
        self,
        batch_size: int,
        beta: float | None = None,
        *,
        out: Any = None,
        pad: bool = False,
        n_step: int = 1,
        gamma: float = 0.99,
    ) -> diskreplay.PrioritizedBatch:
        """Draw transitions in proportion to their masses, one from each n-th of the whole mass.

        Weights are those of the whole, `(size * P(i)) ** -beta` over the largest of the batch, with
        P(i) the mass of the transition over that of all shards that are there. See
        ShardedReplay.sample.
        """
        options = {"pad": pad, "n_step": n_step, "gamma": gamma}
        self._check_beta(beta)
        found: diskreplay.PrioritizedBatch = self._sampled(batch_size, out, beta, options)
        return found

    def sample_sequences(
        self,
        n: int,
        length: int,
        *,
        pad: bool = True,
        across: bool = False,
        beta: float | None = None,
    ) -> diskreplay.PrioritizedSequenceBatch:
        """Draw n sequences by the priorities of their starts.

        See ShardedReplay.sample_sequences.
        """
        options = {"length": length, "pad": pad, "across": across}
        self._check_beta(beta)
        found: diskreplay.PrioritizedSequenceBatch = self._sequences(n, beta, options)
        return found

    def _check_beta(self, beta: Any) -> None:
        self._check_open()
        if beta is not None and not (type(beta) is float and 0.0 <= beta <= 1.0):
            with contextlib.suppress(diskreplay.SampleError):
                self._pushed.checker.sample(self._pushed.checker.capacity + 1, beta=beta)

    def _beta_of(self, beta: float | None) -> float | None:
        return self.beta if beta is None else float(beta)

    @property
    def frame(self) -> int:
        """The number of batches given to the process that made the replay, over all runs."""
        self._check_open()
        return self._frame

    @property
    def beta(self) -> float:
        """The exponent of the importance weights in the next batch."""
        begin, end, frames = self._betas
        return begin + (end - begin) * min(self.frame, frames) / frames

    @property
    def max_priority(self) -> float:
        """The largest priority so far, given to new transitions; 1.0 before the first one."""
        self._check_open()
        return self._largest_priority()

    def update_priorities(self, indices: ArrayLike, priorities: ArrayLike) -> int:
        """Set the priorities of transitions by write id, and return how many were applied.

        Each goes to the shard of its write id. Of a shard that is away none is applied, and
        `stats()["missed_updates"]` counts them: the transitions keep the priorities they had.
        Otherwise see PrioritizedReplayBuffer.update_priorities.
        """
        self._check_open()
        self._pushed.checker.update_priorities(indices, priorities)  # it checks them
        self._changed()
        write_ids = np.array(indices, np.int64)
        values = np.array(priorities, np.float64)
        shards = write_ids % self._n
        self._calls.look_for_the_away()
        refs = {
            number: self._calls.ask(
                number, "update", write_ids[shards == number] // self._n, values[shards == number]
            )
            for number in np.unique(shards).tolist()
            if number not in self._calls.away
        }
        found = self._calls.answers(refs)
        self._calls.load_facts({number: facts for number, (_, facts) in found.items()})
        self._missed_updates += sum(
            int((shards == number).sum()) for number in np.unique(shards).tolist()
            if number not in found
        )  # fmt: skip
        return sum(applied for applied, _ in found.values())

    def priorities(self, indices: ArrayLike) -> NDArray[np.float32]:
        """Return the raw priorities of transitions by write id, float32 of the shape of `indices`.

        Raises NotLiveError as `get` does.
        """
        self._check_open()
        ids = self._checked_ids(indices)
        flat = ids.reshape(-1)
        found = np.empty(flat.size, np.float32)
        for places, values in self._of_shards("priorities", flat).values():
            found[places] = values
        return found.reshape(ids.shape)

    def _priority_stats(self, found: dict[int, dict[str, Any]]) -> dict[str, Any]:
        live = [s for s in found.values() if s["size"]]
        size = sum(s["size"] for s in live)
        settings = self._settings.options
        begin, end, frames = self._betas
        return {
            "priority_min": min((s["priority_min"] for s in live), default=None),
            "priority_mean": (
                sum(s["priority_mean"] * s["size"] for s in live) / size if size else None
            ),
            "priority_max": max((s["priority_max"] for s in live), default=None),
            "max_priority": self._largest_priority(),
            "alpha": settings["alpha"],
            "beta_start": begin,
            "beta_end": end,
            "beta_frames": frames,
            "epsilon": settings["epsilon"],
            "beta": self.beta,
            "frame": self._frame,
        }
