"""The processes of crash.company, the faults that they met, and the comparison at the end."""

from __future__ import annotations

import copy
import re
import signal
import time
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import diskreplay
from crash.checker import examine
from crash.company_roles import SHOW, opening, reading, writing
from crash.file_faults import DATA, LOCK, Fault, Files
from crash.group import Group, Role
from crash.ledger import Ledger
from crash.processes import Event, ask
from crash.rows import columns_of, numbers_from, pushed_priorities
from crash.writer import Task

CAPACITY, WIDTH, BASE = 1_000_000, 8, 400
PATIENCE = 30  # seconds
# All others say that rows are not there which are in every file.
EXPECTED_ERRORS = (
    "DamageError", "FormatVersionError", "LockedError", "NotAStoreError", "StorageError"
)  # fmt: skip


@dataclass
class Opened:
    """What a process has open, and what it was told last."""

    data: int | None = None  # the inode of the data file
    lock: int | None = None
    acknowledged: int = 0
    began: int = 0  # its last commit, or the first of the batches that it tells of at once


class Company(Group):
    """Processes that are killed, stopped and replaced while the files of their store change."""

    wrong_column, failed_column, unreadable_column = "wrong", "other error", "wrong"

    def __init__(self, task: Task, files: Files, fault: Fault, rng: np.random.Generator) -> None:
        super().__init__(task, start_ledger(Path(task.path)))
        self.files, self.disturbed, self.rng = files, fault, rng
        self.errors: Counter[str] = Counter()
        self.opened: defaultdict[int, Opened] = defaultdict(Opened)
        self.resumes: dict[int, float] = {}  # when, after it was stopped
        self.ledgers: dict[int, Ledger] = {}  # by the inode of the data file
        writers = 1 if task.access == "exclusive" else 3
        self.wanted: list[Role] = [*[writing] * writers, reading, reading, opening, opening]

    # Working

    def work(self, seconds: float) -> None:
        """Wait for so long while they work; replace a process that is killed, or has ended."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self.failures:
            missing = Counter(self.wanted) - Counter(self.roles[n] for n in self.children)
            for role in missing.elements():
                self.start(role)
            self._listen(min(end, time.monotonic() + self.rng.exponential(seconds / 8)))
            if not self.children:
                continue
            number = int(self.rng.choice(list(self.children)))
            draw = self.rng.random()
            if draw < 0.3:
                self.kill(number)
            elif draw < 0.6:
                self.counts["stopped"] += 1
                self.resumes[number] = time.monotonic() + self.rng.exponential(seconds / 4)
                self.send(number, signal.SIGSTOP)

    def leave(self) -> None:
        """End all processes: kill some, and ask the others to."""
        for number in list(self.children):
            if self.rng.random() < 0.3:
                self.kill(number)
            else:
                self.send(number, signal.SIGCONT)
                self.send(number, signal.SIGTERM)
        end = time.monotonic() + PATIENCE
        while self.children and time.monotonic() < end:
            self._listen(time.monotonic() + 0.05)
        for number in list(self.children):
            self.fail("hung", f"process {number} did not end within {PATIENCE} s")
            self.send(number, SHOW)
            self._listen(time.monotonic() + 0.2)
            if number in self.children:
                self.kill(number)

    def end(self, number: int, *, is_killed: bool = True) -> int:
        """Wait for the end of a process; no signal but those that it is sent may cause it."""
        status = super().end(number)
        self.resumes.pop(number, None)
        sent = (-signal.SIGTERM, -signal.SIGKILL) if is_killed else (-signal.SIGTERM,)
        if status < 0 and status not in sent:
            role = self.roles[number].__name__
            self.fail("by signal", f"process {number} ({role}) ended by {-status}")
        return status

    def _listen(self, end: float) -> None:
        while (now := time.monotonic()) < end and self.children:
            self.hear(min([end, *self.resumes.values()]) - now)
            for number, child in list(self.children.items()):
                if number in self.resumes and self.resumes[number] <= time.monotonic():
                    del self.resumes[number]
                    self.send(number, signal.SIGCONT)
                if child.ended:
                    self.end(number, is_killed=False)

    # Noting

    def note(self, number: int, event: Event) -> None:
        """Count an event, and see that it is not of files that were not at their path."""
        name, when, *what = event
        opened = self.opened[number]
        if name == "open":
            opened.data, opened.lock = what
            opened.began = when
        elif name == "commit":
            opened.began = when
        elif name == "ack":
            if what[0] > opened.acknowledged:
                self._check_place(number, when, "committed to")
            opened.acknowledged = what[0]
        elif name == "read":
            self._check_place(number, when, "read from")
            opened.began = when
        elif name == "refused":
            self._note_refusal(*what)
        super().note(number, event)

    def _check_place(self, number: int, ended: int, done: str) -> None:
        """Count a commit to, or a look at, files that were not at their path."""
        opened = self.opened[number]
        for file, inode in ((DATA, opened.data), (LOCK, opened.lock)):
            if self.files.was_missing(file, inode, opened.began, ended):
                what = f"process {number} {done} a {file} that was not at its path"
                self.fail("unnoticed", what)
                return

    def _note_refusal(self, kind: str, text: str) -> None:
        self.counts["refused"] += 1
        place = str(self.files.place)
        self.errors[_without_numbers(f"{kind}: {text.replace(place, '')}")] += 1
        if self.task.path not in text:
            self.fail("other error", f"an error does not name the store: {kind}: {text}")
        if kind not in EXPECTED_ERRORS:
            self.fail("wrong", f"{kind}: {text}")
        if self.disturbed.is_harmless and kind != "LockedError":
            self.fail("other error", f"there was nothing to refuse: {kind}: {text}")

    def ledger_of(self, number: int) -> Ledger:
        """Return the ledger of the data file that a process has open."""
        inode = self.opened[number].data or self.files.inodes[DATA]
        if inode not in self.ledgers:
            self.ledgers[inode] = copy.deepcopy(self.ledger)
        return self.ledgers[inode]

    # Judging

    def judge(self) -> None:
        """Compare the data files with what was told, when all of them are as they were."""
        places = {self.files.inodes[DATA]: self.files.store, **self.files.others}
        for inode, path in places.items():
            ledger = self.ledgers.get(inode, copy.deepcopy(self.ledger))
            if path == self.files.store or ledger.acknowledged:
                self._judge_one(path, ledger)
        self.ledgers = {}

    def _judge_one(self, path: Path, ledger: Ledger) -> None:
        before = self.counts["lost"], self.counts["undone"]
        try:
            for fault in ask(lambda: diskreplay.verify(path)):
                self.fail("wrong", f"{path}: {fault}")
        except RuntimeError as error:
            self.fail("wrong", f"{path}: {error}")
            return
        if self.compare(path, ledger) and path == self.files.store:
            self.ledger = copy.deepcopy(ledger)
        after = self.counts["lost"], self.counts["undone"]
        self.counts["wrong"] += sum(a > b for a, b in zip(after, before, strict=True))


def _without_numbers(text: str) -> str:
    """Return a text that is the same for all processes, times and pages."""
    text = re.sub(r"pid \d+ on \S+, since \S+ \S+ [+-]\d+", "pid P", text)
    return re.sub(r"\d+", "N", re.sub(r"pid P( and pid P)+", "pids P", text))


def start_ledger(path: Path) -> Ledger:
    """Return what is known of a store that no process has written to since it was filled."""
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
    """Make the store, with rows that every copy of it has."""
    numbers = numbers_from(0, 0, BASE)
    given = pushed_priorities(numbers) if task.is_prioritized else None
    with task.open() as buffer:
        buffer.extend(*columns_of(numbers, WIDTH), priorities=given)
