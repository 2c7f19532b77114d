"""Kill a call at any of its steps, in a process of its own."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator

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
    step = 0
    while True:
        step += 1
        left = step

        def hook(event: str, _: object) -> None:
            nonlocal left
            if event.startswith(_EVENTS):
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        if not was_killed(child_of(work, lambda hook=hook: sys.addaudithook(hook))):  # type: ignore[misc]
            return
        yield step


def at_random(work: Callable[[], object], seconds: list[float]) -> Iterator[bool]:
    """Kill the call after each of these times; yield whether that was before its end."""
    for moment in seconds:
        process = child_of(work)
        time.sleep(moment)
        os.kill(process, signal.SIGKILL)
        yield was_killed(process)
