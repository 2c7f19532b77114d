"""Rescue: a new store made of what can be read of a damaged one."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from diskreplay.buffer import Exclusive, PrioritizedReplayBuffer, ReplayBuffer
from diskreplay.errors import DamageError, StorageError
from diskreplay.lmdbfile import Faults
from diskreplay.maintenance.recovery import Salvage
from diskreplay.maintenance.verification import Progress, verify
from diskreplay.sampling import generator_from_plain
from diskreplay.store import PathLike, beside, holds_store, ours, pinned, reading, real_path
from diskreplay.validation import checked_path

_CHUNK_BYTES = 8 << 20
_RANGES_KEPT = 1000


@dataclass(frozen=True)
class Repair:
    """What `repair` copied, and what it could not.

    copied:           transitions in the new store
    lost:             transitions that could not be read
    lost_ids:         their write ids in the damaged store, as ranges [first, end); at most 1000
    priorities_lost:  transitions that got the largest priority, since their own could not be read
    state_lost:       whether frame, random stream and largest priority are those of an earlier
                      commit, or begin anew, since the newest could not be read
    faults:           what `verify` says of the damaged store
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


@ours
def repair(path: PathLike, out: PathLike, *, progress: Progress | None = None) -> Repair:
    """Copy what can be read of a store to a new store at `out`, and say what was left behind.

    The damaged store is not changed. The new one has its kind, capacity, schema, settings, random
    stream and annealing. Transitions keep their order, and every one is byte for byte what was
    written; those before a lost one move up, so that write ids are contiguous: the newest keeps its
    own. Priorities that cannot be read become the largest so far. The table of runs begins anew.

    Cost: as `verify`, twice, and once more to write; where transitions are missing, it also looks
    through the whole file. Memory: 40 bytes a transition, and what the new buffer takes.

    Raises DamageError when nothing says what kind of buffer it was or what its fields are, and
    FormatVersionError for a store that this version does not know; NotAStoreError and LockedError
    as `verify`; StorageError when `out` is in use or the disk refuses. At `out` there is nothing
    then.

    >>> with ReplayBuffer(capacity=10, path="runs/damaged") as buffer:
    ...     _ = buffer.push(state=[0.0], action=0, reward=1.0, next_state=[1.0], done=False)
    >>> print(repair("runs/damaged", "runs/repaired"))
    copied all transitions of a sound store: 1

    progress:  called with transitions written and in all, now and then
    """
    source, target = checked_path(path), real_path(checked_path(out))
    if holds_store(target):
        raise StorageError(f"{target} holds a store already: choose a new directory")
    faults = verify(source)
    with reading(source, Faults()) as (file, uuid):
        if file is None:
            raise DamageError(f"{source} cannot be repaired: {faults[0]}")
        with pinned(source, file) as (meta, wrong):
            try:
                found = Salvage(file, meta, uuid, whole=not wrong)
            except DamageError as error:
                raise DamageError(f"{source} cannot be repaired: {error}") from None
            with beside(target) as place:
                priorities_lost = _write(found, place, progress)
    lost = found.count - found.first - found.write_ids.size
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
    """Make a store of what was found, and return how many priorities are not known."""
    settings: dict[str, Any] = dict(found.state.settings) if found.state else {}
    is_prioritized = found.identity.kind == "prioritized"
    make = PrioritizedReplayBuffer if is_prioritized else ReplayBuffer
    buffer = make(
        found.identity.capacity, path=place, schema=found.schema, window_bytes=0, **settings
    )
    try:
        return _fill(buffer, found, progress)
    finally:
        buffer._close_at_last()  # nobody could try again


def _fill(
    buffer: ReplayBuffer | PrioritizedReplayBuffer, found: Salvage, progress: Progress | None
) -> int:
    """Commit all transitions to a new buffer, under the write ids that they get.

    This reaches into the buffer, as nothing public begins at another write id than 0.
    """
    contents = buffer._contents
    if not isinstance(contents, Exclusive):
        raise TypeError("a buffer to fill writes alone")
    n = found.write_ids.size
    end = int(found.write_ids[-1]) + 1 if n else found.count
    begin = end - n
    sampler = contents.sampler
    sampler.clear(begin)
    priorities, known = found.priorities()
    if found.state is not None:
        sampler.restore(found.state.plain["sampler"])
        contents.generator = generator_from_plain(found.state.plain["generator"])
        contents.stale = found.state.stale_updates
    elif known.any():
        sampler.restore({"frame": 0, "max_priority": float(priorities[known].max())})
    if isinstance(buffer, PrioritizedReplayBuffer):
        priorities[~known] = buffer._sampler.max_priority
    under = found.state.plain if found.state else None
    contents.commit_rows(list, begin, begin, begin, under)
    codec = found.codec
    step = max(1, _CHUNK_BYTES // codec.record_bytes) if codec else 1
    for low in range(0, n, step):
        high = min(low + step, n)
        ids = found.write_ids[low:high]
        slots = ids % buffer.capacity
        columns = codec.decode(found.records(low, high), ids, slots) if codec else []
        sampler.hold(begin + low, high - low, priorities[low:high])
        contents.commit_rows(partial(iter, [columns]), begin + low, begin, begin + high)
        if progress is not None:
            progress(high, n)
    is_prioritized = isinstance(buffer, PrioritizedReplayBuffer)
    return int(np.count_nonzero(~known)) if is_prioritized else 0
