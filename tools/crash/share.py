"""`python -m crash.share`: several processes share a store, and are killed now and then.

Writers push, extend, update priorities and sample; readers sample and check each batch. Every few
seconds one of them is killed and another one takes its place. At the end the store is compared
with what all writers told over their pipes. Half of the time goes to each of two stores::

    union   larger than all that is pushed: every acknowledged transition has to be there, once
    ring    small, and written over many times: the file must not grow without bound
"""

from __future__ import annotations

import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import click
import numpy as np

from crash.checker import examine, reader_slots
from crash.common import Child, Event, ask, columns_of, numbers_from
from crash.ledger import Ledger, Verdict
from crash.reader import read
from crash.table import table
from crash.writer import Task, write

WIDTH = 8
RING = 5000
PACE = 1500.0  # transitions that a writer of the union pushes in a second
PATIENCE = 60  # seconds
GROWTH = 10.0  # times what the ring's file had after the second lap is without bound


@dataclass
class Outcome:
    """What came of one store."""

    processes: int = 0
    kills: int = 0
    batches: int = 0
    wrong: int = 0
    told: list[str] = field(default_factory=list)
    verdict: Verdict = field(default_factory=Verdict)
    laps: float = 0.0
    second_lap_bytes: int = 0
    disk_bytes: int = 0
    payload_bytes: int = 0
    slots: int = 0
    dead_slots: int = 0

    @property
    def failures(self) -> list[str]:
        """What is not as it should be, in words."""
        found = list(self.told)
        for n, what in (
            (self.verdict.lost, "transitions are lost"),
            (self.verdict.undone, "priorities are undone"),
            (self.dead_slots, "reader slots belong to dead processes"),
        ):
            found += [f"{n} {what}"] * bool(n)
        if self.second_lap_bytes and self.disk_bytes > GROWTH * self.second_lap_bytes:
            found.append(f"the file grew from {self.second_lap_bytes} to {self.disk_bytes} bytes")
        return found


class Crew:
    """The processes that have one store open."""

    def __init__(self, task: Task, writers: int, readers: int, rng: np.random.Generator) -> None:
        self.task, self.rng = task, rng
        self.ledger = Ledger(task.capacity)
        self.outcome = Outcome()
        self.children: dict[int, Child] = {}
        self.roles: dict[int, Callable[..., None]] = {}
        self._heard: dict[int, float] = {}
        for role in [write] * writers + [read] * readers:
            self._start(role)

    def work(self, seconds: float) -> None:
        """Let them work for so long, with a kill now and then, and at last with no new process.

        The last quarter shows whether those who are dead hold up pages when nobody opens the store.
        """
        end = time.monotonic() + seconds
        between = min(2.0, max(0.25, seconds / 10))
        while (now := time.monotonic()) < end - seconds / 4 and not self.outcome.told:
            self._listen(now + self.rng.exponential(between))
            role = self._kill(int(self.rng.choice(list(self.children))))
            self._start(role)
        for number in self._all(read):
            self._kill(number)
        self._listen(end)

    def leave(self) -> None:
        """Kill a writer beside the others, look at the reader slots, and have the rest close."""
        self._kill(self._all(write)[0])
        path, access = Path(self.task.path), self.task.access
        try:
            pids = ask(lambda: reader_slots(path, access))
        except RuntimeError as error:
            self.outcome.told.append(str(error))
            pids = []
        self.outcome.slots = len(pids)
        self.outcome.dead_slots = sum(not Path(f"/proc/{pid}").exists() for pid in pids)
        for child in self.children.values():
            child.send(signal.SIGTERM)
        end = time.monotonic() + PATIENCE
        while not all(child.ended for child in self.children.values()):
            self._listen(min(end, time.monotonic() + 0.1))
            if time.monotonic() > end:
                self.outcome.told.append(f"a process did not end within {PATIENCE} s")
                break
        for number in list(self.children):
            self._kill(number)

    def _all(self, role: Callable[..., None]) -> list[int]:
        return [number for number in self.children if self.roles[number] is role]

    def judge(self) -> None:
        """Compare the store with what was told."""
        try:
            found, wrong, facts = examine(Path(self.task.path), self.task.access)
        except RuntimeError as error:
            self.outcome.told.append(str(error))
            return
        self.outcome.disk_bytes = facts.get("disk_bytes", 0)
        if found:
            self.outcome.laps = found.count / self.task.capacity
            self.outcome.verdict = self.ledger.judge(found)
            wrong += self.outcome.verdict.wrong
            row = columns_of(numbers_from(0, 0, 1), self.task.width)
            self.outcome.payload_bytes = len(found.numbers) * sum(value.nbytes for value in row)
        self._report(wrong)

    def _start(self, role: Callable[..., None]) -> None:
        self.outcome.processes += 1
        number = self.outcome.processes
        self.roles[number] = role
        self.children[number] = Child(partial(role, replace(self.task, author=number)))
        self._heard[number] = time.monotonic()

    def _kill(self, number: int) -> Callable[..., None]:
        child = self.children.pop(number)
        self.outcome.kills += not child.ended
        child.send(signal.SIGKILL)
        _, events = child.wait()
        self._take_down(number, events)
        self.ledger.end(number, time.monotonic_ns())
        return self.roles[number]

    def _listen(self, end: float) -> None:
        while (now := time.monotonic()) < end:
            Child.select(self.children.values(), end - now)
            for number, child in self.children.items():
                self._take_down(number, child.events())
                if time.monotonic() - self._heard[number] > PATIENCE:
                    self.outcome.told.append(f"process {number} told nothing for {PATIENCE} s")
                    return
            self._watch_size()

    def _take_down(self, number: int, events: list[Event]) -> None:
        for event in events:
            if event[0] == "read":
                self.outcome.batches += event[2]
            elif event[0] == "wrong":
                self._report([event[2]])
            elif event[0] == "failed":
                self.outcome.told.append(event[2])
            self.ledger.record(number, event)
            self._heard[number] = time.monotonic()

    def _report(self, wrong: list[str]) -> None:
        self.outcome.wrong += len(wrong)
        self.outcome.told += wrong

    def _watch_size(self) -> None:
        written = sum(author.acknowledged for author in self.ledger.authors.values())
        if not self.outcome.second_lap_bytes and written >= 2 * self.task.capacity:
            self.outcome.second_lap_bytes = (Path(self.task.path) / "data.mdb").stat().st_size


