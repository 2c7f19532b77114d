"""Company: the processes that have a store open while its files are disturbed, and their judge."""

from __future__ import annotations

import copy
import re
import signal
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

import diskreplay
from crash.checker import examine
from crash.common import (
    Child,
    Event,
    ask,
    columns_of,
    numbers_from,
    pushed_priorities,
)
from crash.disturbing import DATA, LOCK, QUIET, Files, Plan
from crash.ledger import Ledger
from crash.member import SHOW, Role, opening, reading, writing
from crash.writer import Task

CAPACITY, WIDTH, BASE = 1_000_000, 8, 400
PATIENCE = 30  # seconds
# All others say that transitions are not there which are in every file.
OURS = ("DamageError", "FormatVersionError", "LockedError", "NotAStoreError", "StorageError")


@dataclass
class Tally:
    """What came out of the rounds of one kind."""

    rounds: int = 0
    processes: int = 0
    killed: int = 0
    stopped: int = 0
    refused: int = 0
    transitions: int = 0
    lost: int = 0
    unnoticed: int = 0
    by_signal: int = 0
    other_error: int = 0
    hung: int = 0
    wrong: int = 0

    @property
    def is_bad(self) -> bool:
        """Whether anything is not as it should be."""
        return any(getattr(self, name) for name in list(vars(self))[6:])

    def add(self, other: Tally) -> None:
        """Add up."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)


@dataclass
class Member:
    """A process, and what it told that matters beside what its ledger takes down."""

    role: Role
    child: Child
    data: int | None = None  # the inode of the data file that it has open
    lock: int | None = None
    is_killed: bool = False
    resumes: float | None = None  # when, after it was stopped
    acknowledged: int = 0
    began: int = 0  # its last commit, or the first of the batches that it tells of at once
    events: list[Event] = field(default_factory=list)  # before it is known what it has open


class Company:
    """The processes that have one store open, and what they told."""

    def __init__(self, task: Task, files: Files, plan: Plan, rng: np.random.Generator) -> None:
        self.task, self.files, self.plan, self.rng = task, files, plan, rng
        self.tally = Tally(rounds=1)
        self.told: list[str] = []
        self.errors: Counter[str] = Counter()
        self.members: dict[int, Member] = {}
        self.numbers = 0
        self.ledgers: dict[int, Ledger] = {}
        self.base = base_of(Path(task.path))
        writers = 1 if task.access == "exclusive" else 3
        self.roles: list[Role] = [*[writing] * writers, reading, reading, opening, opening]

    # Working

    def work(self, seconds: float) -> None:
        """Let them work for so long; who is killed, or has ended, is replaced."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self.told:
            self._fill_up()
            self._listen(min(end, time.monotonic() + self.rng.exponential(seconds / 8)))
            if not self.members:
                continue
            number = int(self.rng.choice(list(self.members)))
            draw = self.rng.random()
            if draw < 0.3:
                self._kill(number)
            elif draw < 0.6:
                self._stop(number, self.rng.exponential(seconds / 4))

    def leave(self) -> None:
        """Have all end: some are killed, the others are asked to."""
        for number in list(self.members):
            if self.rng.random() < 0.3:
                self._kill(number)
            else:
                self._send(number, signal.SIGCONT)
                self._send(number, signal.SIGTERM)
        end = time.monotonic() + PATIENCE
        while self.members and time.monotonic() < end:
            self._listen(time.monotonic() + 0.05)
        for number in list(self.members):
            self.tally.hung += 1
            self.told.append(f"process {number} did not end within {PATIENCE} s")
            self._send(number, SHOW)
            self._listen(time.monotonic() + 0.2)
            self._kill(number)

    def disband(self) -> None:
        """Kill all that are left, whatever they tell."""
        for member in self.members.values():
            member.child.send(signal.SIGKILL)
            member.child.wait()

    def _fill_up(self) -> None:
        missing = Counter(self.roles) - Counter(member.role for member in self.members.values())
        for role in missing.elements():
            self.numbers += 1
            self.tally.processes += 1
            task = replace(self.task, author=self.numbers)
            self.members[self.numbers] = Member(role, Child(partial(role, task)))

    def _send(self, number: int, what: signal.Signals) -> None:
        if not self.members[number].child.ended:
            self.members[number].child.send(what)

    def _kill(self, number: int) -> None:
        self.members[number].is_killed = True
        self.tally.killed += 1
        self._send(number, signal.SIGKILL)
        self._end(number)

    def _stop(self, number: int, seconds: float) -> None:
        self.tally.stopped += 1
        self.members[number].resumes = time.monotonic() + seconds
        self._send(number, signal.SIGSTOP)

    def _listen(self, end: float) -> None:
        while (now := time.monotonic()) < end and self.members:
            stopped = [m.resumes for m in self.members.values() if m.resumes is not None]
            until = min([end, *stopped])
            Child.select([member.child for member in self.members.values()], until - now)
            for number, member in list(self.members.items()):
                self._take_down(number, member.child.events())
                if member.resumes is not None and member.resumes <= time.monotonic():
                    member.resumes = None
                    self._send(number, signal.SIGCONT)
                if member.child.ended:
                    self._end(number)

    def _end(self, number: int) -> None:
        """Take down how a process ended."""
        member = self.members[number]
        status, events = member.child.wait()
        self._take_down(number, events)
        del self.members[number]
        self._ledger_of(member).end(number, time.monotonic_ns())
        sent = (-signal.SIGTERM, *[-signal.SIGKILL] * member.is_killed)
        if status < 0 and status not in sent:
            self.tally.by_signal += 1
            self.told.append(f"process {number} ({member.role.__name__}) ended by {-status}")

    # Listening

    def _take_down(self, number: int, events: Iterable[Event]) -> None:
        member = self.members[number]
        for event in events:
            name, when, *what = event
            if name == "open":
                member.data, member.lock = what
                member.began = when
            elif name == "commit":
                member.began = when
            elif name in ("ack", "read"):
                is_news = name == "read" or what[0] > member.acknowledged
                if is_news:
                    self._check_place(number, member, when, name)
                if name == "read":
                    member.began = when
                else:
                    member.acknowledged = what[0]
            elif name == "failed":
                self.tally.other_error += 1
                self.told.append(what[0])
            elif name == "wrong":
                self.tally.wrong += 1
                self.told.append(what[0])
            elif name == "refused":
                self._refuse(*what)
            self._ledger_of(member).record(number, event)

    def _check_place(self, number: int, member: Member, ended: int, name: str) -> None:
        """Take down a commit or a look at files that were not those at the path."""
        for file, inode in ((DATA, member.data), (LOCK, member.lock)):
            for period in self.files.periods:
                if (
                    period.name == file
                    and inode is not None
                    and period.forbids(inode, member.began, ended)
                ):
                    self.tally.unnoticed += 1
                    done = "committed to" if name == "ack" else "read from"
                    self.told.append(f"process {number} {done} a {file} that was not at its path")
                    return

    def _refuse(self, kind: str, text: str) -> None:
        self.tally.refused += 1
        place = str(self.files.place)
        self.errors[_without_numbers(f"{kind}: {text.replace(place, '')}")] += 1
        if self.task.path not in text:
            self.tally.other_error += 1
            self.told.append(f"an error does not name the store: {kind}: {text}")
        if kind not in OURS:
            self.tally.wrong += 1
            self.told.append(f"{kind}: {text}")
        is_quiet = self.plan.name == "nothing" or self.plan.act in QUIET.get(self.plan.name, ())
        if is_quiet and kind != "LockedError":
            self.tally.other_error += 1
            self.told.append(f"there was nothing to refuse: {kind}: {text}")

    def _ledger_of(self, member: Member) -> Ledger:
        """Return the ledger of the data file that a process has open."""
        inode = self.files.inodes[DATA] if member.data is None else member.data
        if inode not in self.ledgers:
            self.ledgers[inode] = copy.deepcopy(self.base)
        return self.ledgers[inode]

    # Judging

    def judge(self) -> None:
        """Compare the data files with what was told, when all of them are as they were."""
        places = {self.files.inodes[DATA]: self.files.store, **self.files.worlds}
        for inode, path in places.items():
            ledger = self.ledgers.get(inode)
            if path == self.files.store or (ledger and self._is_written(ledger)):
                self._judge_one(path, ledger or copy.deepcopy(self.base))
        self.ledgers = {}

    def _is_written(self, ledger: Ledger) -> bool:
        return any(author.acknowledged for author in ledger.authors.values())

    def _judge_one(self, path: Path, ledger: Ledger) -> None:
        try:
            wrong = ask(lambda: diskreplay.verify(path))
            found, more, _ = examine(path, self.task.access)
        except RuntimeError as error:
            self.tally.wrong += 1
            self.told.append(f"{path}: {error}")
            return
        wrong += more
        if found:
            verdict = ledger.judge(found)
            self.tally.transitions += verdict.transitions
            self.tally.lost += verdict.lost
            wrong += verdict.wrong
            wrong += [f"{verdict.lost} transitions are lost"] * bool(verdict.lost)
            wrong += [f"{verdict.undone} priorities are undone"] * bool(verdict.undone)
            if path == self.files.store:
                self.base = copy.deepcopy(ledger)
        self.tally.wrong += len(wrong)
        self.told += [f"{path}: {fault}" for fault in wrong]


def _without_numbers(text: str) -> str:
    """Return a text that is the same for all processes, times and pages."""
    text = re.sub(r"pid \d+ on \S+, since \S+ \S+ [+-]\d+", "pid P", text)
    return re.sub(r"\d+", "N", re.sub(r"pid P( and pid P)+", "pids P", text))


def base_of(path: Path) -> Ledger:
    """Return what is known of a store that nobody has written to since it was filled."""
    ledger = Ledger(CAPACITY)
    ledger.record(0, ["push", 0, BASE])
    ledger.record(0, ["ack", 0, BASE])
    found, wrong, _ = examine(path, "read")
    if found:
        wrong += ledger.judge(found).wrong
    if wrong:
        raise RuntimeError(f"{path} was wrong before anything was done: {wrong}")
    return ledger


def fill(task: Task) -> None:
    """Make the store, with transitions that every copy of it has."""
    numbers = numbers_from(0, 0, BASE)
    more = {"priorities": pushed_priorities(numbers)} if task.kind == "prioritized" else {}
    with task.open() as buffer:
        buffer.extend(*columns_of(numbers, WIDTH), **more)
