"""Calls of the library in which the n-th call to the system fails, for each n.

`python failing.py SCENARIO PLACE [CODE MOST]...` runs in a process of its own, with failing.c
preloaded; each n has a child, about MOST of them. CODE is the name of an error, as "EIO", or as
"EIO:pwrite" where only those calls count, or "files": then n is how many files can be opened at a
time. What is wrong is printed, and nothing else.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import resource
import shutil
import sys
import tempfile
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from children import in_child
from common import columns, numbers_of, row

import diskreplay
from diskreplay import DiskReplayError, PrioritizedReplayBuffer, ReplayBuffer

CAPACITY = 200
ROWS = 60
_MOST_FILES = 25


class Place:
    """Where a scenario works: stores made before, and what must still be there afterwards."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.store, self.other, self.out = (top / name for name in ("store", "other", "out"))
        self.buffer: Any = None

    def make(self, scenario: Callable[[Place], object]) -> None:
        """Make a store, and another for a scenario with two."""
        for path in (self.store, self.other) if scenario in _OF_TWO else (self.store,):
            with PrioritizedReplayBuffer(CAPACITY, path=path, seed=1) as buffer:
                buffer.extend(**columns(0, ROWS), priorities=np.arange(ROWS) + 1.0)


def use(place: Place, buffer: Any, *, is_new: bool = False) -> None:
    """Push, commit, sample and look."""
    place.buffer = buffer
    if is_new:
        buffer.extend(**columns(0, ROWS))
    writes = buffer._options.access != "read"
    if writes:
        buffer.push(**row(ROWS))
        buffer.flush()
        buffer.extend(**columns(ROWS + 1, 5))
    batch = buffer.sample(8)
    if writes and isinstance(buffer, PrioritizedReplayBuffer):
        buffer.update_priorities(batch.indices, np.ones(8))
    buffer.stats()
    buffer.refresh()
    buffer.check()
    buffer.close()


def ahead(place: Place) -> None:
    place.buffer = diskreplay.open(place.store, window_bytes=0)
    with place.buffer.batches(4, prefetch=2) as batches:
        next(batches)
        next(batches)
    place.buffer.close()


def save(place: Place) -> None:
    place.buffer = diskreplay.open(place.store)
    place.buffer.save(place.out)
    place.buffer.load(place.other)
    place.buffer.close()


def verify(place: Place) -> None:
    if faults := diskreplay.verify(place.store):
        raise DiskReplayError(f"{place.store}: {faults}")


SCENARIOS: dict[str, Callable[[Place], object]] = {
    "create": lambda place: use(place, ReplayBuffer(CAPACITY, path=place.out), is_new=True),
    "temporary": lambda place: use(place, PrioritizedReplayBuffer(CAPACITY), is_new=True),
    "exclusive": lambda place: use(place, diskreplay.open(place.store)),
    "shared": lambda place: use(place, diskreplay.open(place.store, access="shared")),
    "read": lambda place: use(place, diskreplay.open(place.store, access="read")),
    "ahead": ahead,
    "save": save,
    "verify": verify,
    "repair": lambda place: diskreplay.repair(place.store, place.out),
    "compact": lambda place: diskreplay.compact(place.store),
    "resize": lambda place: diskreplay.resize(place.store, 2 * CAPACITY),
    "merge": lambda place: diskreplay.merge([place.store, place.other], place.out),
}
_OF_TWO = (save, SCENARIOS["merge"])


def descriptors() -> set[str]:
    """What is open, without the directory that lists it."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.add(f"{name} {os.readlink(f'/proc/self/fd/{name}')}")
    return {entry for entry in found if "/proc/" not in entry}


class FailingCall:
    """The at-th call to the system fails, of those between `arm` and `disarm`."""

    def __init__(self, code: str) -> None:
        self._library = ctypes.CDLL(None)
        self._library.fail_count.restype = ctypes.c_long
        self._library.fail_arm.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_char_p]
        self._library.fail_name.restype = ctypes.c_char_p
        name, _, only = code.partition(":")
        self._code, self._only = getattr(errno, name), only.encode()

    def arm(self, at: int) -> None:
        self._library.fail_arm(at, self._code, self._only)

    def disarm(self) -> tuple[int, str]:
        """Return how many calls there were, and which failed."""
        found = self._library.fail_count(), self._library.fail_name().decode()
        self._library.fail_arm(0, 0, b"")
        return found


class FewDescriptors:
    """Only at - 1 more files can be opened at a time."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._limits = resource.getrlimit(resource.RLIMIT_NOFILE)

    def arm(self, at: int) -> None:
        used = max(int(name) for name in os.listdir("/proc/self/fd")) + 1
        limit = self._limits[0] if at > self._most else used + at - 2
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, self._limits[1]))

    def disarm(self) -> tuple[int, str]:
        resource.setrlimit(resource.RLIMIT_NOFILE, self._limits)
        return self._most, "a limit of files"


