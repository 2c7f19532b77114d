"""Disturbing the files of a store while processes have it open, and putting them back.

::

    PLACE/
      store/       the store
      older/       its files as they were before the crew came
      original/    the files that were taken away, to be put back as they are
      worlds/N/    a store of the N-th data file that stood in place of the original for a while
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

DATA, LOCK, OPENERS = "data.mdb", "lock.mdb", "openers"
MAPPED = (DATA, LOCK)
SMALL = ("writer.lock", "openers.lock", "diskreplay.json", "data.known")
NAMES = (*MAPPED, *SMALL, OPENERS)
ACTS = ("removed", "link to it", "link to older", "older", "empty", "garbage", "cut")
# In these, who opens or has it open meets nothing wrong, but that an exclusive writer is there.
QUIET = {"data.known": ("removed", "older", "empty", "garbage", "cut", "truncated in place")}


@dataclass(frozen=True)
class Plan:
    """What is done to which file of a store; `is_calm`: while no process has the store open."""

    name: str
    act: str

    @property
    def is_calm(self) -> bool:
        """Whether it is done while no process has the store open."""
        return self.act in ("cut in place", "older in place")

    def __str__(self) -> str:
        return f"{self.name} {self.act}"


PLANS = (
    Plan("nothing", "disturbed"),
    *(Plan(name, act) for name in NAMES for act in ACTS),
    *(Plan(name, "truncated in place") for name in SMALL),
    *(Plan(name, "cut in place") for name in MAPPED),
    Plan(DATA, "older in place"),
)


@dataclass
class Period:
    """A time in which a certain file was in place; `inode` is None where it is not known."""

    name: str
    began: int
    inode: int | None
    not_inode: int | None = None  # the one that was certainly not
    ended: int | None = None

    def forbids(self, inode: int, began: int, ended: int) -> bool:
        """Return whether a file was certainly not in place from `began` to `ended`."""
        if began < self.began or (self.ended is not None and ended > self.ended):
            return False
        return inode == self.not_inode or (self.inode is not None and inode != self.inode)


@dataclass
class Files:
    """The files of one store, and what was done to them."""

    place: Path
    rng: np.random.Generator
    periods: list[Period] = field(default_factory=list)
    worlds: dict[int, Path] = field(default_factory=dict)  # by the inode of their data file
    _kept: bytes | None = None

    def __post_init__(self) -> None:
        self.store = self.place / "store"
        shutil.copytree(self.store, self.place / "older")
        (self.place / "original").mkdir()
        self.inodes = {name: (self.store / name).stat().st_ino for name in NAMES}

    def disturb(self, plan: Plan) -> None:
        """Do to a file what the plan says."""
        if plan.name == "nothing":
            return
        self.put_back(plan)
        path, original = self.store / plan.name, self.place / "original" / plan.name
        if plan.act in ("truncated in place", "cut in place", "older in place"):
            self._kept = path.read_bytes()
            os.truncate(path, self._shorter(plan, len(self._kept)))
            if plan.act == "older in place":
                path.write_bytes((self.place / "older" / plan.name).read_bytes())
            return
        new = self._replacement(plan, original)
        self._end_period(plan.name)
        os.rename(path, original)
        while new is not None and os.path.lexists(new):
            try:
                os.rename(new, path)
            except OSError:  # a process was faster to make a directory
                self._take_away(path)
        known = path.stat().st_ino if new is not None and plan.name in MAPPED else None
        away = self.inodes[plan.name] if known != self.inodes[plan.name] else None
        self.periods.append(Period(plan.name, time.monotonic_ns(), known, away))

    def put_back(self, plan: Plan) -> None:
        """Put the file back as it was, or as its users have it; twice is once."""
        path, original = self.store / plan.name, self.place / "original" / plan.name
        if self._kept is not None:
            if plan.act != "older in place":
                with path.open("r+b") as file:
                    file.write(self._kept)
            self._kept = None
        elif os.path.lexists(original):
            self._end_period(plan.name)
            while os.path.lexists(original):
                self._take_away(path)
                with contextlib.suppress(OSError):  # as above
                    os.rename(original, path)
            self.periods.append(Period(plan.name, time.monotonic_ns(), self.inodes[plan.name]))

    def _end_period(self, name: str) -> None:
        for period in self.periods:
            if period.name == name and period.ended is None:
                period.ended = time.monotonic_ns()

    def _take_away(self, path: Path) -> None:
        """Move away what stands in place of a file; of data files, make stores to look at later."""
        if path.name == DATA and path.is_file() and not path.is_symlink():
            world = self.place / "worlds" / str(len(self.worlds))
            world.mkdir(parents=True)
            for name in SMALL[:-1]:
                shutil.copy(self.place / "older" / name, world)
            (world / OPENERS).mkdir()
            self.worlds[path.stat().st_ino] = world
            os.rename(path, world / DATA)
        else:
            with contextlib.suppress(FileNotFoundError):
                os.rename(path, tempfile.mkdtemp(dir=self.place) + "/" + path.name)

    def _replacement(self, plan: Plan, original: Path) -> Path | None:
        """Make what takes the place of a file, beside it."""
        older, new = self.place / "older" / plan.name, self.place / "new"
        whole = older.read_bytes() if older.is_file() else b""
        if plan.act == "removed":
            return None
        if plan.act.startswith("link"):
            new.symlink_to(original if plan.act == "link to it" else older)
        elif plan.act == "older" and older.is_dir():
            shutil.copytree(older, new)
            (new / "123-0123abcd").write_text("what was killed leaves")
        elif plan.act == "older":
            shutil.copy(older, new)
        elif plan.act == "empty":
            new.mkdir() if older.is_dir() else new.touch()
        elif plan.act == "garbage":
            new.write_bytes(self.rng.bytes(max(100, len(whole))))
        else:
            new.write_bytes(whole[: self._shorter(plan, len(whole))])
        return new

    def _shorter(self, plan: Plan, size: int) -> int:
        """Return to which size a file is cut: a data file to one that is certainly too short."""
        return int(self.rng.integers(0, max(1, size // (2 if plan.name in MAPPED else 1))))
