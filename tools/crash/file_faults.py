"""The faults of crash.company: a file of a store is removed, replaced or cut, and put back.

::

    PLACE/
      store/       the store
      older/       its files as they were before any process of the round opened it
      original/    the files that were taken away, to be put back as they are
      others/N/    a store of the N-th data file that stood in place of the original for a while
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
# With these, a process that opens a store or has it open meets nothing wrong.
HARMLESS = {"data.known": ("removed", "older", "empty", "garbage", "cut", "truncated in place")}


@dataclass(frozen=True)
class Fault:
    """What is done to which file of a store."""

    name: str
    act: str

    @property
    def needs_closed(self) -> bool:
        """Whether it is done while no process has the store open."""
        return self.act in ("cut in place", "older in place")

    @property
    def is_harmless(self) -> bool:
        """Whether no process may be refused for it, but where an exclusive writer is there."""
        return self.name == "nothing" or self.act in HARMLESS.get(self.name, ())

    def __str__(self) -> str:
        return f"{self.name} {self.act}"


FAULTS = (
    Fault("nothing", "disturbed"),
    *(Fault(name, act) for name in NAMES for act in ACTS),
    *(Fault(name, "truncated in place") for name in SMALL),
    *(Fault(name, "cut in place") for name in MAPPED),
    Fault(DATA, "older in place"),
)


@dataclass
class Period:
    """A time in which a certain file was in place; `inode` is None where it is not known."""

    name: str
    inode: int | None
    not_inode: int | None = None  # the one that was certainly not
    began: int = field(default_factory=time.monotonic_ns)
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
    others: dict[int, Path] = field(default_factory=dict)  # by the inode of their data file
    _content: bytes | None = None  # of a file that was cut in place

    def __post_init__(self) -> None:
        self.store = self.place / "store"
        shutil.copytree(self.store, self.place / "older")
        (self.place / "original").mkdir()
        self.inodes = {name: (self.store / name).stat().st_ino for name in NAMES}

    def disturb(self, fault: Fault) -> None:
        """Do to a file what the fault says."""
        if fault.name == "nothing":
            return
        self.put_back(fault)
        path, original = self.store / fault.name, self.place / "original" / fault.name
        if fault.act.endswith("in place"):
            self._content = path.read_bytes()
            os.truncate(path, self._shorter(fault, len(self._content)))
            if fault.act == "older in place":
                path.write_bytes((self.place / "older" / fault.name).read_bytes())
            return
        new = self._replacement(fault, original)
        self._end_period(fault.name)
        os.rename(path, original)
        while new is not None and os.path.lexists(new):
            try:
                os.rename(new, path)
            except OSError:  # a process was faster to make a directory
                self._take_away(path)
        known = path.stat().st_ino if new is not None and fault.name in MAPPED else None
        away = self.inodes[fault.name] if known != self.inodes[fault.name] else None
        self.periods.append(Period(fault.name, known, away))

    def put_back(self, fault: Fault) -> None:
        """Put the file back as it was, or as its users have it; twice is once."""
        path, original = self.store / fault.name, self.place / "original" / fault.name
        if self._content is not None:
            if fault.act != "older in place":
                with path.open("r+b") as file:
                    file.write(self._content)
            self._content = None
        elif os.path.lexists(original):
            self._end_period(fault.name)
            while os.path.lexists(original):
                self._take_away(path)
                with contextlib.suppress(OSError):  # as above
                    os.rename(original, path)
            self.periods.append(Period(fault.name, self.inodes[fault.name]))

    def was_missing(self, name: str, inode: int | None, began: int, ended: int) -> bool:
        """Return whether a file was certainly not at its path from `began` to `ended`."""
        return inode is not None and any(
            period.name == name and period.forbids(inode, began, ended) for period in self.periods
        )

    def _end_period(self, name: str) -> None:
        for period in self.periods:
            if period.name == name and period.ended is None:
                period.ended = time.monotonic_ns()

    def _take_away(self, path: Path) -> None:
        """Move away what stands in place of a file; of data files, make stores to look at later."""
        if path.name == DATA and path.is_file() and not path.is_symlink():
            other = self.place / "others" / str(len(self.others))
            other.mkdir(parents=True)
            for name in SMALL[:-1]:
                shutil.copy(self.place / "older" / name, other)
            (other / OPENERS).mkdir()
            self.others[path.stat().st_ino] = other
            os.rename(path, other / DATA)
        else:
            with contextlib.suppress(FileNotFoundError):
                os.rename(path, tempfile.mkdtemp(dir=self.place) + "/" + path.name)

    def _replacement(self, fault: Fault, original: Path) -> Path | None:
        """Make what takes the place of a file, beside it."""
        older, new = self.place / "older" / fault.name, self.place / "new"
        whole = older.read_bytes() if older.is_file() else b""
        if fault.act == "removed":
            return None
        if fault.act.startswith("link"):
            new.symlink_to(original if fault.act == "link to it" else older)
        elif fault.act == "older" and older.is_dir():
            shutil.copytree(older, new)
            (new / "123-0123abcd").write_text("what was killed leaves")
        elif fault.act == "older":
            shutil.copy(older, new)
        elif fault.act == "empty":
            new.mkdir() if older.is_dir() else new.touch()
        elif fault.act == "garbage":
            new.write_bytes(self.rng.bytes(max(100, len(whole))))
        else:
            new.write_bytes(whole[: self._shorter(fault, len(whole))])
        return new

    def _shorter(self, fault: Fault, size: int) -> int:
        """Return to which size a file is cut: a data file to one that is certainly too short."""
        return int(self.rng.integers(0, max(1, size // (2 if fault.name in MAPPED else 1))))
