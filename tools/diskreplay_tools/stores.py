"""What the commands read of a store, also beside a live writer."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

import diskreplay
from diskreplay.aliases import Array, Ints


def spread_ids(first: int, count: int, n: int) -> NDArray[np.int64]:
    """Return write ids of [first, count), one of each of n equal shares, or all when n is as many.

    Which one is drawn, with a fixed seed: what comes at every tenth step would else be always seen,
    or never.
    """
    size = count - first
    if n >= size:
        return np.arange(first, count)
    ends = np.arange(n + 1) * size // n
    places: NDArray[np.int64] = np.random.default_rng(0).integers(ends[:-1], ends[1:])
    return first + places


Buffer = diskreplay.ReplayBuffer | diskreplay.PrioritizedReplayBuffer
ATTEMPTS = 5  # at figures of one commit, beside a writer that commits all the time
_PART = 1 << 20  # priorities read in a call
_CHUNK_BYTES = 4 << 20  # rows read in a call


@dataclass
class Look:
    """What a store was like at one moment.

    priorities:  those of the newest live transitions, up to the last one; all of them, unless a
                 writer evicted some while they were read. None where there are none
    """

    stats: dict[str, Any]
    priorities: NDArray[np.float32] | None

    @property
    def count(self) -> int:
        """The number of transitions ever written."""
        return int(self.stats["count"])

    @property
    def first(self) -> int:
        """The oldest live write id."""
        return self.count - int(self.stats["size"])

    def priority(self, write_id: int) -> float | None:
        """Return the priority of a transition, where it is known."""
        if self.priorities is None:
            return None
        at = write_id - (self.count - self.priorities.size)
        return float(self.priorities[at]) if at >= 0 else None


def look(buffer: Buffer) -> Look:
    """Return figures of one commit; beside a writer that leaves no time for it, of a few."""
    for attempt in range(ATTEMPTS):
        found = Look(buffer.stats(), None)
        if isinstance(buffer, diskreplay.PrioritizedReplayBuffer):
            found.priorities = _priorities(buffer, found.first, found.count)
        after = found.stats if attempt == ATTEMPTS - 1 else buffer.stats()
        if after["commits"] == found.stats["commits"]:
            break
    if found.priorities is not None and found.priorities.size:
        found.stats |= {
            "priority_min": float(found.priorities.min()),
            "priority_mean": float(found.priorities.mean(dtype=np.float64)),
            "priority_max": float(found.priorities.max()),
        }
        found.stats["max_priority"] = max(found.stats["max_priority"], found.stats["priority_max"])
    return found


def _priorities(
    buffer: diskreplay.PrioritizedReplayBuffer, first: int, count: int
) -> NDArray[np.float32]:
    """Return the priorities of [first, count), without those that were evicted meanwhile."""
    parts = [np.zeros(0, np.float32)]
    while first < count:
        try:
            part = buffer.priorities(np.arange(first, min(first + _PART, count)))
        except diskreplay.NotLiveError:
            stats = buffer.stats()
            oldest = stats["count"] - stats["size"]
            first, parts = (oldest if oldest > first else count), parts[:1]
        else:
            parts.append(part)
            first += part.size
    return np.concatenate(parts)


@dataclass
class Rows:
    """Transitions by write id: `columns` by the names of their fields.

    damaged:  write ids of those whose records are not what was written
    evicted:  how many were evicted before they were read
    """

    write_ids: Ints
    columns: dict[str, Array]
    damaged: list[int] = field(default_factory=list)
    evicted: int = 0


def read_rows(buffer: Buffer, write_ids: Ints, names: Sequence[str]) -> Rows:
    """Return some fields of transitions, without those that are evicted meanwhile, or damaged."""
    schema = buffer.schema
    if schema is None or not write_ids.size:
        return Rows(np.zeros(0, np.int64), {})
    step = max(1, _CHUNK_BYTES // max(1, schema.payload_bytes))
    waiting = [write_ids[at : at + step] for at in range(0, write_ids.size, step)][::-1]
    found = Rows(np.zeros(0, np.int64), {})
    ids: list[Ints] = [found.write_ids]
    parts: dict[str, list[Array]] = {
        name: [np.zeros((0, *schema[name].shape), schema[name].dtype)] for name in names
    }
    while waiting:
        part = waiting.pop()
        try:
            columns = buffer.get(part, fields=names)
        except diskreplay.NotLiveError:
            live = _still_live(buffer, part)
            found.evicted += part.size - live.size
            waiting += [live] if live.size else []
        except diskreplay.DamageError:
            buffer.refresh()  # raises when it is not the record
            if part.size == 1:
                found.damaged.append(int(part[0]))
            else:
                waiting += [part[part.size // 2 :], part[: part.size // 2]]
        else:
            ids.append(part)
            for name in names:
                parts[name].append(columns[name])
    found.write_ids = np.concatenate(ids)
    found.columns = {name: np.concatenate(column) for name, column in parts.items()}
    return found


def _still_live(buffer: Buffer, write_ids: Ints) -> Ints:
    stats = buffer.stats()
    oldest = stats["count"] - stats["size"]
    live: Ints = write_ids[(write_ids >= oldest) & (write_ids < stats["count"])]
    return live


def facts_of(found: Look) -> dict[str, Any]:
    """Return the figures of a view, as `stats()` names them, and some more."""
    stats = found.stats
    here = os.getpid(), socket.gethostname()
    return {
        **stats,
        "first": found.first,
        "openers": [who for who in stats["openers"] if (who["pid"], who["host"]) != here],
        "runs": [run for run in stats["runs"] if isinstance(run, dict)],
    }
