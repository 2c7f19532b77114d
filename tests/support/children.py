"""Run code where a crash of the process is a result and not the end of the tests."""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple


class Outcome(NamedTuple):
    """How a child ended: what it returned, or what killed it, and the memory it took, in MiB."""

    value: Any
    failure: str
    mib: float


def in_child(function: Callable[[], Any], *, seconds: int = 20, most_mib: float = 2000) -> Outcome:
    """Call a function in a forked child; a signal or an exception of it is the failure."""
    sys.stdout.flush()
    end, begin = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(end)
        status = 1
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(seconds)
            sys.setrecursionlimit(1000)
            result: tuple[Any, str] = function(), ""
        except BaseException:
            result = None, traceback.format_exc()
        try:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            with os.fdopen(begin, "wb") as pipe:
                pipe.write(json.dumps((*result, peak)).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(begin)
    with os.fdopen(end, "rb") as pipe:
        while not select.select([pipe], [], [], 0.05)[0]:
            if _resident_mib(child) > most_mib:
                os.kill(child, signal.SIGKILL)
        said = pipe.read()
    _, status, usage = os.wait4(child, 0)
    mib = usage.ru_maxrss / 1024
    if os.WIFSIGNALED(status):
        return Outcome(None, signal.Signals(os.WTERMSIG(status)).name, mib)
    value, failure, peak = json.loads(said)
    return Outcome(value, failure, peak)


def _resident_mib(process: int) -> float:
    try:
        pages = Path(f"/proc/{process}/statm").read_text().split()[1]
    except (OSError, IndexError):
        return 0.0
    return int(pages) * os.sysconf("SC_PAGE_SIZE") / 2**20
