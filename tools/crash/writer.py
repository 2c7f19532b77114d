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
from crash.processes import Tell
from crash.rows import (
    Ints,
    WrongRead,
    columns_for,
    logged,
    newest_of,
    numbers_from,
    numbers_of,
    pushed_priorities,
    rows_for,
    sequences_of,
    updated_priorities,
    writers_of,
)


@dataclass(frozen=True)
class Task:
    """How a process opens a store, and what it does with it."""

    path: str
    kind: str
    capacity: int
    width: int  # of a state
    access: str
    seed: int
    writer: int = 0  # whose rows it pushes; readers have a number, too
    durability: str = "system"
    commit_interval: float = 3600.0
    window_bytes: int = 64 << 20
    operations: int | None = None  # then it closes the buffer; None goes on until SIGTERM
    clears: bool = False
    longest: int = 300  # rows in one `extend`
    pace: float = float("inf")  # rows pushed in a second at most
    is_logged: bool = False  # states are in the observation log
    keep_rows: int = 0  # with some it rewinds

    @property
    def is_prioritized(self) -> bool:
        """Whether the buffer has priorities."""
        return self.kind == "prioritized"

    def open(self) -> Any:
        """Return the buffer."""
        kind = (
            diskreplay.PrioritizedReplayBuffer if self.is_prioritized else diskreplay.ReplayBuffer
        )
        return kind(
            self.capacity,
            seed=self.seed,
            path=self.path,
            access=self.access,
            durability=self.durability,
            commit_interval=self.commit_interval,
            window_bytes=self.window_bytes,
            keep_rows=self.keep_rows,
            **(logged(self.width) if self.is_logged else {}),
        )

    def generator(self) -> np.random.Generator:
        """Return the random numbers of this process alone."""
        return np.random.default_rng([self.seed, self.writer])


def write(task: Task, tell: Tell) -> None:
    """Write until the end of the task, close, and wait to be killed or sent SIGTERM."""
    Writer(task, tell).run()


def stop_on_sigterm() -> list[int]:
    """Return a list that is no longer empty after SIGTERM."""
    received: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: received.append(number))
    return received


class Writer:
    """One opening of a store, and what it has told so far."""

    def __init__(self, task: Task, tell: Tell) -> None:
        self.task, self.tell = task, tell
        self.rng = task.generator()
        self.pushed = self.updated = 0
        self.buffer: Any = None

    def run(self) -> None:
        """Do what the task says."""
        stopping = stop_on_sigterm()
        self.tell("opening")
        self.buffer = self.task.open()
        self.base = self.buffer.count
        self.tell("open")
        began = time.monotonic()
        done = 0
        while done != self.task.operations and not stopping:
            self._do_one(may_push=(time.monotonic() - began) * self.task.pace >= self.pushed)
            done += 1
        self.tell("closing")
        self._commit(self.buffer.close)
        self.tell("closed")
        while not stopping:
            signal.pause()

    def _do_one(self, *, may_push: bool) -> None:
        """Do one operation, chosen at random."""
        clear = 0.01 if self.task.clears else 0.0
        draw = self.rng.random()
        if draw < 0.3 and may_push:
            self._push(int(self.rng.integers(1, 20)))
        elif draw < 0.5 and may_push:
            self._extend(int(self.rng.integers(1, self.task.longest)))
        elif draw < 0.85:
            self._sample(update=draw >= 0.7 and self.task.is_prioritized)
        elif draw < 0.89 and self.task.keep_rows and self.task.commit_interval:
            self._go_back()
        elif draw < 0.97 - clear:
            self._commit(self.buffer.flush)
        elif draw < 1 - clear:
            self.buffer.refresh()
        else:
            self.tell("clear")
            self._call(self.buffer.clear)

    def _next(self, n: int) -> Ints:
        """Announce n rows, and return their numbers."""
        numbers = numbers_from(self.task.writer, self.pushed, n)
        self.tell("push", self.pushed + n)
        return numbers

    def _push(self, n: int) -> None:
        numbers = self._next(n)
        rows = rows_for(self.buffer, numbers, self.task.width)
        for row, priority in zip(rows, pushed_priorities(numbers).tolist(), strict=True):
            given = priority if self.task.is_prioritized else None
            self.pushed += 1
            self._call(partial(self.buffer.push, *row, priority=given))

    def _extend(self, n: int) -> None:
        numbers = self._next(n)
        given = pushed_priorities(numbers) if self.task.is_prioritized else None
        columns = columns_for(self.buffer, numbers, self.task.width)
        self.pushed += n
        self._call(partial(self.buffer.extend, *columns, priorities=given))

    def _sample(self, *, update: bool) -> None:
        n = int(self.rng.integers(1, 33))
        if len(self.buffer) < n:
            return
        batch = self._call(partial(self.buffer.sample, n))
        try:
            numbers = self._checked(batch)
        except WrongRead as error:
            self.tell("wrong", str(error))
            return
        self.tell("seen", newest_of(numbers))
        if update:
            values = updated_priorities(self.task.writer, self.updated, n)
            self.tell("update", self.updated, numbers.tolist())
            self.updated += n
            self._call(partial(self.buffer.update_priorities, batch.indices, values))

    def _go_back(self) -> None:
        """Mark, push rows, and rewind: the rows have the same numbers when they are pushed again.

        Meanwhile some of them may be committed, and none is acknowledged.
        """
        self._commit(partial(self.buffer.mark, "here", self.pushed))
        before = self.pushed
        for _ in range(int(self.rng.integers(1, 4))):
            self._extend(int(self.rng.integers(1, self.task.keep_rows // 3)))
            if self.rng.random() < 0.5:
                self.buffer.flush()
        self.tell("commit")
        self.buffer.rewind("here")
        self.pushed = before
        self.tell("ack", self.pushed)
        if self.rng.random() < 0.5:
            self._commit(partial(self.buffer.delete_mark, "here"))

    def _checked(self, batch: Any) -> Ints:
        """Return the numbers of a batch; raise WrongRead when own rows have other write ids."""
        numbers = numbers_of(batch)
        own = writers_of(numbers) == self.task.writer
        if self.task.access == "exclusive":
            given, ids = self.base + sequences_of(numbers[own]), batch.indices[own]
            if not np.array_equal(given, ids):
                raise WrongRead(f"write ids {ids} for the transitions of {given}")
        return numbers

    def _call(self, call: Callable[[], Any]) -> Any:
        return self._commit(call) if self.task.commit_interval == 0 else call()

    def _commit(self, call: Callable[[], Any]) -> Any:
        self.tell("commit")
        result = call()
        self.tell("ack", self.pushed)
        return result
