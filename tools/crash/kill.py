"""`python -m crash.kill`: kill writers at random moments, and count what is lost.

A round is one kill -9 of all that write a store. Their forked processes tell this one over pipes
what they are about to do and what is committed; after the kill another process reopens the store,
and the ledger compares. A store is killed several times before the next one is made.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import click
import numpy as np

from crash.checker import examine
from crash.common import Child, Event
from crash.ledger import Ledger
from crash.table import table
from crash.writer import Task, write

ACCESSES = ("exclusive", "shared")
DURABILITIES = ("system", "full", "process")
PATIENCE = 30  # seconds
# The event after whose n-th telling the delay begins, and how often that is the moment.
MOMENTS = {"opening": 0.1, "open": 0.3, "commit": 0.5, "closing": 0.1}


@dataclass
class Tally:
    """What came out of the rounds of one kind."""

    rounds: int = 0
    stores: int = 0
    in_commit: int = 0
    transitions: int = 0
    lost: int = 0
    priorities: int = 0
    undone: int = 0
    wrong: int = 0
    failed: int = 0
    seconds: float = 0.0

    @property
    def is_bad(self) -> bool:
        """Whether anything is not as it should be."""
        return any((self.lost, self.undone, self.wrong, self.failed))

    def add(self, other: Tally) -> None:
        """Add up."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)


@dataclass
class Victim:
    """A store that is killed again and again."""

    path: Path
    access: str
    durability: str
    kind: str
    capacity: int
    width: int
    kills: int  # to come
    authors: int = 0
    ledger: Ledger = field(init=False)

    def __post_init__(self) -> None:
        self.ledger = Ledger(self.capacity)

    @classmethod
    def new(cls, path: Path, access: str, durability: str, rng: np.random.Generator) -> Victim:
        """Return one of random kind, capacity and record size, before it is made."""
        return cls(
            path,
            access,
            durability,
            str(rng.choice(["uniform", "prioritized"], p=[0.25, 0.75])),
            int(rng.choice([50, 1000, 4321, 10**6])),
            int(rng.choice([4, 60, 700], p=[0.5, 0.4, 0.1])),
            kills=int(rng.geometric(0.3)),
        )

    def task(self, closes: bool, rng: np.random.Generator) -> Task:
        """Return what a process that writes it is to do."""
        self.authors += 1
        return Task(
            str(self.path),
            self.kind,
            self.capacity,
            self.width,
            self.access,
            author=self.authors,
            seed=int(rng.integers(1 << 30)),
            durability=self.durability,
            commit_interval=float(rng.choice([0.0, 0.002, 0.02, 3600.0])),
            window_bytes=int(rng.choice([0, 1 << 17, 64 << 20])),
            operations=int(rng.integers(0, 60)) if closes else None,
            clears=self.access == "exclusive" and rng.random() < 0.2,
            longest=int(rng.choice([30, 300, 3000], p=[0.4, 0.5, 0.1])),
        )


class Round:
    """The processes of one round, from their start to their end."""

    def __init__(self, victim: Victim, rng: np.random.Generator) -> None:
        self.victim, self.rng = victim, rng
        self.failures: list[str] = []
        self.wrong: list[str] = []
        self.opened = False
        self.counts = dict.fromkeys(MOMENTS, 0)
        self.lasted = 1e-3  # seconds, the last commit
        self.children: dict[int, Child] = {}
        self._commits: dict[int, int] = {}  # when they began

    def run(self) -> bool:
        """Start, wait for the moment, kill; return whether a commit was under way."""
        rng = self.rng
        moment = str(rng.choice(list(MOMENTS), p=list(MOMENTS.values())))
        nth = int(rng.geometric(0.1)) if moment == "commit" else 1
        writers = 1 if self.victim.access == "exclusive" else int(rng.integers(2, 4))
        for _ in range(writers):
            task = self.victim.task(moment == "closing", rng)
            self.children[task.author] = Child(partial(write, task))
        self._listen(PATIENCE, lambda: self.counts[moment] >= nth)
        if self.counts[moment] < nth and not self.failures:
            self.failures.append(f"nothing was told for {PATIENCE} s")
        delay = {
            "opening": rng.uniform(0, 0.012),
            "open": min(rng.exponential(0.08), 0.4),
            "commit": rng.uniform(0, 1.3 * self.lasted),
            "closing": rng.uniform(0, 2 * self.lasted),
        }[moment]
        for author in rng.permutation(list(self.children)).tolist():
            self._listen(delay)
            self.children[author].send(signal.SIGKILL)
            delay = 0.0 if rng.random() < 0.5 else rng.exponential(0.02)
        for author, child in self.children.items():
            _, events = child.wait()
            self._take_down(author, events)
            self.victim.ledger.end(author, time.monotonic_ns())
        return bool(self._commits)

    def _listen(self, seconds: float, enough: Callable[[], bool] = lambda: False) -> None:
        end = time.monotonic() + seconds
        while not enough() and not self.failures and time.monotonic() < end:
            Child.select(self.children.values(), end - time.monotonic())
            for author, child in self.children.items():
                self._take_down(author, child.events())

    def _take_down(self, author: int, events: list[Event]) -> None:
        for event in events:
            name, when = event[:2]
            if name in self.counts:
                self.counts[name] += 1
            if name == "commit":
                self._commits[author] = when
            elif name == "ack":
                self.lasted = (when - self._commits.pop(author)) / 1e9
            elif name == "open":
                self.opened = True
            elif name == "failed":
                self.failures.append(event[2])
            elif name == "wrong":
                self.wrong.append(event[2])
            self.victim.ledger.record(author, event)


