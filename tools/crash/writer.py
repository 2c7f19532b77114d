"""A process that writes: it tells what it is about to do, does it, and tells what is committed."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

import diskreplay
from crash.common import (
    Ints,
    Tell,
    WrongRead,
    authors_of,
    columns_of,
    numbers_from,
    numbers_of,
    pushed_priorities,
    sequences_of,
    tell_seen,
    updated_priorities,
)


@dataclass(frozen=True)
class Task:
    """How a process opens a store, and what it does with it."""

    path: str
    kind: str
    capacity: int
    width: int  # of a state
    access: str
    author: int
    seed: int
    durability: str = "system"
    commit_interval: float = 3600.0
    window_bytes: int = 64 << 20
    operations: int | None = None  # then it closes the buffer; None goes on until SIGTERM
    clears: bool = False
    longest: int = 300  # transitions in one `extend`
    pace: float = float("inf")  # transitions pushed in a second at most

    def open(self) -> Any:
        """Return the buffer."""
        prioritized = self.kind == "prioritized"
        kind = diskreplay.PrioritizedReplayBuffer if prioritized else diskreplay.ReplayBuffer
        return kind(
            self.capacity,
            seed=self.seed,
            path=self.path,
            access=self.access,
            durability=self.durability,
            commit_interval=self.commit_interval,
            window_bytes=self.window_bytes,
        )


def write(task: Task, tell: Tell) -> None:
    """Write until the end of the task, close, and wait to be killed or sent SIGTERM."""
    Writer(task, tell).run()


class Writer:
    """One opening of a store, and what it has told so far."""

    def __init__(self, task: Task, tell: Tell) -> None:
        self.task, self.tell = task, tell
        self.rng = np.random.default_rng([task.seed, task.author])
        self.pushed = self.updated = 0
        self.is_stopping = False

    def run(self) -> None:
        """Do what the task says."""
        signal.signal(signal.SIGTERM, self._stop)
        self.tell("opening")
        self.buffer = self.task.open()
        self.base = self.buffer.count
        self.tell("open")
        began = time.monotonic()
        clear = 0.01 if self.task.clears else 0.0
        done = 0
        while done != self.task.operations and not self.is_stopping:
            left = (time.monotonic() - began) * self.task.pace - self.pushed
            draw = self.rng.random()
            if draw < 0.3 and left >= 0:
                self._push(int(self.rng.integers(1, 20)))
            elif draw < 0.5 and left >= 0:
                self._extend(int(self.rng.integers(1, self.task.longest)))
            elif draw < 0.7:
                self._sample(update=False)
            elif draw < 0.85:
                self._sample(update=self.task.kind == "prioritized")
            elif draw < 0.97 - clear:
                self._commit(self.buffer.flush)
            elif draw < 1 - clear:
                self.buffer.refresh()
            else:
                self.tell("clear")
                self._call(self.buffer.clear)
            done += 1
        self.tell("closing")
        self._commit(self.buffer.close)
        self.tell("closed")
        while not self.is_stopping:
            signal.pause()

    def _stop(self, *_: object) -> None:
        self.is_stopping = True

    def _push(self, n: int) -> None:
        numbers = numbers_from(self.task.author, self.pushed, n)
        self.tell("push", self.pushed + n)
        rows = zip(*columns_of(numbers, self.task.width), strict=True)
        given = pushed_priorities(numbers).tolist()
        for row, priority in zip(rows, given, strict=True):
            more = {"priority": priority} if self.task.kind == "prioritized" else {}
            self.pushed += 1
            self._call(partial(self.buffer.push, *row, **more))

    def _extend(self, n: int) -> None:
        numbers = numbers_from(self.task.author, self.pushed, n)
        more = {"priorities": pushed_priorities(numbers)} if self.task.kind == "prioritized" else {}
        columns = columns_of(numbers, self.task.width)
        self.pushed += n
        self.tell("push", self.pushed)
        self._call(partial(self.buffer.extend, *columns, **more))

    def _sample(self, *, update: bool) -> None:
        n = int(self.rng.integers(1, 33))
        if len(self.buffer) < n:
            return
        batch = self._call(partial(self.buffer.sample, n))
        numbers = self._checked(batch)
        if numbers is None or not update:
            return
        values = updated_priorities(self.task.author, self.updated, n)
        self.tell("update", self.updated, numbers.tolist())
        self.updated += n
        self._call(partial(self.buffer.update_priorities, batch.indices, values))

    def _checked(self, batch: Any) -> Ints | None:
        try:
            numbers = numbers_of(batch)
            own = authors_of(numbers) == self.task.author
            ids = getattr(batch, "indices", None)
            if self.task.access == "exclusive" and ids is not None:
                given = self.base + sequences_of(numbers[own])
                if not np.array_equal(given, ids[own]):
                    raise WrongRead(f"write ids {ids[own]} for the transitions of {given}")
        except WrongRead as error:
            self.tell("wrong", str(error))
            return None
        tell_seen(numbers, self.tell)
        return numbers

    def _call(self, call: Callable[[], Any]) -> Any:
        return self._commit(call) if self.task.commit_interval == 0 else call()

    def _commit(self, call: Callable[[], Any]) -> Any:
        self.tell("commit")
        result = call()
        self.tell("ack", self.pushed)
        return result
