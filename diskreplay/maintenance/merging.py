"""Merging: write the transitions of several stores to one new store."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from uuid import uuid4

import numpy as np

from diskreplay.aliases import Columns, Ints, PathLike, Progress
from diskreplay.episodes import LinkValues, links_to
from diskreplay.errors import ArgumentError, DamageError, MismatchError, StorageError
from diskreplay.maintenance.building import StoreBuilder
from diskreplay.maintenance.sources import SoundStore
from diskreplay.sampling import Values, new_seed
from diskreplay.schema import Schema
from diskreplay.store import (
    Identity,
    Run,
    State,
    Store,
    beside,
    complete,
    holds_store,
    raising_own_errors,
    real_path,
    with_live,
)
from diskreplay.validation import check_word, checked_capacity, checked_path

ORDERS = ("sequence", "interleaved")


@raising_own_errors
def merge(
    paths: Iterable[PathLike],
    out: PathLike,
    *,
    order: str = "sequence",
    capacity: int | None = None,
    progress: Progress | None = None,
) -> int:
    """Write the transitions of several stores to a new store at `out`; return its size.

    The stores must have the same kind and the same fields; where these are kept, and how they are
    compressed, is as in the first store. Priorities and episodes are kept, and the table of runs
    tells which run wrote which transitions; write ids begin at 0. Settings are those of the first
    store, the largest priority is the largest of all stores, annealing and random stream begin
    anew. Notes are dropped, since those of several stores could contradict each other. The stores
    are not changed. One commit of each is read; until the end, their writers use none of its pages
    again, so that the files may grow.

    Cost: reads, checks and writes each transition once. Memory: 8 bytes a transition with order
    "sequence", 32 with "interleaved", and 60 MB.

    Raises MismatchError when kinds or fields differ; NotAStoreError, LockedError and DamageError as
    `open`; StorageError when `out` is in use, or the disk refuses or has too little room. After an
    error there is nothing at `out`.

    >>> for name in ("runs/left", "runs/right"):
    ...     with ReplayBuffer(capacity=10, path=name) as buffer:
    ...         _ = buffer.push([0.0], 0, 1.0, [1.0], False)
    >>> merge(["runs/left", "runs/right"], "runs/both")
    2

    order:     "sequence" puts one store after the other; "interleaved" mixes them evenly, in
               proportion to their sizes
    capacity:  capacity of the new store, by default the number of all transitions; of more
               transitions the last ones are kept
    progress:  called now and then with the numbers of transitions written and of all transitions
    """
    target = real_path(checked_path(out))
    try:
        given = [] if isinstance(paths, str | bytes | os.PathLike) else [*paths]
    except Exception:  # an object may raise anything when it is iterated
        given = []
    if not given:
        raise ArgumentError("merge() needs a list of the paths of stores, at least one")
    places = [*map(checked_path, given)]
    check_word("order", order, ORDERS)
    capacity = None if capacity is None else checked_capacity(capacity)
    if holds_store(target):
        raise StorageError(f"{target} holds a store already: choose a new directory")
    with contextlib.ExitStack() as stack:
        sources = []
        for path in places:
            store = Store(path)
            stack.callback(store.close)
            sources.append(SoundStore(store, stack.enter_context(store.snapshot())))
        schema = _common_schema(sources)
        positions = _positions([source.live.size for source in sources], order)
        total = sum(source.live.size for source in sources)
        runs = [
            run.to_plain()
            for source, of_source in zip(sources, positions, strict=True)
            for run in _runs_of(source, of_source)
        ]
        kind = sources[0].identity.kind
        identity = Identity(kind, max(1, total) if capacity is None else capacity, str(uuid4()))
        state = _merged_state(sources, total, len(runs))
        with (
            beside(target) as place,
            StoreBuilder(
                place, identity, state, schema, progress, log_bytes=_log_bytes(sources)
            ) as builder,
        ):
            for write_ids in builder.parts():
                columns, priorities, links = _rows(sources, positions, write_ids)
                builder.append_rows(int(write_ids[0]), columns, priorities, links)
            builder.finish(runs)
    return builder.live.size


def _common_schema(sources: Sequence[SoundStore]) -> Schema | None:
    """Return the schema of all stores; raise MismatchError if kinds or fields differ."""
    first = sources[0]
    for other in sources[1:]:
        if other.identity.kind != first.identity.kind:
            raise MismatchError(
                f"{other.path} is {other.identity.kind} (expected {first.identity.kind}, as "
                f"{first.path}): only stores of one kind can be merged; "
                "diskreplay.convert() changes the kind"
            )
    schemas = [(source.path, source.schema) for source in sources if source.schema is not None]
    for path, schema in schemas[1:]:
        if schema.types != schemas[0][1].types:  # wherever they are kept
            raise MismatchError(
                f"the fields of {path} are {schema} (expected {schemas[0][1]}, as "
                f"{schemas[0][0]}): only stores of the same fields can be merged"
            )
    return schemas[0][1] if schemas else None


def _log_bytes(sources: Sequence[SoundStore]) -> int:
    """Return the disk space that the observation log of the new store takes, about."""
    return sum(source.snapshot.disk_bytes("observations") for source in sources)


def _positions(sizes: Sequence[int], order: str) -> list[Ints]:
    """Return, for each store, the new write ids of its transitions, ascending."""
    if order == "sequence":
        begins = np.cumsum([0, *sizes])
        return [np.arange(begins[i], begins[i + 1]) for i in range(len(sizes))]
    shares = np.concatenate([(np.arange(n) + 0.5) / max(n, 1) for n in sizes])
    places = np.empty(shares.size, np.int64)
    places[np.argsort(shares, kind="stable")] = np.arange(shares.size)
    return np.split(places, np.cumsum(sizes)[:-1])


def _merged_state(sources: Sequence[SoundStore], count: int, runs: int) -> State:
    """Return the state of the new store, with the settings and unknown entries of the first."""
    first = sources[0].state
    largest = [source.state.max_priority for source in sources if source.live.size]
    return State(
        seed=new_seed(),
        settings=first.settings,
        count=count,
        commits=1,
        runs=runs,
        max_priority=max((n for n in largest if n is not None), default=None),
    ).keeping(first)


def _rows(
    sources: Sequence[SoundStore], positions: Sequence[Ints], write_ids: Ints
) -> tuple[Columns, Values | None, LinkValues]:
    """Return the transitions that get these write ids, their priorities, if any, and their links.

    The fields are in the order of the first store with a schema.
    """
    names = next(source.schema.names for source in sources if source.schema)
    places: list[Ints] = []
    columns: list[Columns] = []
    priorities: list[Values] = []
    links: list[LinkValues] = []
    for source, of_source in zip(sources, positions, strict=True):
        begin, end = np.searchsorted(of_source, [write_ids[0], write_ids[-1] + 1]).tolist()
        if source.schema is None or begin == end:
            continue
        old_ids = source.live.first + np.arange(begin, end)
        found = dict(zip(source.schema.names, source.columns(old_ids), strict=True))
        places.append(of_source[begin:end])
        columns.append([found[name] for name in names])
        before = np.arange(begin, end) - np.abs(source.links(old_ids).astype(np.int64))
        new = np.where(before >= 0, of_source[before], -1)
        links.append(links_to(new, of_source[begin:end], source.links(old_ids)))
        if source.identity.has_priorities:
            priorities.append(source.priorities(old_ids))
    order = np.argsort(np.concatenate(places))
    rows = [np.concatenate(column)[order] for column in zip(*columns, strict=True)]
    of_rows = np.concatenate(priorities)[order] if priorities else None
    return rows, of_rows, np.concatenate(links)[order]


def _runs_of(source: SoundStore, places: Ints) -> Iterator[Run]:
    """Yield the runs that wrote live transitions, with the new write ids of these."""
    first = source.live.first
    runs = with_live([*map(complete, source.snapshot.runs())], first, source.live.count)
    for number, plain in enumerate(runs):
        try:
            run = Run.parse(number, plain)
        except DamageError:
            continue  # verify reports the damage; the transitions are sound
        least, most = plain["live"] or (0, 0)
        if most:
            begin = max(run.first - first, 0)
            end = min(run.end - first, places.size)
            yield replace(
                run,
                first=int(places[begin]),
                end=int(places[end - 1]) + 1,
                rows=most,
                rows_least=least if least < most else None,
                plain={name: plain[name] for name in plain if name not in ("live", "rows_least")},
            )
