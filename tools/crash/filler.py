"""The writer whose disk fills: it writes until the disk refuses, tells of it, and goes on."""

from __future__ import annotations

import json
import resource
import shutil
import socket
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

import diskreplay
from crash.images import Buffer, changed_in, columns, live_ids, row, verify

CAPACITY, WIDTH = 50_000, 120

MODES: dict[str, dict[str, Any]] = {
    "flush": {"commit_interval": float("inf")},
    "interval 0": {"commit_interval": 0.0},
    "larger than the window": {"commit_interval": float("inf"), "window_bytes": 40_000},
    "background": {"commit_interval": 0.002},
}


@dataclass
class Writer:
    """A buffer and what it has to hold: what was accepted, and what was said to be committed."""

    buffer: Buffer
    mode: str
    rng: np.random.Generator
    accepted: int = 0
    acknowledged: int = 0
    priorities: dict[int, float] = field(default_factory=dict)

    def push(self) -> None:
        """Push one transition."""
        prioritized = isinstance(self.buffer, diskreplay.PrioritizedReplayBuffer)
        priority = _priority(self.accepted) if prioritized else None
        self.buffer.push(**row(self.accepted, WIDTH), priority=priority)
        self._accept(1)

    def extend(self) -> None:
        """Push several at once; more than the window holds, where the mode says so."""
        large = self.mode == "larger than the window"
        n = int(self.rng.integers(60, 120) if large else self.rng.integers(1, 30))
        prioritized = isinstance(self.buffer, diskreplay.PrioritizedReplayBuffer)
        ids = range(self.accepted, self.accepted + n)
        priorities = [_priority(i) for i in ids] if prioritized else None
        self.buffer.extend(**columns(self.accepted, n, WIDTH), priorities=priorities)
        self._accept(n)
        if large:
            self.acknowledged = self.accepted

    def update(self) -> None:
        """Update priorities, where there are any."""
        if isinstance(self.buffer, diskreplay.PrioritizedReplayBuffer) and self.accepted:
            ids = self.rng.integers(0, self.accepted, 8)
            self.buffer.update_priorities(ids, ids % 53 + 0.25)
            self.priorities.update({int(i): int(i) % 53 + 0.25 for i in ids})
            if self.mode == "interval 0":
                self.acknowledged = self.accepted

    def flush(self) -> None:
        """Commit."""
        self.buffer.flush()
        self.acknowledged = self.accepted

    def wait(self) -> None:
        """Let the commit in the background have its turn."""
        if self.mode == "background":
            time.sleep(0.003)

    def until_refused(self) -> tuple[str, Exception]:
        """Write until a call raises; return its name and the error."""
        calls = [self.push, self.extend, self.update, self.flush, self.wait]
        while self.accepted < CAPACITY:
            call = calls[self.rng.choice(5, p=[0.4, 0.25, 0.15, 0.1, 0.1])]
            try:
                call()
            except Exception as error:
                return call.__name__, error
        raise RuntimeError("the disk never refused")

    def faults(self) -> list[str]:
        """Return what the buffer holds otherwise than it was accepted."""
        return faults_in(self.buffer, self.accepted, self.priorities)

    def _accept(self, n: int) -> None:
        ids = range(self.accepted, self.accepted + n)
        self.priorities.update({i: _priority(i) for i in ids})
        self.accepted += n
        if self.mode == "interval 0":
            self.acknowledged = self.accepted


def _priority(write_id: int) -> float:
    return write_id % 97 + 0.5


def faults_in(buffer: Buffer, count: int, priorities: dict[int, float]) -> list[str]:
    """Return what is wrong in a buffer that has to hold these transitions and priorities."""
    faults = []
    if buffer.count != count:
        faults.append(f"{buffer.count} transitions (expected {count})")
    if wrong := changed_in(buffer):
        faults.append(f"transitions {wrong[:5]} are not what was pushed")
    if isinstance(buffer, diskreplay.PrioritizedReplayBuffer):
        ids = live_ids(buffer)
        found = buffer._sampler.live_priorities(0, buffer.count)
        if not np.array_equal(found, [priorities.get(int(i), -1.0) for i in ids]):
            faults.append("priorities are not what was given")
    try:
        buffer.check()
    except diskreplay.DamageError as error:
        faults.append(str(error))
    return faults


def file_limit(n: int) -> None:
    """Let no file of this process grow beyond n bytes."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n, hard))


def fill(talk: IO[str], path: Path, mode: str, at: int, limit: int | None) -> dict[str, Any]:
    """Fill the disk, tell what happened, wait for room, go on, and return what is there then.

    talk:   a connected stream: a line of JSON goes out at the full disk, a line comes when there
            is room
    limit:  for the size of files, in bytes; None when the disk itself is small
    """
    kind = diskreplay.PrioritizedReplayBuffer if at % 8 < 4 else diskreplay.ReplayBuffer
    buffer = kind(CAPACITY, seed=at, path=path, **MODES[mode])
    writer = Writer(buffer, mode, np.random.default_rng(at))
    writer.push()
    writer.flush()
    if limit is not None:
        file_limit(limit)
    call, error = writer.until_refused()
    told = {
        "call": call,
        "error": f"{type(error).__name__}: {error}",
        "clean": is_clean(error, path),
        "accepted": writer.accepted,
        "acknowledged": writer.acknowledged,
        "faults": writer.faults() + save_faults(buffer, path.with_name("saved")),
    }
    talk.write(json.dumps(told) + "\n")
    talk.flush()
    talk.readline()
    if limit is not None:
        file_limit(resource.RLIM_INFINITY)
    writer.flush()
    for _ in range(10):
        writer.push()
        writer.extend()
        writer.update()
    faults = writer.faults()
    buffer.close()
    return {"accepted": writer.accepted, "faults": faults, "priorities": writer.priorities}


def save_faults(buffer: Buffer, path: Path) -> list[str]:
    """Return what is wrong when a copy is made without room for it: it is whole, or nothing is."""
    try:
        buffer.save(path)
    except diskreplay.StorageError:
        return [f"{entry.name} is left of a copy" for entry in path.parent.glob("*saved*")]
    faults = verify(path)
    shutil.rmtree(path)
    return faults


def is_clean(error: Exception, path: Path) -> bool:
    """Return whether an error says in one sentence that the disk refused, and where."""
    said = str(error)
    return type(error) is diskreplay.StorageError and str(path) in said and "\n" not in said


def both_ends() -> tuple[IO[str], IO[str]]:
    """Return two connected text streams."""
    ends = socket.socketpair()
    streams = [end.makefile("rw") for end in ends]
    for end in ends:
        end.close()
    return streams[0], streams[1]
