"""OpenedShards: how both kinds of sharded replays are opened, copied and closed."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import ray

import diskreplay
from diskreplay.adapters.ray_shards.base_sharded_replay import BaseShardedReplay
from diskreplay.adapters.ray_shards.messages import Facts, Settings
from diskreplay.adapters.ray_shards.placing import STRATEGIES, start, stop
from diskreplay.adapters.ray_shards.shard_calls import ShardCalls

_NOT_FOR_SHARDS = ("access", "if_exists", "keep_rows", "path", "sampler")


class OpenedShards(BaseShardedReplay[Any]):
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
