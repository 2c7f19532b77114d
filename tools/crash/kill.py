"""`python -m crash.kill`: kill writers at random moments, and count what is lost.

A round is one kill -9 of all that write a store. Their forked processes tell this one over pipes
what they are about to do and what is committed; after the kill another process reopens the store,
and the ledger compares. A store is killed several times before the next one is made.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import click
import numpy as np

from crash import report
from crash.group import Group
from crash.ledger import Ledger
from crash.processes import Event
from crash.writer import Task, write

ACCESSES = ("exclusive", "shared")
DURABILITIES = ("system", "full", "process")
ROWS = ("transitions", "lost")
UPDATES = ("priorities", "undone")
COLUMNS = ("rounds", "stores", "in a commit", *ROWS, *UPDATES, "wrong reads", "failed")
BAD = ("lost", "undone", "wrong reads", "failed")
PATIENCE = 30  # seconds
# The event after whose n-th telling the delay begins, and how often that is the moment.
MOMENTS = {"opening": 0.1, "open": 0.3, "commit": 0.5, "closing": 0.1}


class Target(Group):
    """A store that is killed again and again, and the processes that write it meanwhile."""

    def __init__(
        self,
        path: Path,
        access: str,
        durability: str,
        rng: np.random.Generator,
        *,
        is_logged: bool,
    ) -> None:
        task = Task(
            str(path),
            str(rng.choice(["uniform", "prioritized"], p=[0.25, 0.75])),
            int(rng.choice([50, 1000, 4321, 10**6])),
            int(rng.choice([4, 60, 700], p=[0.5, 0.4, 0.1])),
            access,
            seed=0,
            durability=durability,
            is_logged=is_logged,
            keep_rows=300 if access == "exclusive" and rng.random() < 0.6 else 0,
        )
        super().__init__(task, Ledger(task.capacity))
        self.path, self.rng = path, rng
        self.kills = int(rng.geometric(0.3))  # to come

    def play(self) -> None:
        """Play one round: start writers, wait for the moment, kill all, and compare."""
        rng = self.rng
        self.counts = Counter(rounds=1, stores=not self.started)
        self.opened = False
        self.moments = dict.fromkeys(MOMENTS, 0)
        self.lasted = 1e-3  # seconds, the last commit
        self.commits: dict[int, int] = {}  # those under way: when they began
        moment = str(rng.choice(list(MOMENTS), p=list(MOMENTS.values())))
        nth = int(rng.geometric(0.1)) if moment == "commit" else 1
        for _ in range(1 if self.task.access == "exclusive" else int(rng.integers(2, 4))):
            self.start(write, self._random_task(closes=moment == "closing"))
        self._listen(PATIENCE, lambda: self.moments[moment] >= nth)
        if self.moments[moment] < nth and not self.failures:
            self.fail("failed", f"nothing was told for {PATIENCE} s")
        delay = {
            "opening": rng.uniform(0, 0.012),
            "open": min(rng.exponential(0.08), 0.4),
            "commit": rng.uniform(0, 1.3 * self.lasted),
            "closing": rng.uniform(0, 2 * self.lasted),
        }[moment]
        for number in rng.permutation(list(self.children)).tolist():
            self._listen(delay)
            self.kill(number)
            delay = 0.0 if rng.random() < 0.5 else rng.exponential(0.02)
        self.kills -= 1
        self.counts["in a commit"] += bool(self.commits)
        if self.path.exists() or self.opened:
            self.compare(self.path, self.ledger)
        self.counts["failed"] = min(1, self.counts["failed"])

    def _random_task(self, *, closes: bool) -> Task:
        """Return what one process is to do."""
        rng = self.rng
        return replace(
            self.task,
            seed=int(rng.integers(1 << 30)),
            commit_interval=float(rng.choice([0.0, 0.002, 0.02, 3600.0])),
            window_bytes=int(rng.choice([0, 1 << 17, 64 << 20])),
            operations=int(rng.integers(0, 60)) if closes else None,
            clears=self.task.access == "exclusive" and rng.random() < 0.2,
            longest=int(rng.choice([30, 300, 3000], p=[0.4, 0.5, 0.1])),
        )

    def _listen(self, seconds: float, enough: Callable[[], bool] = lambda: False) -> None:
        end = time.monotonic() + seconds
        while not enough() and not self.failures and time.monotonic() < end:
            self.hear(end - time.monotonic())

    def note(self, number: int, event: Event) -> None:
        """Count an event, and what the moment of the kill depends on."""
        name, when = event[:2]
        if name in self.moments:
            self.moments[name] += 1
        if name == "commit":
            self.commits[number] = when
        elif name == "ack":
            self.lasted = (when - self.commits.pop(number)) / 1e9
        elif name == "open":
            self.opened = True
        super().note(number, event)


def run(
    rounds: int, seed: int, accesses: tuple[str, ...], durabilities: tuple[str, ...]
) -> report.Counts:
    """Play rounds, spread evenly over the kinds; stores that failed are kept and named."""
    rng = np.random.default_rng(seed)
    kinds = [(access, durability) for access in accesses for durability in durabilities]
    counts = report.Counts("access, durability", COLUMNS)
    targets: dict[tuple[str, str], Target] = {}
    with report.kept_place("kill") as place:
        for number in range(rounds):
            kind = kinds[number % len(kinds)]
            if kind not in targets:
                is_logged = number // len(kinds) % 5 in (1, 3)
                made = Target(place / f"round-{number}", *kind, rng, is_logged=is_logged)
                targets[kind] = made
            target = targets[kind]
            target.play()
            counts.add(", ".join(kind), target.counts)
            if target.failures or target.kills == 0 or number >= rounds - len(kinds):
                when = f": it was found so after round {number}"
                report.keep_or_remove(target.path, target.failures, when)
                del targets[kind]
    return counts


@click.command()
@report.number("--rounds", 1000, "A round is one kill of all that write a store.")
@report.seed("Of what is written, and how long to wait; the moment itself is never the same.")
@report.choices("--access", ACCESSES, "Of the writers")
@report.choices("--durability", DURABILITIES, "Of the writers")
def main(rounds: int, seed: int, access: tuple[str, ...], durability: tuple[str, ...]) -> None:
    """Kill writers of stores at random moments, reopen, and count what is lost.

    The exit status is 1 when anything is. Example: python -m crash.kill --rounds 100 --seed 7
    """
    began = time.monotonic()
    counts = run(rounds, seed, access, durability)
    total = counts.total
    click.echo(counts.table())
    click.echo(
        f"{total['rounds']:,} rounds in {time.monotonic() - began:.0f} s: "
        f"of {total['transitions'] + total['lost']:,} acknowledged transitions "
        f"{total['lost']:,} lost, "
        f"of {total['priorities']:,} priorities {total['undone']:,} undone, "
        f"{total['wrong reads']:,} wrong reads, {total['failed']:,} failed stores"
    )
    sys.exit(counts.has(BAD))


if __name__ == "__main__":
    main()
