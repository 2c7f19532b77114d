"""What holds for every test: Ctrl-C reaches it, it ends, and no process outlives it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Iterator
from multiprocessing import forkserver, resource_tracker
from pathlib import Path

import pytest

SECONDS = 300
LONG_SECONDS = 4 * 3600
AGAIN_SECONDS = 30  # what ends the test may wait, too: the end of a `with`, a fixture
GRACE_SECONDS = 20  # for those who notice by themselves that their parent is gone

_ADOPT_ORPHANS = 36  # PR_SET_CHILD_SUBREAPER


def adopt_orphans() -> None:
    """Become the parent of children's children whose parent ends, where the system offers it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_ADOPT_ORPHANS, 1, 0, 0, 0)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Take Ctrl-C as usual, and let children inherit that.

    A shell without a terminal has what it runs in the background ignore it, and `nohup` is mostly
    used so; a program that inherits that never hears of an interrupt.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def limited_time(seconds: float) -> Iterator[None]:
    """Fail where the test is, whatever it waits for there, when the time is over."""

    def fail(*_: object) -> None:
        pytest.fail(f"the test did not end within {seconds:g} seconds")

    before = signal.signal(signal.SIGALRM, fail)
    signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def no_process_left() -> Iterator[None]:
    """End the processes that the test started and did not end, and fail it for them."""
    before = _processes()
    yield
    end = time.monotonic() + GRACE_SECONDS
    while left := {pid: line for pid, line in _processes().items() if pid not in before}:
        if time.monotonic() > end:
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            pytest.fail("the test left processes behind: " + "; ".join(left.values()))
        time.sleep(0.005)


def _processes() -> dict[int, str]:
    """Return the command lines of all that descend from this process, and run."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return {}  # as after most tests, and quicker
    children: dict[int, list[int]] = {}
    for pid in map(int, filter(str.isdecimal, os.listdir("/proc"))):
        with contextlib.suppress(OSError):  # it ended meanwhile
            state, parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
            if state not in "ZX":
                children.setdefault(int(parent), []).append(pid)
            elif int(parent) == os.getpid():
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)
    found, look = [], [os.getpid()]
    while look:
        more = children.get(look.pop(), [])
        found += more
        look += more
    # Those of multiprocessing serve all tests, and end with the process that started them.
    servers = {
        forkserver._forkserver._forkserver_pid,  # type: ignore[attr-defined]
        resource_tracker._resource_tracker._pid,  # type: ignore[attr-defined]
    }
    return {pid: _command(pid) for pid in found if pid not in servers}


def _command(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        words = []
    return f"{pid} ({b' '.join(words).decode(errors='replace')[:100]})"
