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
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np

from diskreplay.aliases import Ints, PathLike
from diskreplay.errors import (
    ArgumentError,
    DiskReplayError,
    LockedError,
    MismatchError,
    StorageError,
)
from diskreplay.maintenance.building import StoreBuilder
from diskreplay.maintenance.sources import Progress, SoundStore
from diskreplay.sampling import PrioritySettings, Values
from diskreplay.store import (
    ALONE,
    DATA,
    FORMAT,
    HIDDEN,
    KINDS,
    LOCK,
    Identity,
    State,
    Store,
    StoreDirectory,
    explained,
    make_known,
    raise_format,
    raising_own_errors,
    sync,
    work_directory,
)
from diskreplay.validation import check_word, checked_capacity, checked_path
from diskreplay.wording import count_of, human

# What a store becomes, in which of its transitions may be fewer.
Change: TypeAlias = Callable[[SoundStore], tuple[Identity, State]]

_NEW = f"{HIDDEN}rewritten-"
_PRIORITY = 1.0  # of new transitions where there was none before


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


@raising_own_errors
def compact(path: PathLike, *, progress: Progress | None = None) -> Rewritten:
    """Write the data file of a store anew, without free pages and with its pages in order.

    A data file never shrinks by itself: pages that commits, `clear` or the engine have freed stay
    in it for later. Nothing else changes: a run goes on as it would have. It reads and checks every
    record. A kill at any moment leaves the old store or the new one, whole.

    Cost: reads and writes what is live, about 3 seconds for a million transitions of 500 bytes, and
    needs the disk space of a second data file meanwhile. Memory: 50 MB.

    Raises LockedError, naming them, when others have the store open; DamageError when something in
    it is damaged (`repair` copies the rest); StorageError when the disk has too little room.
    The store is as it was then.

    >>> with ReplayBuffer(capacity=10, path="runs/long") as buffer:
    ...     _ = buffer.push(state=[0.0], action=0, reward=1.0, next_state=[1.0], done=False)
    >>> compact("runs/long").size
    1

    progress:  called with transitions done and in all, now and then
    """
    return _rewrite(checked_path(path), progress, lambda source: (source.identity, source.state))


@raising_own_errors
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
    capacity = checked_capacity(capacity)
    return _rewrite(
        checked_path(path),
        progress,
        lambda source: (replace(source.identity, capacity=capacity), source.state),
    )


@raising_own_errors
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
    check_word("kind", kind, KINDS)
    names = PrioritySettings.names() if kind == "prioritized" else []
    if unknown := settings.keys() - {*names}:
        has = f"expected some of {', '.join(names)}" if names else "it has no settings of its own"
        raise ArgumentError(f"{min(unknown)!r} is no setting of a {kind} store: {has}")

    def change(source: SoundStore) -> tuple[Identity, State]:
        if kind == source.identity.kind:
            raise MismatchError(f"{source.path} is {kind} already: open() takes other settings")
        state = source.state.without(("frame", "max_priority"), PrioritySettings.names())
        state = replace(state, frame=0, max_priority=None)
        if kind == "prioritized":
            accepted = PrioritySettings.of(settings).to_plain()
            state = replace(state, settings={**state.settings, **accepted})
        return replace(source.identity, kind=kind), state

    return _rewrite(checked_path(path), progress, change)


def _rewrite(path: Path, progress: Progress | None, change: Change) -> Rewritten:
    """Write the data file of a store anew, for another identity and state."""
    store = Store(path, access=ALONE)
    try:
        _sweep(path)
        before = store.disk_bytes()
        with store.snapshot() as snapshot:
            source = SoundStore(store, snapshot)
            identity, state = change(source)
            live = state.live(identity.capacity)
            # What is evicted stays so, whatever the capacity.
            state = replace(state, start=max(live.first, source.live.first))
            live = state.live(identity.capacity)
            _check_owner(path)
            with _failing_as(path), work_directory(path, _NEW) as hidden:
                with StoreBuilder(
                    hidden / "store", identity, state, source.schema, progress
                ) as builder:
                    for write_ids in builder.parts():
                        priorities = _priorities(source, identity, write_ids)
                        builder.append(int(write_ids[0]), source.records(write_ids), priorities)
                    builder.finish(snapshot.runs(), source.facts, others=snapshot)
                if store.format < FORMAT:
                    raise_format(path)
                _swap(hidden / "store", path)
        return Rewritten(live.size, source.live.size - live.size, before, store.disk_bytes())
    finally:
        store.close()


def _priorities(source: SoundStore, identity: Identity, write_ids: Ints) -> Values | None:
    """Return the priorities that transitions have in the new store, None where it has none."""
    if identity.has_priorities and source.identity.has_priorities:
        return source.priorities(write_ids)
    return np.full(write_ids.size, _PRIORITY, np.float32) if identity.has_priorities else None


@contextlib.contextmanager
def _failing_as(path: Path) -> Iterator[None]:
    """Turn an error of the disk into one that says that the store is as it was."""
    try:
        yield
    except LockedError:
        raise
    except OSError as error:
        reason = str(error) if isinstance(error, DiskReplayError) else explained(error, path)
        raise StorageError(
            f"cannot write a new data file for {path}, which is as it was: {reason}"
        ) from None


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