def run(
    seconds: float, writers: int, readers: int, seed: int, access: str = "shared"
) -> dict[str, Outcome]:
    """Have both stores shared; one that failed is kept and named."""
    rng = np.random.default_rng(seed)
    place = Path(tempfile.mkdtemp(prefix="diskreplay-share-"))
    largest = int(PACE * (writers + 1) * seconds) + 10_000
    outcomes = {}
    for name, capacity, pace in (("union", largest, PACE), ("ring", RING, float("inf"))):
        path = str(place / name)
        task = Task(path, "prioritized", capacity, WIDTH, access, 0, seed, pace=pace)
        task = replace(task, commit_interval=0.05)
        crew = Crew(task, writers, readers, rng)
        crew.work(seconds / 2)
        crew.leave()
        crew.judge()
        outcomes[name] = crew.outcome
        if crew.outcome.failures:
            click.echo("\n".join([*crew.outcome.failures, f"{path} is kept"]), err=True)
        else:
            shutil.rmtree(path)
    if not any(outcome.failures for outcome in outcomes.values()):
        shutil.rmtree(place)
    return outcomes


@click.command()
@click.option(
    "--minutes",
    type=click.FloatRange(0, min_open=True),
    default=5,
    show_default=True,
    help="For both stores together.",
)
@click.option(
    "--writers",
    type=click.IntRange(1),
    default=3,
    show_default=True,
    help="Processes that write at a time.",
)
@click.option(
    "--readers",
    type=click.IntRange(0),
    default=3,
    show_default=True,
    help="Processes that read at a time.",
)
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Of what is written, and of who is killed.",
)
def main(minutes: float, writers: int, readers: int, seed: int) -> None:
    """Share a store between processes that are killed, and count what is lost.

    The exit status is 1 when anything is. Example: python -m crash.share --minutes 1 --writers 5
    """
    outcomes = run(60 * minutes, writers, readers, seed)
    facts: dict[str, Callable[[Outcome], object]] = {
        "processes": lambda o: o.processes,
        "killed": lambda o: o.kills,
        "batches that readers checked": lambda o: f"{o.batches:,}",
        "acknowledged transitions found": lambda o: f"{o.verdict.transitions:,}",
        "lost": lambda o: o.verdict.lost,
        "priorities found": lambda o: f"{o.verdict.priorities:,}",
        "undone": lambda o: o.verdict.undone,
        "wrong reads": lambda o: o.wrong,
        "laps": lambda o: f"{o.laps:.1f}",
        "payload, MB": lambda o: f"{o.payload_bytes / 1e6:.1f}",
        "file after the second lap, MB": lambda o: f"{o.second_lap_bytes / 1e6:.1f}",
        "file at the end, MB": lambda o: f"{o.disk_bytes / 1e6:.1f}",
        "reader slots in use": lambda o: o.slots,
        "reader slots of the dead": lambda o: o.dead_slots,
    }
    rows = [[fact, *(value(o) for o in outcomes.values())] for fact, value in facts.items()]
    click.echo(table(["store", *outcomes], rows))
    failures = sum(len(outcome.failures) for outcome in outcomes.values())
    click.echo(f"{failures} failures")
    sys.exit(failures > 0)


if __name__ == "__main__":
    main()
