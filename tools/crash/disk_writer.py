"""The writer of crash.disk: it writes until the disk refuses, tells of it, and goes on."""

from __future__ import annotations

import resource
import shutil
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import diskreplay
from crash.processes import Tell
from crash.rows import (
    Buffer,
    Floats,
    changed_in,
    columns_for,
    live_ids,
    logged,
    numbers_from,
    pushed_priorities,
    rows_for,
    updated_priorities,
)

CAPACITY, WIDTH = 50_000, 120
GO_ON = signal.SIGUSR1  # there is room

MODES: dict[str, dict[str, Any]] = {
    "flush": {"commit_interval": float("inf")},
    "interval 0": {"commit_interval": 0.0},
    "larger than the window": {"commit_interval": float("inf"), "window_bytes": 40_000},
    "background": {"commit_interval": 0.002},
}


@dataclass
class Writer:
    """A buffer and what it has to hold: what was accepted, and what was said to be committed."""

    buffer: Any
    mode: str
    rng: np.random.Generator
    accepted: int = 0
    acknowledged: int = 0
    priorities: Floats = field(default_factory=lambda: np.zeros(2 * CAPACITY, np.float32))

    @property
    def is_prioritized(self) -> bool:
        """Whether the buffer has priorities."""
        return isinstance(self.buffer, diskreplay.PrioritizedReplayBuffer)

    def push(self) -> None:
        """Push one row."""
        numbers = numbers_from(0, self.accepted, 1)
        given = pushed_priorities(numbers)
        priority = float(given[0]) if self.is_prioritized else None
        self.buffer.push(*rows_for(self.buffer, numbers, WIDTH)[0], priority)
        self._accept(given)

    def extend(self) -> None:
        """Push several at once; more than the window holds, where the mode says so."""
        large = self.mode == "larger than the window"
        n = int(self.rng.integers(60, 120) if large else self.rng.integers(1, 30))
        numbers = numbers_from(0, self.accepted, n)
        given = pushed_priorities(numbers)
        priorities = given if self.is_prioritized else None
        self.buffer.extend(*columns_for(self.buffer, numbers, WIDTH), priorities)
        self._accept(given)
        if large:
            self.acknowledged = self.accepted

    def update(self) -> None:
        """Update priorities, where there are any."""
        if isinstance(self.buffer, diskreplay.PrioritizedReplayBuffer):
            ids = np.unique(self.rng.integers(0, self.accepted, 8))
            given = updated_priorities(0, int(ids[0]), len(ids))
            self.buffer.update_priorities(ids, given)
            self.priorities[ids] = given
            if self.mode == "interval 0":
                self.acknowledged = self.accepted

    def flush(self) -> None:
        """Commit."""
        self.buffer.flush()
        self.acknowledged = self.accepted

    def wait(self) -> None:
        """Wait for a commit in the background."""
        if self.mode == "background":
            time.sleep(0.003)

    def write_until_refused(self) -> Exception:
        """Write until a call raises, and return the error."""
        calls = [self.push, self.extend, self.update, self.flush, self.wait]
        while self.accepted < CAPACITY:
            try:
                calls[self.rng.choice(5, p=[0.4, 0.25, 0.15, 0.1, 0.1])]()
            except Exception as error:
                return error
        raise RuntimeError("the disk never refused")

    def faults(self) -> list[str]:
        """Return what the buffer holds otherwise than it was accepted."""
        return faults_in(self.buffer, self.priorities[: self.accepted])

    def _accept(self, given: Floats) -> None:
        self.priorities[self.accepted : self.accepted + len(given)] = given
        self.accepted += len(given)
        if self.mode == "interval 0":
            self.acknowledged = self.accepted


def faults_in(buffer: Buffer, priorities: Floats) -> list[str]:
    """Return what is wrong in a buffer that has to hold as many rows, with these priorities."""
    faults = []
    if buffer.count != len(priorities):
        faults.append(f"{buffer.count} transitions (expected {len(priorities)})")
    if wrong := changed_in(buffer):
        faults.append(f"transitions {wrong[:5]} are not what was pushed")
    if isinstance(buffer, diskreplay.PrioritizedReplayBuffer):
        ids = live_ids(buffer)
        if not np.array_equal(buffer.priorities(ids), priorities[ids[ids < len(priorities)]]):
            faults.append("priorities are not what was given")
    try:
        buffer.check()
    except diskreplay.DamageError as error:
        faults.append(str(error))
    return faults


def file_limit(n: int) -> None:
    """Limit the files of this process to n bytes."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n, hard))


def fill(path: Path, mode: str, at: int, limit: int | None, tell: Tell) -> dict[str, Any]:
    """Fill the disk, tell what happened, wait for room, go on, and return what is there then.

    limit:  for the size of files, in bytes; None when the disk itself is small
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, [GO_ON])  # the buffer's threads do not get it, either
    kind = diskreplay.PrioritizedReplayBuffer if at % 8 < 4 else diskreplay.ReplayBuffer
    more = logged(WIDTH) if at % 3 == 2 else {}
    buffer = kind(CAPACITY, seed=at, path=path, **MODES[mode], **more)
    writer = Writer(buffer, mode, np.random.default_rng(at))
    writer.push()
    writer.flush()
    if limit is not None:
        file_limit(limit)
    error = writer.write_until_refused()
    told = {
        "error": "" if is_clean(error, path) else f"{type(error).__name__}: {error}",
        "accepted": writer.accepted,
        "acknowledged": writer.acknowledged,
        "faults": writer.faults() + save_faults(buffer, path.with_name("saved")),
    }
    tell("refused", told)
    signal.sigwait([GO_ON])
    if limit is not None:
        file_limit(resource.RLIM_INFINITY)
    writer.flush()
    for _ in range(10):
        writer.push()
        writer.extend()
        writer.update()
    faults = writer.faults()
    buffer.close()
    return {"faults": faults, "priorities": writer.priorities[: writer.accepted].tolist()}


def save_faults(buffer: Buffer, path: Path) -> list[str]:
    """Return what is wrong when a copy is made without room for it: it is whole, or nothing is."""
    try:
        buffer.save(path)
    except diskreplay.StorageError:
        return [f"{entry.name} is left of a copy" for entry in path.parent.glob("*saved*")]
    faults = diskreplay.verify(path)
    shutil.rmtree(path)
    return faults


def is_clean(error: Exception, path: Path) -> bool:
    """Return whether an error says in one sentence that the disk refused, and where."""
    said = str(error)
    return type(error) is diskreplay.StorageError and str(path) in said and "\n" not in said
