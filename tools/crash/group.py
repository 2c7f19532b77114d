"""Start, hear, kill and count the processes that work on one store."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from crash.checker import examine
from crash.ledger import Ledger
from crash.processes import Child, Event, Tell
from crash.writer import Task

Role = Callable[[Task, Tell], None]


class Group:
    """Processes that write and read one store; each has a number, which is never given twice."""

    # The columns in which what is wrong is counted.
    wrong_column, failed_column, unreadable_column = "wrong reads", "failed", "failed"

    def __init__(self, task: Task, ledger: Ledger, started: int = 0) -> None:
        self.task, self.ledger, self.started = task, ledger, started
        self.children: dict[int, Child] = {}
        self.roles: dict[int, Role] = {}
        self.heard: dict[int, float] = {}  # when each process told something last
        self.counts: Counter[str] = Counter()
        self.failures: list[str] = []  # in words

    def start(self, role: Role, task: Task | None = None) -> int:
        """Start a process, and return its number."""
        self.started += 1
        number = self.started
        self.roles[number] = role
        self.heard[number] = time.monotonic()
        self.children[number] = Child(partial(role, replace(task or self.task, writer=number)))
        return number

    def send(self, number: int, what: signal.Signals) -> None:
        """Send a signal to a process that has not ended."""
        if not self.children[number].ended:
            self.children[number].send(what)

    def kill(self, number: int) -> None:
        """Kill a process, and note all that it told."""
        self.counts["killed"] += not self.children[number].ended
        self.send(number, signal.SIGKILL)
        self.end(number)

    def kill_all(self) -> None:
        """Kill all that are left."""
        for number in list(self.children):
            self.kill(number)

    def end(self, number: int) -> int:
        """Wait for the end of a process, note all that it told, and return its status."""
        status, events = self.children[number].wait()
        self._note_all(number, events)
        del self.children[number]
        self.ledger_of(number).end(number, time.monotonic_ns())
        return status

    def hear(self, seconds: float) -> None:
        """Wait until a process tells something or ends, at most so long, and note what is told."""
        Child.select(self.children.values(), seconds)
        for number, child in self.children.items():
            self._note_all(number, child.events())

    def _note_all(self, number: int, events: list[Event]) -> None:
        for event in events:
            self.heard[number] = time.monotonic()
            self.note(number, event)
            self.ledger_of(number).record(number, event)

    def note(self, number: int, event: Event) -> None:
        """Count an event; the ledger gets it after that."""
        if event[0] == "wrong":
            self.fail(self.wrong_column, event[2])
        elif event[0] == "failed":
            self.fail(self.failed_column, event[2])

    def ledger_of(self, number: int) -> Ledger:
        """Return the ledger of the data file that a process has open."""
        return self.ledger

    def fail(self, column: str, what: str) -> None:
        """Count what is not as it should be."""
        self.counts[column] += 1
        self.failures.append(what)

    def compare(self, path: Path, ledger: Ledger) -> dict[str, Any]:
        """Compare a store with a ledger, and count; return its `stats` where it can be read."""
        try:
            found, wrong, stats = examine(path, self.task.access)
        except RuntimeError as error:
            self.fail(self.unreadable_column, f"{path}: {error}")
            return {}
        if found:
            verdict = ledger.judge(found)
            wrong += verdict.wrong
            for column, n in (("lost", verdict.lost), ("undone", verdict.undone)):
                what = "transitions are lost" if column == "lost" else "priorities are undone"
                self.counts[column] += n
                self.failures += [f"{path}: {n} {what}"] * bool(n)
            self.counts["transitions"] += verdict.transitions
            self.counts["priorities"] += verdict.priorities
        for what in wrong:
            self.fail(self.wrong_column, f"{path}: {what}")
        return stats
