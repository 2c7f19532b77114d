"""Clients of a service in one process, a thread each: `python -m bench.load_client URL N`.

Reads `WORK K SECONDS` from stdin, lets the first K clients work at the same time, push or sample,
and answers with what they did, in a line; it ends with its stdin.
"""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import diskreplay
from bench.rows import Task, columns

TASK = Task(rows=100_000)


def push(replay: Any, seconds: float) -> int:
    """Push rows one by one for a time; return how many were committed at its end."""
    rows = list(zip(*columns(TASK, 0, TASK.block), strict=True))
    pushed, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        for row in rows[:100]:
            replay.push(*row)
        pushed += 100
    replay.flush()
    return pushed


def sample(replay: Any, seconds: float) -> int:
    """Draw batches for a time, one after the other; return how many."""
    drawn, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        replay.sample(TASK.batch)
        drawn += 1
    return drawn


WORKS = {"push": push, "sample": sample}


def main(url: str, n: int) -> None:
    """Serve lines of stdin until its end."""
    with ThreadPoolExecutor(n) as threads:
        replays = [diskreplay.connect(url, timeout=600) for _ in range(n)]
        print("ready", flush=True)
        for line in sys.stdin:
            name, k, seconds = line.split()
            began = time.monotonic()
            work = partial(WORKS[name], seconds=float(seconds))
            done = sum(threads.map(work, replays[: int(k)]))
            print(done / (time.monotonic() - began), flush=True)
        for replay in replays:
            replay.close()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