def play(victim: Victim, rng: np.random.Generator) -> tuple[Tally, list[str]]:
    """Play one round; return its tally, and what was not as it should be, in words."""
    began = time.monotonic()
    game = Round(victim, rng)
    tally = Tally(rounds=1, in_commit=game.run())
    told = [*game.failures, *game.wrong]
    tally.wrong += len(game.wrong)
    tally.failed += bool(game.failures)
    if victim.path.exists() or game.opened:
        try:
            found, wrong, _ = examine(victim.path, victim.access)
        except RuntimeError as error:
            tally.failed = 1
            told.append(str(error))
        else:
            if found:
                verdict = victim.ledger.judge(found)
                tally.transitions, tally.lost = verdict.transitions, verdict.lost
                tally.priorities, tally.undone = verdict.priorities, verdict.undone
                wrong += verdict.wrong
                told += [f"{verdict.lost} transitions are lost"] * bool(verdict.lost)
                told += [f"{verdict.undone} priorities are undone"] * bool(verdict.undone)
            tally.wrong += len(wrong)
            told += wrong
    tally.seconds = time.monotonic() - began
    return tally, told


def run(
    rounds: int, seed: int, accesses: tuple[str, ...], durabilities: tuple[str, ...]
) -> dict[tuple[str, str], Tally]:
    """Play rounds, spread evenly over the kinds; stores that failed are kept and named."""
    rng = np.random.default_rng(seed)
    place = Path(tempfile.mkdtemp(prefix="diskreplay-kill-"))
    kinds = [(access, durability) for access in accesses for durability in durabilities]
    tallies = {kind: Tally() for kind in kinds}
    victims: dict[tuple[str, str], Victim] = {}
    for number in range(rounds):
        kind = kinds[number % len(kinds)]
        if kind not in victims:
            victims[kind] = Victim.new(place / f"round-{number}", *kind, rng)
            tallies[kind].stores += 1
        victim = victims[kind]
        tally, told = play(victim, rng)
        tallies[kind].add(tally)
        victim.kills -= 1
        if tally.is_bad:
            told.append(f"{victim.path} is kept: it was found so after round {number}")
            click.echo("\n".join(told), err=True)
            del victims[kind]
        elif victim.kills == 0 or number >= rounds - len(kinds):
            shutil.rmtree(victim.path, ignore_errors=True)
            del victims[kind]
    for left in place.glob(".diskreplay-new-*"):  # of stores that were killed in the making
        shutil.rmtree(left)
    if not os.listdir(place):
        place.rmdir()
    return tallies


@click.command()
@click.option(
    "--rounds",
    type=click.IntRange(1),
    default=1000,
    show_default=True,
    help="A round is one kill of all that write a store.",
)
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Of what is written, and how long to wait; the moment itself is never the same.",
)
@click.option(
    "--access",
    type=click.Choice(ACCESSES),
    multiple=True,
    default=ACCESSES,
    help="Of the writers; may be given several times.  [default: all]",
)
@click.option(
    "--durability",
    type=click.Choice(DURABILITIES),
    multiple=True,
    default=DURABILITIES,
    help="Of the writers; may be given several times.  [default: all]",
)
def main(rounds: int, seed: int, access: tuple[str, ...], durability: tuple[str, ...]) -> None:
    """Kill writers of stores at random moments, reopen, and count what is lost.

    The exit status is 1 when anything is. Example: python -m crash.kill --rounds 100 --seed 7
    """
    began = time.monotonic()
    tallies = run(rounds, seed, access, durability)
    heads = ["access, durability", "rounds", "stores", "in a commit", "transitions", "lost"]
    heads += ["priorities", "undone", "wrong reads", "failed"]
    names = [name for name in vars(Tally()) if name != "seconds"]
    rows = [
        [", ".join(kind), *(f"{getattr(tally, name):,}" for name in names)]
        for kind, tally in tallies.items()
    ]
    click.echo(table(heads, rows))
    total = Tally()
    for tally in tallies.values():
        total.add(tally)
    click.echo(
        f"{total.rounds:,} rounds in {time.monotonic() - began:.0f} s: "
        f"of {total.transitions + total.lost:,} acknowledged transitions {total.lost:,} lost, "
        f"of {total.priorities:,} priorities {total.undone:,} undone, "
        f"{total.wrong:,} wrong reads, {total.failed:,} failed stores"
    )
    sys.exit(total.is_bad)


if __name__ == "__main__":
    main()
