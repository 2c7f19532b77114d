"""Repairing: copy the readable contents of a damaged store to a new one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from uuid import uuid4

import numpy as np

from diskreplay.aliases import PathLike, Progress
from diskreplay.errors import DamageError, StorageError
from diskreplay.lmdbfile import Faults
from diskreplay.maintenance.building import StoreBuilder
from diskreplay.maintenance.salvage import Salvage
from diskreplay.maintenance.verification import verify
from diskreplay.sampling import DEFAULT_PRIORITY, new_seed
from diskreplay.store import (
    State,
    beside,
    held_data_file,
    holds_store,
    pinned_commit,
    raising_own_errors,
    real_path,
)
from diskreplay.validation import checked_path

_RANGES_KEPT = 1000


@dataclass(frozen=True)
class Repair:
    """The transitions and priorities that `repair` copied, and those that it lost.

    copied:           transitions in the new store
    lost:             transitions that could not be read
    lost_ids:         their write ids in the damaged store, as ranges [first, end); at most 1000
    priorities_lost:  transitions that got the largest priority, since their own could not be read
    state_lost:       True if frame, random stream and largest priority are those of an earlier
                      commit, or begin anew, since the newest state could not be read
    faults:           the faults that `verify` found in the damaged store
    """

    copied: int
    lost: int
    lost_ids: tuple[tuple[int, int], ...]
    priorities_lost: int
    state_lost: bool
    faults: tuple[str, ...]

    def __str__(self) -> str:
        if not self.faults:
            return f"copied all transitions of a sound store: {self.copied:,}"
        ranges = [(first, end - 1) for first, end in self.lost_ids[:5]]
        where = [f"{first}" if first == last else f"{first} to {last}" for first, last in ranges]
        ids = f" (write ids {', '.join(where)}{', ...' * (len(self.lost_ids) > 5)})" * (
            self.lost > 0
        )
        return (
            f"transitions copied: {self.copied:,}; lost: {self.lost:,}{ids}; "
            f"with a lost priority: {self.priorities_lost:,}; "
            f"{'random stream and annealing: lost; ' * self.state_lost}"
            f"faults of the store: {len(self.faults)}"
        )


@raising_own_errors
def repair(path: PathLike, out: PathLike, *, progress: Progress | None = None) -> Repair:
    """Copy the readable contents of a store to a new store at `out`, and report the losses.

    The damaged store is not changed. The new one has its kind, capacity, schema, settings, random
    stream, annealing and readable notes. Transitions keep their order, and each has the bytes that
    were written; transitions before a lost one get higher write ids, so that these are contiguous,
    and the newest keeps its own. A transition of which an observation is lost is lost. Priorities
    that cannot be read become the largest so far. The table of runs begins anew.

    Cost: as `verify`, twice, and once more to write; if transitions are missing, `repair` also
    searches the whole file. Memory: 40 bytes a transition, 32 an observation in the log, and 50 MB.

    Raises DamageError when the kind of the buffer or its fields cannot be found, and
    FormatVersionError for a format that this version does not know; NotAStoreError, LockedError and
    NotInstalledError as `verify`; StorageError when `out` is in use or the disk refuses. After an
    error there is nothing at `out`.

    >>> with ReplayBuffer(capacity=10, path="runs/damaged") as buffer:
    ...     _ = buffer.push(state=[0.0], action=0, reward=1.0, next_state=[1.0], done=False)
    >>> print(repair("runs/damaged", "runs/repaired"))
    copied all transitions of a sound store: 1

    progress:  called now and then with the numbers of transitions written and of all transitions
    """
    source, target = checked_path(path), real_path(checked_path(out))
    if holds_store(target):
        raise StorageError(f"{target} holds a store already: choose a new directory")
    faults = verify(source)
    with held_data_file(source, Faults()) as (file, uuid):
        if file is None:
            raise DamageError(f"{source} cannot be repaired: {faults[0]}")
        with pinned_commit(source, file) as (meta, wrong):
            try:
                found = Salvage(file, meta, uuid, whole=not wrong)
            except DamageError as error:
                raise DamageError(f"{source} cannot be repaired: {error}") from None
            with beside(target) as place:
                priorities_lost = _write(found, place, progress)
    lost = found.live.size - found.write_ids.size
    ranges = tuple(islice(found.lost(), _RANGES_KEPT))
    return Repair(
        copied=found.write_ids.size,
        lost=lost,
        lost_ids=ranges,
        priorities_lost=priorities_lost,
        state_lost=not found.state_is_reached,
        faults=tuple(faults),
    )


def _write(found: Salvage, place: Path, progress: Progress | None) -> int:
    """Write a store of the found transitions, and return how many priorities are unknown."""
    n = found.write_ids.size
    end = int(found.write_ids[-1]) + 1 if n else found.live.count
    begin = end - n
    priorities, known = found.priorities()
    links = found.links(begin)
    state = found.state or State(seed=new_seed(), settings={})
    if found.state is None and known.any():
        state = replace(state, max_priority=float(priorities[known].max()))
    largest = DEFAULT_PRIORITY if state.max_priority is None else state.max_priority
    priorities[~known] = largest
    state = replace(state, count=end, start=begin)
    identity = replace(found.identity, uuid=str(uuid4()), plain={})
    has_priorities = identity.has_priorities
    with StoreBuilder(
        place, identity, state, found.schema, progress, log_bytes=found.log_bytes
    ) as builder:
        for write_ids in builder.parts():
            low = int(write_ids[0]) - begin
            high = low + write_ids.size
            given = priorities[low:high] if has_priorities else None
            columns = found.columns(low, high)
            builder.append_rows(begin + low, columns, given, links[low:high])
        builder.finish(notes=found.notes())
    return int(np.count_nonzero(~known)) if has_priorities else 0
