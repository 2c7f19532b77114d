"""Rewriting: replace the data file of a store by a new one with its pages in order.

::

    PATH/
      .diskreplay-rewritten-*/store/
                                 a whole store, built while PATH is held alone
      data.mdb  lock.mdb         replaced by those of the new store, by renaming

Other processes see the old data file or the new one, also after a kill. The next rewriting removes
the directory that a kill has left.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np

from diskreplay.aliases import Ints, PathLike, Progress
from diskreplay.errors import (
    ArgumentError,
    DiskReplayError,
    LockedError,
    MismatchError,
    StorageError,
)
from diskreplay.maintenance.building import StoreBuilder
from diskreplay.maintenance.sources import SoundStore
from diskreplay.sampling import DEFAULT_PRIORITY, PrioritySettings, Values
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
from diskreplay.validation import check_word, checked_capacity, checked_keep_rows, checked_path
from diskreplay.wording import count_of, human

# The identity and state of the rewritten store, in which fewer transitions may be live.
Change: TypeAlias = Callable[[SoundStore], tuple[Identity, State]]

_NEW = f"{HIDDEN}rewritten-"


@dataclass(frozen=True)
class Rewritten:
    """The result of `compact`, `resize` and `convert`.

    size:          number of live transitions now
    dropped:       number of transitions that were live before, and are no longer
    before_bytes:  size of the data file before
    after_bytes:   size of the data file now
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
    in it for later. Marks are dropped, with the evicted transitions that `keep_rows` keeps for
    them. Nothing else changes, and the next run goes on as it would have without. Every record and
    every observation is read and checked. A kill at any moment leaves the old store or the new
    one, whole.

    Cost: reads and writes the live transitions, about 3 seconds for a million of 500 bytes; needs
    the disk space of a second data file meanwhile. Memory: 50 MB.

    Raises LockedError, naming them, when other openers have the store open; DamageError when
    something in it is damaged (`repair` copies the rest); NotInstalledError where the package of
    its codec is missing; StorageError when the disk has too little room. After an error the store
    is unchanged.

    >>> with ReplayBuffer(capacity=10, path="runs/long") as buffer:
    ...     _ = buffer.push(state=[0.0], action=0, reward=1.0, next_state=[1.0], done=False)
    >>> compact("runs/long").size
    1

    progress:  called now and then with the numbers of transitions written and of all transitions
    """
    return _rewrite(checked_path(path), progress, lambda source: (source.identity, source.state))


@raising_own_errors
def resize(
    path: PathLike,
    capacity: int,
    *,
    keep_rows: int | None = None,
    progress: Progress | None = None,
) -> Rewritten:
    """Change the capacity of a store; of more transitions than that, keep the newest.

    They keep their write ids and priorities. Otherwise as `compact`, in cost and errors.
    keep_rows is that of the constructors; None leaves it as it is.

    >>> with ReplayBuffer(capacity=10, path="runs/short") as buffer:
    ...     for reward in range(8):
    ...         _ = buffer.push(state=[0.0], action=0, reward=reward, next_state=[1.0], done=False)
    >>> resize("runs/short", 5).dropped
    3
    >>> len(open("runs/short"))
    5
    """
    capacity = checked_capacity(capacity)
    kept = None if keep_rows is None else checked_keep_rows(keep_rows, capacity)

    def change(source: SoundStore) -> tuple[Identity, State]:
        own = checked_keep_rows(source.identity.keep_rows, capacity) if kept is None else kept
        return replace(source.identity, capacity=capacity, keep_rows=own), source.state

    return _rewrite(checked_path(path), progress, change)


@raising_own_errors
def convert(
    path: PathLike, kind: str, *, progress: Progress | None = None, **settings: float
) -> Rewritten:
    """Make a uniform store prioritized, or a prioritized store uniform.

    Transitions, write ids, runs and the random stream stay the same. Each transition gets the
    priority 1.0, as if it had just been pushed, and the annealing begins; or all priorities are
    dropped, with their settings. Otherwise as `compact`, in cost and errors.

    Raises MismatchError when the store is of that kind already, and ArgumentError for settings out
    of their range and for any settings of a uniform store; nothing is changed then.

    >>> with ReplayBuffer(capacity=10, path="runs/kind") as buffer:
    ...     _ = buffer.push(state=[0.0], action=0, reward=1.0, next_state=[1.0], done=False)
    >>> convert("runs/kind", "prioritized", alpha=0.7).size
    1
    >>> open("runs/kind").priorities([0])
    array([1.], dtype=float32)

    kind:      "prioritized" or "uniform"
    settings:  of a prioritized store, as the constructor takes them and with its defaults: alpha,
               beta_start, beta_end, beta_frames, epsilon
    """
    check_word("kind", kind, KINDS)
    names = PrioritySettings.names() if kind == "prioritized" else []
    if unknown := settings.keys() - {*names}:
        has = f"expected some of {', '.join(names)}" if names else "it has no settings of its own"
        raise ArgumentError(f"{min(unknown)!r} is no setting of a {kind} store: {has}")

    def change(source: SoundStore) -> tuple[Identity, State]:
        if kind == source.identity.kind:
            raise MismatchError(f"{source.path} is {kind} already: open() changes its settings")
        state = source.state.without(("frame", "max_priority"), PrioritySettings.names())
        state = replace(state, frame=0, max_priority=None)
        if kind == "prioritized":
            accepted = PrioritySettings.of(settings).to_plain()
            state = replace(state, settings={**state.settings, **accepted})
        return replace(source.identity, kind=kind), state

    return _rewrite(checked_path(path), progress, change)


def _rewrite(path: Path, progress: Progress | None, change: Change) -> Rewritten:
    """Write the data file of a store anew, for a changed identity and state."""
    store = Store(path, access=ALONE)
    try:
        _remove_leftovers(path)
        before = store.disk_bytes()
        with store.snapshot() as snapshot:
            source = SoundStore(store, snapshot)
            identity, state = change(source)
            live = state.live(identity)
            # Evicted transitions stay evicted, also with a larger capacity.
            state = replace(state, start=max(live.first, source.live.first))
            live = state.live(identity)
            state = replace(state, observations=source.needed_observations(live))
            _check_owner(path)
            with _reporting_unchanged(path), work_directory(path, _NEW) as hidden:
                with StoreBuilder(
                    hidden / "store",
                    identity,
                    state,
                    source.schema,
                    progress,
                    copied=source.layout,
                    log_bytes=snapshot.disk_bytes("observations"),
                ) as builder:
                    for key, values in source.log_values(state.observations.first):
                        builder.append_log(key, values)
                    for write_ids in builder.parts():
                        priorities = _priorities(source, identity, write_ids)
                        records = source.records(write_ids, state.observations)
                        links = source.links(write_ids)
                        builder.append(int(write_ids[0]), records, priorities, links)
                    notes = source.notes()
                    builder.finish(snapshot.runs(), source.facts, others=snapshot, notes=notes)
                if store.format < FORMAT:
                    raise_format(path)
                _replace_data_file(hidden / "store", path)
        return Rewritten(live.size, source.live.size - live.size, before, store.disk_bytes())
    finally:
        store.close()


def _priorities(source: SoundStore, identity: Identity, write_ids: Ints) -> Values | None:
    """Return the priorities of transitions in the new store, None in a uniform one."""
    if not identity.has_priorities:
        return None
    if source.identity.has_priorities:
        return source.priorities(write_ids)
    return np.full(write_ids.size, DEFAULT_PRIORITY, np.float32)


@contextlib.contextmanager
def _reporting_unchanged(path: Path) -> Iterator[None]:
    """Turn an error of the disk into one that says that the store is unchanged."""
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
    """Raise StorageError if the new files could not have the owner of the old ones."""
    owner = os.stat(path / DATA).st_uid
    if os.geteuid() not in (0, owner):
        raise StorageError(
            f"{path / DATA} belongs to user {owner}, and a new one would belong to user "
            f"{os.geteuid()}: let the owner rewrite it, or save() a copy"
        )


def _remove_leftovers(path: Path) -> None:
    """Remove the directories that killed rewritings have left, but no link of such a name."""
    with contextlib.suppress(OSError), StoreDirectory(path) as directory:
        for name in directory.names():
            if name.startswith(_NEW):
                directory.remove_tree(name)


def _replace_data_file(place: Path, path: Path) -> None:
    """Replace the data file of the store at `path` by that of the store at `place`."""
    with StoreDirectory(path) as old, StoreDirectory(place) as new:
        for name in (DATA, LOCK):
            status = old.status(name)
            with contextlib.suppress(PermissionError):  # the owner is no longer in the group
                new.own(name, -1, status.st_gid)
            if os.geteuid() == 0:
                new.own(name, status.st_uid, status.st_gid)
            new.permit(name, status.st_mode & 0o777)
        sync(place / DATA)
        # The lock file tells which meta page is the newer: it must not outlive its data file.
        old.unlink(LOCK)
        new.move(DATA, old)
        new.move(LOCK, old)
        sync(path)
    make_known(path)
