"""Kill a call at any of its steps, in a process of its own."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

Seen = TypeVar("Seen")
_EVENTS = ("os.", "open", "shutil.", "tempfile.", "fcntl.")


def child_of(work: Callable[[], object], prepare: Callable[[], None] = lambda: None) -> int:
    """Start a call in a forked process, and return its id."""
    sys.stdout.flush()
    process = os.fork()
    if process == 0:
        status = 1
        try:
            prepare()
            work()
            status = 0
        finally:
            os._exit(status)
    return process


def was_killed(process: int) -> bool:
    """Wait for the end of a process; return whether it was killed before that of its call."""
    _, status = os.waitpid(process, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0, "the call failed by itself"
    return False


def at_each_step(work: Callable[[], object]) -> Iterator[int]:
    """Kill the call before its first, second, ... use of a file, until it comes to its end.

    It yields after each kill, so that the caller can look at what is left.
    """
    step = 1
    while is_killed_before(step, work):
        yield step
        step += 1


def around_changes(
    work: Callable[[], object],
    place: Path,
    look: Callable[[bool], Seen],
    stride: int,
    harmless: int = 30,
) -> Iterator[Seen]:
    """Kill the call before each `stride`-th use of a file, and before all where a look changes.

    These are the uses between two kills, or a kill and the end, after which two looks differ; a
    look is told whether it is at one of them. It yields what each look shows. The call works in
    `place`, which is as it was, with what one killed before the `harmless`-th use has left there,
    whenever it begins.
    """
    kept = place.with_name(f"{place.name}-kept")
    assert is_killed_before(harmless, work)
    shutil.copytree(place, kept)
    before = look(True)
    step, ended = 0, False

    def looks(step: int, is_near: bool = False) -> tuple[bool, Seen]:
        shutil.rmtree(place)
        shutil.copytree(kept, place)
        return is_killed_before(step, work), look(is_near)

    while not ended:
        step += stride
        was_killed, now = looks(step)
        if was_killed:
            yield now
        if now != before:
            for between in range(step - stride + 1, step):
                is_before_the_end, found = looks(between, True)
                if is_before_the_end:
                    yield found
        before, ended = now, not was_killed


def is_killed_before(step: int, work: Callable[[], object]) -> bool:
    """Kill the call before this use of a file; return whether it came so far."""

    def hook(event: str, _: object) -> None:
        nonlocal step
        if event.startswith(_EVENTS):
            step -= 1
            if step == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    return was_killed(child_of(work, lambda: sys.addaudithook(hook)))


def at_random(work: Callable[[], object], seconds: list[float]) -> Iterator[bool]:
    """Kill the call after each of these times; yield whether that was before its end."""
    for moment in seconds:
        process = child_of(work)
        time.sleep(moment)
        os.kill(process, signal.SIGKILL)
        yield was_killed(process)
