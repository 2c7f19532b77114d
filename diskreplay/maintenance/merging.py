"""Merging: one new store of the transitions of several."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diskreplay.buffer import PathLike, PrioritizedReplayBuffer, ReplayBuffer
from diskreplay.buffer import open as open_buffer
from diskreplay.errors import ArgumentError, DamageError, MismatchError, NotLiveError, StorageError
from diskreplay.maintenance.sources import Progress
from diskreplay.schema import STANDARD_FIELDS, fields_of
from diskreplay.store import (
    Run,
    Store,
    Transaction,
    beside,
    holds_store,
    laid_over,
    ours,
    real_path,
)
from diskreplay.validation import checked_capacity, checked_path

Ints = NDArray[np.int64]
Buffer = ReplayBuffer | PrioritizedReplayBuffer

ORDERS = ("sequence", "interleaved")
_PART_BYTES = 4 << 20


@ours
def merge(
    paths: Iterable[PathLike],
    out: PathLike,
    *,
    order: str = "sequence",
    capacity: int | None = None,
    progress: Progress | None = None,
) -> int:
    """Write the transitions of several stores to a new one at `out`; return how many it holds.

    The stores must have the same kind and the same fields. Priorities are kept, and the table of
    runs says which run wrote what; write ids begin at 0. Settings are those of the first store, the
    largest priority is the largest of any, annealing and random stream begin anew. The stores are
    not changed.

    Cost: reads, checks and writes each transition once. Memory: 8 bytes a transition with order
    "sequence", 32 with "interleaved".

    Raises MismatchError when kinds or fields differ; NotAStoreError, LockedError and DamageError as
    `open`; StorageError when `out` is in use, the disk refuses, or a writer evicts what is still to
    be read. At `out` there is nothing then.

    >>> for name in ("runs/left", "runs/right"):
    ...     with ReplayBuffer(capacity=10, path=name) as buffer:
    ...         _ = buffer.push([0.0], 0, 1.0, [1.0], False)
    >>> merge(["runs/left", "runs/right"], "runs/both")
    2

    order:     "sequence", one store after the other; "interleaved", so that at any place in it each
               store has given its share of what it has
    capacity:  of the new store, by default as many as there are; of more, the last are kept
    progress:  called with transitions done and in all, now and then
    """
    target = real_path(checked_path(out))
    try:
        given = [] if isinstance(paths, str | bytes | os.PathLike) else [*paths]
    except Exception:  # an object may raise anything when it is asked for its parts
        given = []
    if not given:
        raise ArgumentError("merge() needs a list of the paths of stores, at least one")
    paths = [*map(checked_path, given)]
    if not isinstance(order, str) or order not in ORDERS:
        raise ArgumentError(f"order must be one of {', '.join(ORDERS)} (found {order!r})")
    capacity = None if capacity is None else checked_capacity(capacity)
    if holds_store(target):
        raise StorageError(f"{target} holds a store already: choose a new directory")
    with contextlib.ExitStack() as stack:
        sources = []
        for path in paths:
            buffer: Buffer = open_buffer(path, access="read", window_bytes=0)
            stack.callback(buffer.close)
            sources.append(_Source(buffer))
        _check_alike([source.buffer for source in sources])
        total = sum(source.size for source in sources)
        positions = _positions([source.size for source in sources], order)
        with beside(target) as place:
            _fill(place, sources, positions, capacity or max(1, total), progress)
            _put_runs(place, sources, positions)
    return min(total, capacity or total)


class _Source:
    """One of the stores, and which transitions of it are taken."""

    def __init__(self, buffer: Buffer) -> None:
        self.buffer = buffer
        stats = buffer.stats()
        self.size: int = stats["size"]
        self.first: int = stats["count"] - stats["size"]
        self.runs: list[dict[str, Any]] = stats["runs"]
        self.largest: float | None = stats.get("max_priority") if self.size else None
        self.taken = 0
        self._names = buffer.schema.names if buffer.schema else ()

    def take(self, n: int) -> dict[str, Any]:
        """Return the next n transitions as arguments of `extend`."""
        ids = np.arange(self.first + self.taken, self.first + self.taken + n)
        self.taken += n
        try:
            batch = self.buffer.get(ids)
            names = (f"{name}s" if name in STANDARD_FIELDS else name for name in self._names)
            columns: dict[str, Any] = dict(zip(names, batch, strict=True))
            if isinstance(self.buffer, PrioritizedReplayBuffer):
                columns["priorities"] = self.buffer.priorities(ids)
        except NotLiveError:
            raise StorageError(
                f"{self.buffer.path} was written to, and gave up what was still to be read: "
                "save() a copy, and merge that"
            ) from None
        return columns


def _check_alike(buffers: Sequence[Buffer]) -> None:
    """Raise MismatchError where stores cannot be one."""
    first = buffers[0]
    for other in buffers[1:]:
        if type(other) is not type(first):
            raise MismatchError(
                f"{other.path} is a {type(other).__name__} (expected {type(first).__name__}, as "
                f"{first.path}): only stores of one kind can be merged; "
                "diskreplay.convert() makes one of another kind"
            )
    with_schema = [buffer for buffer in buffers if buffer.schema is not None]
    for other in with_schema[1:]:
        found, expected = fields_of(other.schema or {}), fields_of(with_schema[0].schema or {})
        if found != expected:
            raise MismatchError(
                f"the fields of {other.path} are {other.schema} (expected {with_schema[0].schema}, "
                f"as {with_schema[0].path}): only stores of the same fields can be merged"
            )


def _positions(sizes: Sequence[int], order: str) -> list[Ints]:
    """Return, for each store, the new write ids of its transitions, ascending."""
    if order == "sequence":
        begins = np.cumsum([0, *sizes])
        return [np.arange(begins[i], begins[i + 1]) for i in range(len(sizes))]
    shares = np.concatenate([(np.arange(n) + 0.5) / max(n, 1) for n in sizes])
    places = np.empty(shares.size, np.int64)
    places[np.argsort(shares, kind="stable")] = np.arange(shares.size)
    return np.split(places, np.cumsum(sizes)[:-1])


def _fill(
    place: Path,
    sources: Sequence[_Source],
    positions: Sequence[Ints],
    capacity: int,
    progress: Progress | None,
) -> None:
    """Make a store of the transitions, in the order of their positions."""
    model = sources[0].buffer
    schema = next((s.buffer.schema for s in sources if s.buffer.schema is not None), None)
    settings: dict[str, Any] = dict(model._settings)
    total = sum(source.size for source in sources)
    step = max(1, _PART_BYTES // schema.payload_bytes) if schema and schema.payload_bytes else 1024
    buffer = type(model)(capacity, path=place, schema=schema, window_bytes=0, **settings)
    try:
        for low in range(0, total, step):
            high = min(low + step, total)
            buffer.extend(**_part(sources, positions, low, high))
            if progress is not None:
                progress(high, total)
        if isinstance(buffer, PrioritizedReplayBuffer):
            given = [source.largest for source in sources if source.largest is not None]
            if given:
                buffer._touch()
                buffer._sampler.raise_largest(np.array(given, np.float32))
    finally:
        buffer._close_at_last()  # nobody could try again


def _part(
    sources: Sequence[_Source], positions: Sequence[Ints], low: int, high: int
) -> dict[str, Any]:
    """Return the transitions of the positions [low, high) as arguments of `extend`."""
    places, parts = [], []
    for source, of_source in zip(sources, positions, strict=True):
        begin, end = np.searchsorted(of_source, [low, high]).tolist()
        if end > begin:
            places.append(of_source[begin:end])
            parts.append(source.take(end - begin))
    order = np.argsort(np.concatenate(places))
    return {name: np.concatenate([part[name] for part in parts])[order] for name in parts[0]}


def _put_runs(place: Path, sources: Sequence[_Source], positions: Sequence[Ints]) -> None:
    """Have the table of runs say who wrote the transitions first."""
    runs = [
        run
        for source, places in zip(sources, positions, strict=True)
        for run in _runs_of(source, places)
    ]
    state = sources[0].buffer._ring.state
    store = Store(place, access="exclusive", durability="full")
    try:

        def put(txn: Transaction) -> None:
            for number, run in enumerate(runs):
                txn.put_run(number, run)
            mine = {**txn.meta("state"), "runs": len(runs)}
            txn.put_meta({"state": laid_over(state, mine)})

        store.commit(put)
    finally:
        store.close()


def _runs_of(source: _Source, places: Ints) -> Iterator[dict[str, Any]]:
    for run in source.runs:
        try:
            Run.parse(0, run)
        except DamageError:
            continue  # verify tells it; the transitions are what they are
        if run["live"] is None:
            continue
        least, most = run["live"]
        if most:
            begin = max(run["first"] - source.first, 0)
            end = min(run["end"] - source.first, places.size)
            span = {"first": int(places[begin]), "end": int(places[end - 1]) + 1, "rows": most}
            kept = {name: run[name] for name in run if name not in ("live", "rows_least")}
            yield kept | span | ({"rows_least": least} if least < most else {})
