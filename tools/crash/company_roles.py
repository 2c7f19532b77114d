"""What the processes of crash.company do: work with a store until it refuses, and tell why.

What they tell beside what writers and readers do::

    open       the inodes of the data file and of the lock file that the engine has mapped
    refused    the kind and the text of an error of diskreplay, after which the process ends
"""

from __future__ import annotations

import contextlib
import faulthandler
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import diskreplay
from crash.file_faults import MAPPED
from crash.processes import Tell
from crash.reader import read
from crash.rows import WrongRead, newest_of, numbers_of
from crash.writer import Task, Writer, stop_on_sigterm

SHOW = signal.SIGUSR1  # a process that gets it says on the standard error where it is


def writing(task: Task, tell: Tell) -> None:
    """Write until SIGTERM or an error of diskreplay."""
    writer = Writer(task, _prepared(task, tell))
    if not _goes_well(writer.run, tell) and writer.buffer is not None:
        with contextlib.suppress(diskreplay.DiskReplayError):
            writer.buffer.close()


def reading(task: Task, tell: Tell) -> None:
    """Read until SIGTERM or an error of diskreplay."""
    _goes_well(partial(read, task, _prepared(task, tell)), tell)


def opening(task: Task, tell: Tell) -> None:
    """Open, look and close again and again until SIGTERM, whatever errors of diskreplay come."""
    stopping = stop_on_sigterm()
    rng = task.generator()
    tell = _prepared(task, tell)
    while not stopping:
        access = str(rng.choice(["exclusive", "shared", "read"]))
        if not _goes_well(partial(_look, task, access, rng, tell), tell):
            time.sleep(rng.exponential(0.02))  # calls without a pause take the time of the others


def _look(task: Task, access: str, rng: np.random.Generator, tell: Tell) -> None:
    tell("opening")
    with diskreplay.open(task.path, access=access) as buffer:
        tell("open")
        for _ in range(int(rng.integers(0, 4))):
            try:
                tell("seen", newest_of(numbers_of(buffer.sample(8))))
            except WrongRead as error:
                tell("wrong", str(error))
        buffer.refresh()
        buffer.stats()
    tell("looked")


def _goes_well(call: Callable[[], None], tell: Tell) -> bool:
    try:
        call()
    except diskreplay.DiskReplayError as error:
        tell("refused", type(error).__name__, str(error))
        return False
    return True


def _prepared(task: Task, tell: Tell) -> Tell:
    """Return how the process tells: with the inodes of what is mapped, when it has opened."""
    faulthandler.enable()
    faulthandler.register(SHOW)

    def telling(name: str, *what: Any) -> None:
        if name == "open":
            what = tuple(map(_mapped(Path(task.path).parent).get, MAPPED))
        tell(name, *what)

    return telling


def _mapped(place: Path) -> dict[str, int]:
    """Return the inodes of the files below a directory that are mapped, by the engine's name."""
    found = {}
    for line in Path("/proc/self/maps").read_text().splitlines():
        _, kind, _, _, inode, *name = line.split(maxsplit=5)
        if kind.endswith("s") and name and name[0].startswith(str(place)):
            found[MAPPED["w" in kind]] = int(inode)
    return found
