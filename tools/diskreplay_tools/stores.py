"""What the commands read of a store, also beside a live writer."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

import diskreplay
from diskreplay.aliases import Array, Ints
from diskreplay.buffer import Scan
from diskreplay.protocols import Replay
from diskreplay_tools.extras import needed

Buffer = diskreplay.ReplayBuffer | diskreplay.PrioritizedReplayBuffer

TOKEN_VARIABLE = "DISKREPLAY_TOKEN"
SERVICE_SECONDS = 5.0  # until a view says that a service does not answer
ATTEMPTS = 5  # at figures of one commit, beside a writer that commits all the time


def is_url(target: str) -> bool:
    """Return whether a replay is named by the URL of a service, and not by the path of a store."""
    return "://" in target


@dataclass(frozen=True)
class Target:
    """The path of a store, or the URL of a service with what a client of it needs.

    token_file:  without it the token is that of the environment, if any
    ca, cert:    files as `diskreplay.connect` takes them
    """

    place: str
    token_file: Path | None = None
    ca: Path | None = None
    cert: tuple[Path, Path] | None = None

    @property
    def is_url(self) -> bool:
        """Whether it is a URL."""
        return is_url(self.place)

    def open(self) -> Replay[Any]:
        """Open the store for reading, with no memory for rows, or connect to the service."""
        if not self.is_url:
            return diskreplay.open(self.place, access="read", window_bytes=0)
        needed("pyarrow.flight", "service", "a URL")
        replay: Replay[Any] = diskreplay.connect(
            self.place, token=self._token(), timeout=SERVICE_SECONDS, ca=self.ca, cert=self.cert
        )
        return replay

    def _token(self) -> str | None:
        if self.token_file is None:
            return os.environ.get(TOKEN_VARIABLE) or None
        words = self.token_file.read_text(errors="replace").split()
        if len(words) != 1:
            raise diskreplay.ArgumentError(
                f"{self.token_file} must have a token and nothing else (found {len(words):,} "
                "words): give the file with what diskreplay token printed"
            )
        return words[0]


def is_local(replay: Replay[Any]) -> TypeGuard[Buffer]:
    """Return whether a replay is a store that this process has open, and not one of a service."""
    return isinstance(replay, diskreplay.ReplayBuffer | diskreplay.PrioritizedReplayBuffer)


@dataclass
class Summary:
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
        return first_of(self.stats)

    def priority(self, write_id: int) -> float | None:
        """Return the priority of a transition, where it is known."""
        if self.priorities is None:
            return None
        at = write_id - (self.count - self.priorities.size)
        return float(self.priorities[at]) if at >= 0 else None

    def to_plain(self) -> dict[str, Any]:
        """Return the figures as `stats()` names them, and some more."""
        return {
            **self.stats,
            "first": self.first,
            "openers": other_openers(self.stats),
            "runs": [run for run in self.stats["runs"] if isinstance(run, dict)],
        }


def summarise(buffer: Buffer) -> Summary:
    """Return figures of one commit; beside a writer that leaves no time for it, of a few."""
    for attempt in range(ATTEMPTS):
        found = Summary(buffer.stats(), None)
        if isinstance(buffer, diskreplay.PrioritizedReplayBuffer):
            found.priorities = newest_priorities(buffer, found.first, found.count)
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


def first_of(stats: dict[str, Any]) -> int:
    """Return the oldest live write id of figures that are of one commit."""
    return int(stats["count"] - stats["size"])


def other_openers(stats: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the processes that have a store open, without this one."""
    here = os.getpid(), socket.gethostname()
    return [opener for opener in stats["openers"] if (opener["pid"], opener["host"]) != here]


def newest_priorities(
    buffer: diskreplay.PrioritizedReplayBuffer, first: int, count: int
) -> NDArray[np.float32]:
    """Return the priorities of [first, count), without those that were evicted meanwhile."""
    parts, expected = [np.zeros(0, np.float32)], first
    for write_ids, columns in Scan(buffer, range(first, count), (), priorities=True):
        if write_ids[0] != expected:
            parts = parts[:1]  # all that is older is evicted, too
        parts.append(columns["priority"])
        expected = write_ids[-1] + 1
    return np.concatenate(parts if expected == count else parts[:1])


def gather(rows: Scan) -> tuple[Ints, dict[str, Array]]:
    """Return all rows of a scan at once: their write ids, and their columns by field."""
    ids, columns = np.zeros(0, np.int64), []
    if parts := list(rows):
        ids = np.concatenate([write_ids for write_ids, _ in parts])
        columns = [part for _, part in parts]
    names = columns[0] if columns else ()
    return ids, {name: np.concatenate([part[name] for part in columns]) for name in names}


def rows_within(buffer: Replay[Any], rows: int, most_bytes: int) -> int:
    """Return how many rows may be read, at least one where there is any: few of large ones."""
    row_bytes = buffer.schema.payload_bytes if buffer.schema is not None else 0
    return min(rows, len(buffer), max(1, most_bytes // max(1, row_bytes)))


def spread_ids(first: int, count: int, n: int) -> Ints:
    """Return write ids of [first, count), one of each of n equal shares, or all when n is as many.

    Which one is drawn, with a fixed seed: what comes at every tenth step would else be always seen,
    or never.
    """
    size = count - first
    if n >= size:
        return np.arange(first, count)
    ends = np.arange(n + 1) * size // n
    places: Ints = np.random.default_rng(0).integers(ends[:-1], ends[1:])
    return first + places
