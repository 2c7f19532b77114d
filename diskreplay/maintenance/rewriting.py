"""Rewriting: a store's data file made anew, with its pages in order, in place of the old one.

::

    PATH/
      .diskreplay-rewritten-*/store/
                                 a whole store, built while PATH is held alone
      data.mdb  lock.mdb         replaced by those of the new store, by renaming

Whoever looks sees the old data file or the new one, also after a kill. What a kill leaves behind is
removed by the next rewriting.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diskreplay.buffer import estimate
from diskreplay.errors import (
    ArgumentError,
    DamageError,
    DiskReplayError,
    LockedError,
    MismatchError,
    StorageError,
)
from diskreplay.live_range import BLOCK_SLOTS, block_span, slot_spans
from diskreplay.maintenance.verification import Progress
from diskreplay.records import BLOCK_BYTES, Codec, new_grouping, schema_facts, stored_grouping
from diskreplay.sampling import DEFAULTS, Blocks, Priorities, PrioritizedSampler, block_of
from diskreplay.schema import Schema
from diskreplay.store import (
    ALONE,
    DATA,
    FORMAT,
    HIDDEN,
    KINDS,
    LOCK,
    Identity,
    Snapshot,
    State,
    Store,
    StoreDirectory,
    Transaction,
    explained,
    identity_of,
    make_known,
    ours,
    raise_format,
    state_of,
    sync,
    work_directory,
)
from diskreplay.validation import checked_capacity, checked_path
from diskreplay.wording import count_of, human

PathLike = str | os.PathLike[str]

_NEW = f"{HIDDEN}rewritten-"
_PRIORITY = 1.0  # of new transitions where there was none before
_CHUNK_BYTES = 1 << 20
_COMMIT_BYTES = 16 << 20
_OTHER_BYTES = 1 << 20  # facts, runs, and what the parts of the file leave free


@dataclass(frozen=True)
class Rewritten:
    """What `compact`, `resize` and `convert` did.

    size:          transitions that are live now
    dropped:       transitions that were live before, and are not any more
    before_bytes:  the size of the data file before
    after_bytes:   its size now
    """

    size: int
    dropped: int
    before_bytes: int
    after_bytes: int

    def __str__(self) -> str:
        dropped = f", {self.dropped:,} dropped" * (self.dropped > 0)
        return (
            f"{count_of(self.size, 'transition')}{dropped}\n"
            f"data file: {human(self.before_bytes)} before, {human(self.after_bytes)} now"
        )


@ours
def compact(path: PathLike, *, progress: Progress | None = None) -> Rewritten:
    """Write the data file of a store anew, without free pages and with its pages in order.

    A data file never shrinks by itself: pages that commits, `clear` or the engine have freed stay
    in it for later. Nothing else changes: a run goes on as it would have. It reads and checks every
    record. A kill at any moment leaves the old store or the new one, whole.

    Cost: reads and writes what is live, about 3 seconds for a million transitions
    of 500 bytes, and needs the disk space of a second
    data file meanwhile. Memory: 8 bytes a slot in use where it is prioritized, and 50 MB.

    Raises LockedError, naming them, when others have the store open; DamageError when something in
    it is damaged (`repair` copies the rest); StorageError when the disk has too little room.
    The store is as it was then.

    >>> with ReplayBuffer(capacity=10, path="runs/long") as buffer:
    ...     _ = buffer.push(state=[0.0], action=0, reward=1.0, next_state=[1.0], done=False)
    >>> compact("runs/long").size
    1

    progress:  called with transitions done and in all, now and then
    """
    return _rewrite(checked_path(path), progress)


@ours
def resize(path: PathLike, capacity: int, *, progress: Progress | None = None) -> Rewritten:
    """Give a store another capacity; of more transitions than that, the newest are kept.

    They keep their write ids and priorities. Otherwise as `compact`, in cost and errors.

    >>> with ReplayBuffer(capacity=10, path="runs/short") as buffer:
    ...     for reward in range(8):
    ...         _ = buffer.push(state=[0.0], action=0, reward=reward, next_state=[1.0], done=False)
    >>> resize("runs/short", 5).dropped
    3
    >>> len(open("runs/short"))
    5
    """
    return _rewrite(checked_path(path), progress, capacity=checked_capacity(capacity))


@ours
def convert(
    path: PathLike, kind: str, *, progress: Progress | None = None, **settings: float
) -> Rewritten:
    """Make a uniform store a prioritized one, or a prioritized one uniform.

    Transitions, write ids, runs and the random stream stay what they are. Each transition gets the
    priority 1.0, as if it had just been pushed, and the annealing begins; or all priorities are
    dropped, with their settings. Otherwise as `compact`, in cost and errors.

    Raises MismatchError when the store is of that kind already, and ArgumentError for settings that
    are out of their range or, of a uniform store, for any; nothing is changed then.

    >>> with ReplayBuffer(capacity=10, path="runs/kind") as buffer:
    ...     _ = buffer.push(state=[0.0], action=0, reward=1.0, next_state=[1.0], done=False)
    >>> convert("runs/kind", "prioritized", alpha=0.7).size
    1
    >>> open("runs/kind").priorities([0])
    array([1.], dtype=float32)

    kind:      "prioritized" or "uniform"
    settings:  of a prioritized store, as its constructor takes them and with its defaults: alpha,
               beta_start, beta_end, beta_frames, epsilon
    """
    if kind not in KINDS:
        raise ArgumentError(f"kind must be one of {', '.join(KINDS)} (found {kind!r})")
    names = DEFAULTS if kind == "prioritized" else {}
    if unknown := settings.keys() - names.keys():
        has = f"expected some of {', '.join(names)}" if names else "it has no settings of its own"
        raise ArgumentError(f"{min(unknown)!r} is no setting of a {kind} store: {has}")
    return _rewrite(checked_path(path), progress, kind=kind, settings=settings)


def _rewrite(
    path: Path,
    progress: Progress | None,
    *,
    capacity: int | None = None,
    kind: str | None = None,
    settings: Mapping[str, float] | None = None,
) -> Rewritten:
    store = Store(path, access=ALONE)
    try:
        _sweep(path)
        before = store.disk_bytes()
        with store.snapshot() as snapshot:
            found = _Contents(snapshot, store)
            target = found.identity._replace(capacity=capacity or found.identity.capacity)
            if kind is not None:
                if kind == target.kind:
                    raise MismatchError(f"{path} is {kind} already: open() takes other settings")
                target = target._replace(kind=kind)
                found.become(kind, settings or {})
            if target.kind == "prioritized":
                found.sampler(target.capacity)  # or a buffer of that capacity could not be opened
            size = min(found.state.count - found.first, target.capacity)
            _check_room(path, found.schema, size, target)
            _check_owner(path)
            try:
                with work_directory(path, _NEW) as hidden:
                    found.write(hidden / "store", target, progress or (lambda done, total: None))
                    if store.format < FORMAT:
                        raise_format(path)
                    _swap(hidden / "store", path)
            except OSError as error:
                if isinstance(error, LockedError):
                    raise
                is_ours = isinstance(error, DiskReplayError)
                reason = str(error) if is_ours else explained(error, path)
                raise StorageError(
                    f"cannot write a new data file for {path}, which is as it was: {reason}"
                ) from None
        dropped = found.state.count - found.first - size
        return Rewritten(size, dropped, before, store.disk_bytes())
    finally:
        store.close()


class _Contents:
    """What is live in a snapshot of a store, and where it goes in another one."""

    def __init__(self, snapshot: Snapshot, store: Store) -> None:
        self._snapshot = snapshot
        self._facts = snapshot.facts()
        self.identity: Identity = identity_of(store.identity)
        self.state: State = state_of(self._facts.get("state"), self.identity.kind)
        self.first = self.state.first(self.identity.capacity)
        self._new_state: dict[str, Any] = dict(self.state.plain)
        plain = self._facts.get("schema")
        self.schema: Schema | None = (
            None if plain is None else Schema.from_stored(plain, str(store.path))
        )
        if self.schema is None and self.state.count:
            raise DamageError("the schema is missing: repair() copies what can be read")
        self._codec = Codec(self.schema) if self.schema else None
        if self._codec is not None:
            self._before = stored_grouping(
                self._facts.get("layout"),
                snapshot.some_values,
                self._codec,
                self.identity.capacity,
                str(store.path),
            )
            self._after = new_grouping(self._codec.schema)

    def become(self, kind: str, settings: Mapping[str, float]) -> None:
        """Have the state of a buffer of another kind in which the transitions are all new."""
        state = self.state.plain
        kept = {k: v for k, v in state["settings"].items() if k not in DEFAULTS}
        news = {k: v for k, v in state["sampler"].items() if k not in ("frame", "max_priority")}
        self._new_state |= {"sampler": news, "settings": kept}
        if kind == "prioritized":
            self._new_state["settings"] = {**kept, **DEFAULTS, **settings}
            sampler = self.sampler(self.identity.capacity)
            if self.first < self.state.count:
                sampler.raise_largest(np.array([_PRIORITY], np.float32))
            self._new_state |= {
                "sampler": news | sampler.state(),
                "settings": kept | sampler.settings(),
            }

    def sampler(self, capacity: int) -> PrioritizedSampler:
        """Return an empty sampler of a capacity; raise ArgumentError when memory has no room."""
        settings = {**DEFAULTS, **self._new_state["settings"]}
        return PrioritizedSampler(capacity, **{name: settings[name] for name in DEFAULTS})

    def write(self, place: Path, target: Identity, progress: Progress) -> None:
        """Make a store at `place` of what is live, or of the newest of it."""
        count, capacity = self.state.count, target.capacity
        first = max(self.first, count - capacity)
        Store.create(place, {**self._facts["identity"], **target._asdict()}, {})
        store = Store(place, access="exclusive", durability="process")
        try:
            done = 0
            for begin, end in self._parts(first, count, capacity):
                put = functools.partial(self._put, begin=begin, end=end, capacity=capacity)
                store.commit(put, (end - begin) * self._codec.record_bytes if self._codec else 0)
                done += end - begin
                progress(done, count - first)
            put = functools.partial(self._put_facts, first=first, target=target)
            store.commit(put, -(-capacity // BLOCK_SLOTS) * BLOCK_BYTES)
        finally:
            store.close()

    def _new_facts(self, start: int) -> dict[str, Any]:
        """Return all facts but the identity, of which layout and start are others now."""
        facts = {name: fact for name, fact in self._facts.items() if name != "identity"}
        if self.schema is not None:
            new = schema_facts(self.schema, self._after)
            facts |= {**new, "layout": {**facts.get("layout", {}), **new["layout"]}}
        return {**facts, "state": {**self._new_state, "start": start}}

    def _parts(self, first: int, count: int, capacity: int) -> Iterator[tuple[int, int]]:
        """Yield ranges of write ids, each for a commit, in the order of their new slots."""
        most = max(1, _COMMIT_BYTES // self._codec.record_bytes) if self._codec else 1
        spans = list(slot_spans(first, count, capacity, most))
        ids = np.cumsum([first, *(span.stop - span.start for span in spans)]).tolist()
        for index in sorted(range(len(spans)), key=lambda index: spans[index].start):
            yield ids[index], ids[index + 1]

    def _put_facts(self, txn: Transaction, first: int, target: Identity) -> None:
        if target.kind == "prioritized":
            txn.put_blocks(self._blocks(first, target.capacity))
        for number, run in enumerate(self._snapshot.runs()):
            txn.put_run(number, run)
        txn.put_meta(self._new_facts(max(first, self.state.start)))
        txn.put_others(self._snapshot)

    def _put(self, txn: Transaction, begin: int, end: int, capacity: int) -> None:
        codec = self._codec
        if codec is None:
            return
        step = max(1, _CHUNK_BYTES // codec.record_bytes)
        for at in range(begin, end, step):
            ids = np.arange(at, min(at + step, end))
            slots = ids % self.identity.capacity
            records = self._snapshot.records(slots, self._before)
            faults = codec.faults(records, ids, slots)
            if faults:
                raise DamageError(
                    f"{faults[0]}: nothing was changed; diskreplay.repair() copies the others"
                )
            txn.put_records(capacity, at, list(map(bytes, records)), self._after)

    def _blocks(self, first: int, capacity: int) -> Blocks:
        """Return the priorities of the write ids from `first` on, by their slots of a capacity."""
        count, before = self.state.count, self.identity.capacity
        old: Priorities = np.zeros(before, np.float32)
        live = _block_numbers(first, count, before)
        if self.identity.kind != "prioritized":
            for span in slot_spans(first, count, before, before):
                old[span] = _PRIORITY
            return Blocks(old, live)
        for number, content in self._snapshot.blocks_one_by_one(live).items():
            old[block_span(number, before)] = block_of(number, content, before)
        if capacity == before:
            return Blocks(old, live)
        new: Priorities = np.zeros(capacity, np.float32)
        for begin in range(first, count, BLOCK_SLOTS):
            ids = np.arange(begin, min(begin + BLOCK_SLOTS, count))
            new[ids % capacity] = old[ids % before]
        return Blocks(new, _block_numbers(first, count, capacity))


def _block_numbers(first: int, count: int, capacity: int) -> list[int]:
    numbers: set[int] = set()
    for span in slot_spans(first, count, capacity, capacity):
        numbers.update(range(span.start // BLOCK_SLOTS, (span.stop - 1) // BLOCK_SLOTS + 1))
    return sorted(numbers)


def _check_room(path: Path, schema: Schema | None, size: int, target: Identity) -> None:
    """Raise StorageError when the disk has no room for a second data file."""
    if schema is None or not size:
        return
    found = estimate(schema, size, prioritized=target.kind == "prioritized")
    needed = found.records_disk_bytes + found.priorities_disk_bytes + _OTHER_BYTES
    free = shutil.disk_usage(path).free
    if free < needed:
        raise StorageError(
            f"{path} needs {human(needed)} for a second data file meanwhile (found {human(free)} "
            "free): make room, or save() it to another disk"
        )


def _check_owner(path: Path) -> None:
    """Raise StorageError when the new files could not belong to whom the old ones belong to."""
    owner = os.stat(path / DATA).st_uid
    if os.geteuid() not in (0, owner):
        raise StorageError(
            f"{path / DATA} belongs to user {owner}, and a new one would belong to user "
            f"{os.geteuid()}: let its owner do that, or save() a copy"
        )


def _sweep(path: Path) -> None:
    """Remove the directories that killed rewritings have left; a link of such a name stays."""
    with contextlib.suppress(OSError), StoreDirectory(path) as directory:
        for name in directory.names():
            if name.startswith(_NEW):
                directory.remove_tree(name)


def _swap(place: Path, path: Path) -> None:
    """Put the data file of the store at `place` in the place of that of the store at `path`."""
    with StoreDirectory(path) as old, StoreDirectory(place) as new:
        for name in (DATA, LOCK):
            status = old.status(name)
            with contextlib.suppress(PermissionError):  # a group that its owner is not in any more
                new.own(name, -1, status.st_gid)
            if os.geteuid() == 0:
                new.own(name, status.st_uid, status.st_gid)
            new.permit(name, status.st_mode & 0o777)
        sync(place / DATA)
        # A lock file tells which of two meta pages is the newer: it must not be that of another.
        old.unlink(LOCK)
        new.move(DATA, old)
        new.move(LOCK, old)
        sync(path)
    make_known(path)