def trial(
    fault: FailingCall | FewDescriptors, top: Path, scenario: Callable[[Place], object], at: int
) -> tuple[int, list[str]]:
    """Run a scenario with a fault; return how many faults there are, and what was wrong."""
    wrong: list[str] = []
    unraised: list[str] = []
    sys.unraisablehook = lambda said: unraised.append(f"{said.exc_value!r} in {said.object}")
    threading.excepthook = lambda said: unraised.append(f"{said.exc_value!r} in a thread")
    warnings.simplefilter("error")
    warnings.simplefilter("ignore", diskreplay.EpisodeWarning)
    shutil.rmtree(top, ignore_errors=True)
    top.mkdir()
    tempfile.tempdir = str(top)
    place = Place(top)
    place.make(scenario)
    before, said = descriptors(), ""
    fault.arm(at)
    try:
        scenario(place)
    except DiskReplayError as error:
        said = str(error)
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)[-4:]
        where = " ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames)
        wrong.append(f"{type(error).__name__}: {error} at {where}")
    count, name = fault.disarm()
    try:
        wrong += look_after(place, scenario)
    except Exception:
        wrong.append("afterwards: " + traceback.format_exc())
    left = descriptors() - before
    wrong += [f"left open: {sorted(left)}"] * bool(left)
    return count, [f"{at} {name} {said[:150]!r}: {what}" for what in wrong + unraised]


def look_after(place: Place, scenario: Callable[[Place], object]) -> Iterator[str]:
    """Yield what is not as it should be when the system does not fail any more."""
    buffer = place.buffer
    if buffer is not None and not buffer._guard.closed:
        path, temporary = buffer.path, buffer._guard.is_temporary
        if len(buffer) >= 4:
            numbers_of(buffer.sample(4))
        buffer.flush()
        buffer.check()
        buffer.close()
        if temporary and path.exists():
            yield f"{path} is left"
    place.buffer = buffer = None
    names = {entry.name for entry in place.top.iterdir()}
    for name in names:
        path = place.top / name
        if name not in ("store", "other", "out"):
            yield f"{name} is left"
        elif faults := diskreplay.verify(path):
            yield f"{name}: {faults}"
        else:
            with diskreplay.open(path) as opened:
                numbers = [int(one.reward * 8) for one in opened]
                if name != "out" and scenario is not save and numbers[:ROWS] != list(range(ROWS)):
                    yield f"{name} holds {numbers}"
    hidden = [str(p) for p in place.top.rglob(".diskreplay-*")]
    if hidden:
        yield f"left: {hidden}"


def main() -> None:
    name, top, *asked = sys.argv[1:]
    scenario = SCENARIOS[name]
    no_fault = FewDescriptors(0)
    for one in (scenario, verify):  # to load what is loaded late
        trial(no_fault, Path(top), one, 1)
    for code, most in zip(asked[::2], asked[1::2], strict=True):
        fault = FewDescriptors(_MOST_FILES) if code == "files" else FailingCall(code)
        count, wrong = trial(fault, Path(top), scenario, 10**9)
        print(*wrong, sep="\n")
        step = max(1, count // int(most))
        for at in range(1 + sum(map(ord, name)) % step, count + 1, step):
            outcome = in_child(lambda fault=fault, at=at: trial(fault, Path(top), scenario, at))
            said = [at, outcome.failure] if outcome.failure else outcome.value[1]
            print(*(f"{code} {line}" for line in said), sep="\n")
    shutil.rmtree(top)


if __name__ == "__main__":
    main()
