"""`python -m crash.share`: kill processes that share a store with others.

Writers push, extend, update priorities and sample; readers sample and check each batch. Every few
seconds one of them is killed and another one takes its place. At the end the store is compared
with what all writers told over their pipes. A quarter of the time goes to each of four stores::

    union   larger than all that is pushed: every acknowledged transition has to be there, once
    ring    small, and written over many times: the file must not grow without bound
    wide    a small ring of rows whose places in the file are remembered, with the least window
    logged  a ring of rows whose states are in the observation log
"""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

import click
import numpy as np

from crash import report
from crash.checker import reader_slots
from crash.group import Group, Role
from crash.ledger import Ledger
from crash.processes import Event, ask
from crash.reader import read
from crash.rows import columns_of, numbers_from
from crash.writer import Task, write

WIDTH, WIDE = 8, 252
RING, WIDE_RING = 5000, 1000
PACE = 1500.0  # transitions that a writer of the union pushes in a second
PATIENCE = 60  # seconds
GROWTH = 10.0  # times what the ring's file had after the second lap is without bound


class Sharing(Group):
    """The processes that share one store for a while."""

    def __init__(self, task: Task, writers: int, readers: int, rng: np.random.Generator) -> None:
        super().__init__(task, Ledger(task.capacity))
        self.rng = rng
        self.path = Path(task.path)
        self.second_lap_bytes = 0
        for role in [write] * writers + [read] * readers:
            self.start(role)

    def run(self, seconds: float) -> None:
        """Wait for so long while they work; kill one now and then, and at last start no new one.

        The last quarter shows whether dead processes hold up pages when none opens the store.
        """
        end = time.monotonic() + seconds
        between = min(2.0, max(0.25, seconds / 10))
        while (now := time.monotonic()) < end - seconds / 4 and not self.failures:
            self._listen(now + self.rng.exponential(between))
            number = int(self.rng.choice(list(self.children)))
            self.kill(number)
            self.start(self.roles[number])
        for number in self._all(read):
            self.kill(number)
        self._listen(end)

    def finish(self) -> None:
        """Kill a writer beside the others, look at the reader slots, and have the rest close."""
        self.kill(self._all(write)[0])
        try:
            pids = ask(lambda: reader_slots(self.path, self.task.access))
        except RuntimeError as error:
            self.fail("failed", str(error))
            pids = []
        self.counts["slots"] = len(pids)
        dead = sum(not Path(f"/proc/{pid}").exists() for pid in pids)
        if dead:
            self.fail("failed", f"{dead} reader slots belong to dead processes")
        self.counts["dead slots"] = dead
        for number in self.children:
            self.send(number, signal.SIGTERM)
        end = time.monotonic() + PATIENCE
        while not all(child.ended for child in self.children.values()):
            self._listen(min(end, time.monotonic() + 0.1))
            if time.monotonic() > end:
                self.fail("failed", f"a process did not end within {PATIENCE} s")
                break
        self.kill_all()

    def figures(self) -> dict[str, str]:
        """Compare the store with what was told, and return the figures of the table."""
        stats = self.compare(self.path, self.ledger)
        size, grown = self.second_lap_bytes, stats.get("disk_bytes", 0)
        if size and grown > GROWTH * size:
            self.fail("failed", f"the file grew from {size} to {grown} bytes")
        row = columns_of(numbers_from(0, 0, 1), self.task.width)
        payload = stats.get("size", 0) * sum(value.nbytes for value in row)
        n = self.counts
        return {
            "processes": str(self.started),
            "killed": str(n["killed"]),
            "batches that readers checked": f"{n['batches']:,}",
            "acknowledged transitions found": f"{n['transitions']:,}",
            "lost": str(n["lost"]),
            "priorities found": f"{n['priorities']:,}",
            "undone": str(n["undone"]),
            "wrong reads": str(n["wrong reads"]),
            "laps": f"{stats.get('count', 0) / self.task.capacity:.1f}",
            "payload, MB": f"{payload / 1e6:.1f}",
            "file after the second lap, MB": f"{size / 1e6:.1f}",
            "file at the end, MB": f"{grown / 1e6:.1f}",
            "reader slots in use": str(n["slots"]),
            "reader slots of the dead": str(n["dead slots"]),
        }

    def note(self, number: int, event: Event) -> None:
        """Count an event."""
        if event[0] == "read":
            self.counts["batches"] += event[2]
        super().note(number, event)

    def _all(self, role: Role) -> list[int]:
        return [number for number in self.children if self.roles[number] is role]

    def _listen(self, end: float) -> None:
        while (now := time.monotonic()) < end:
            self.hear(end - now)
            for number in self.children:
                if time.monotonic() - self.heard[number] > PATIENCE:
                    self.fail("failed", f"process {number} told nothing for {PATIENCE} s")
                    return
            if not self.second_lap_bytes and self.ledger.acknowledged >= 2 * self.task.capacity:
                self.second_lap_bytes = (self.path / "data.mdb").stat().st_size


@click.command()
@report.duration("--minutes", 5, "For all stores together.")
@report.number("--writers", 3, "Processes that write at a time.")
@report.number("--readers", 3, "Processes that read at a time.", least=0)
@report.seed("Of what is written, and which process is killed.")
def main(minutes: float, writers: int, readers: int, seed: int) -> None:
    """Share a store between processes that are killed, and count what is lost.

    The exit status is 1 when anything is. Example: python -m crash.share --minutes 1 --writers 5
    """
    seconds = 60 * minutes
    rng = np.random.default_rng(seed)
    largest = int(PACE * (writers + 1) * seconds) + 10_000
    figures: dict[str, dict[str, str]] = {}
    failures = 0
    with report.kept_place("share") as place:
        for name, capacity, width, others in (
            ("union", largest, WIDTH, {"pace": PACE}),
            ("ring", RING, WIDTH, {}),
            ("wide", WIDE_RING, WIDE, {"window_bytes": 0}),
            ("logged", RING, WIDE, {"is_logged": True}),
        ):
            task = Task(
                str(place / name), "prioritized", capacity, width, "shared", seed,
                commit_interval=0.05, **others,
            )  # fmt: skip
            sharing = Sharing(task, writers, readers, rng)
            sharing.run(seconds / 4)
            sharing.finish()
            figures[name] = sharing.figures()
            report.keep_or_remove(sharing.path, sharing.failures)
            failures += len(sharing.failures)
    rows = [[name, *(of[name] for of in figures.values())] for name in figures["union"]]
    click.echo(report.table(["store", *figures], rows))
    click.echo(f"{failures} failures")
    sys.exit(failures > 0)


if __name__ == "__main__":
    main()
