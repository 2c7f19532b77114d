"""ShardedReplay and PrioritizedShardedReplay: how they are opened, and how each draws."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import ray
from numpy.typing import ArrayLike, NDArray

import diskreplay
from diskreplay.adapters.ray_shards.base_sharded_replay import BaseShardedReplay
from diskreplay.adapters.ray_shards.placing import STRATEGIES, start, stop
from diskreplay.adapters.ray_shards.shard import Facts, Settings
from diskreplay.adapters.ray_shards.shard_calls import ShardCalls

_QUEUE_BYTES = 64 << 20
_NOT_FOR_SHARDS = ("access", "if_exists", "keep_rows", "path", "sampler")


class _Opened(BaseShardedReplay[Any]):
    """How both kinds of sharded replays are opened, given to other processes, and closed."""

    _is_owner = True
    _group: Any = None

    def _open(
        self,
        n_shards: int,
        capacity: int,
        seed: int | None,
        directory: Any,
        placement: str | None,
        num_cpus: float,
        spread: str,
        queue_bytes: int,
        options: dict[str, Any],
    ) -> None:
        _check(n_shards, capacity, placement, spread, options)
        if seed is None:
            seed = int(np.random.SeedSequence().generate_state(1, np.uint64)[0])
        if isinstance(schema := options.get("schema"), diskreplay.Schema):
            options = {**options, "schema": dict(zip(schema.names, schema.fields, strict=True))}
        place = str(Path(directory).absolute())
        settings = [
            Settings(place, number, n_shards, capacity, self._kind, seed, options)
            for number in range(n_shards)
        ]
        if not ray.is_initialized():
            ray.init()
        self._closed = True  # until all are open
        actors, self._group = self._start_shards(settings, placement, num_cpus)
        self._calls = ShardCalls(place, actors)
        try:
            _open_all(self._calls, settings)
        except BaseException:
            self._end_shards()
            raise
        self._use(self._calls, settings[0], spread, queue_bytes)

    def _start_shards(
        self, settings: list[Settings], placement: str | None, num_cpus: float
    ) -> tuple[list[Any], Any]:
        return start(settings, placement, num_cpus)

    def _end_shards(self) -> None:
        with contextlib.suppress(ray.exceptions.RayError):
            self._calls.answers({n: self._calls.ask(n, "close") for n in self._calls.present}, None)
        stop(self._calls.actors, self._group)

    def __reduce__(self) -> tuple[Any, ...]:
        """Return a replay for another process, over the same shards.

        It pushes, draws and updates as this one does, from a random stream of its own; the
        annealing follows the draws of the process that made the replay, which also ends the
        shards.
        """
        self._check_open()
        settings = self._settings
        more = {name: getattr(self, name) for name in self._copied}
        return _copy, (
            type(self), self._calls.actors, settings, self._spread, self._queue_bytes, more
        )  # fmt: skip

    _copied: tuple[str, ...] = ()


class ShardedReplay(_Opened):
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
    placement:    "SPREAD", "STRICT_SPREAD", "PACK" or "STRICT_PACK" takes a placement group of Ray,
                  and a shard whose store is on a node of it comes to that node; None leaves the
                  place to Ray, for one node
    num_cpus:     that Ray reserves for each shard
    spread:       rows without env= go to the next shard with each episode ("episodes"), so that
                  episodes stay whole, or with each row ("rows"), evenly from the first row on, but
                  then each is an episode of its own. Rows of an env go to shard env % n_shards
    queue_bytes:  the most memory of rows that are pushed and not yet committed by their shard
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
        """Draw n sequences, see ReplayBuffer.sample_sequences; each lies within one shard.

        With pad=False the shards take part by all of their transitions, not by those that begin a
        whole sequence.
        """
        options = {"length": length, "pad": pad, "across": across}
        found: diskreplay.SequenceBatch = self._sequences(n, None, options)
        return found


class PrioritizedShardedReplay(_Opened):
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


def _check(
    n_shards: Any, capacity: Any, placement: Any, spread: Any, options: dict[str, Any]
) -> None:
    """Raise ArgumentError for arguments that shards cannot be opened with."""
    for name, value in (("n_shards", n_shards), ("capacity", capacity)):
        if type(value) is not int or value < 1:
            raise diskreplay.ArgumentError(
                f"{name} must be a whole number of at least 1 (found {value!r:.80})"
            )
    if capacity % n_shards:
        below = capacity // n_shards * n_shards
        raise diskreplay.ArgumentError(
            f"capacity must be a multiple of n_shards={n_shards} (found {capacity}): give "
            f"{below + n_shards}, or {below}"
        )
    if placement is not None and placement not in STRATEGIES:
        raise diskreplay.ArgumentError(
            f"placement must be None or one of {', '.join(STRATEGIES)} (found {placement!r:.80})"
        )
    if spread not in ("episodes", "rows"):
        raise diskreplay.ArgumentError(
            f"spread must be 'episodes' or 'rows' (found {spread!r:.80})"
        )
    if wrong := options.keys() & {*_NOT_FOR_SHARDS}:
        raise diskreplay.ArgumentError(
            f"a sharded replay takes no {', '.join(sorted(wrong))}: its shards are buffers that "
            "write alone, at directory/shard-<number>"
        )


def _open_all(calls: ShardCalls, settings: list[Settings]) -> None:
    """Open the stores of all shards, or make all of them where there is none."""
    numbers = range(len(settings))

    def opened(may_create: bool) -> dict[int, Facts | None]:
        refs = {n: calls.ask(n, "open", may_create=may_create) for n in numbers}
        found = calls.answers(refs, None)
        if calls.away:
            raise diskreplay.StorageError(f"the shards of {calls.place} cannot start: {calls.away}")
        return found

    found = opened(may_create=False)
    missing = [n for n, facts in found.items() if facts is None]
    there = [n for n, facts in found.items() if facts is not None and facts.written]
    if missing and there:
        raise diskreplay.MismatchError(
            f"{settings[missing[0]].path} is not there, while {settings[there[0]].path} holds "
            f"transitions ({len(missing)} of {len(settings)} shards are missing): bring the "
            "directories back to nodes of this cluster, one for each shard, or give a new directory"
        )
    if missing:
        found = opened(may_create=True)
    calls.facts = [facts for _, facts in sorted(found.items()) if facts is not None]


def _copy(
    kind: Any,
    actors: list[Any],
    settings: Settings,
    spread: str,
    queue_bytes: int,
    more: dict[str, Any],
) -> Any:
    """Return a replay over shards that another process has opened."""
    replay = kind.__new__(kind)
    replay._is_owner = False
    replay._copy_number = int(np.random.SeedSequence().generate_state(1)[0]) + 1
    replay._closed = True
    for name, value in more.items():
        setattr(replay, name, value)
    calls = ShardCalls(settings.directory, actors)
    calls.load()
    replay._use(calls, settings, spread, queue_bytes)
    return replay
