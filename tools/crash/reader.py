"""A process that reads: it samples a store that others write, and checks each batch."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

import diskreplay
from crash.processes import Tell
from crash.rows import Ints, WrongRead, newest_of, numbers_of
from crash.writer import Task, stop_on_sigterm

TOLD = 5  # batches


def read(task: Task, tell: Tell) -> None:
    """Sample until SIGTERM; "read" tells how many batches were read since it was told last."""
    stopping = stop_on_sigterm()
    while not Path(task.path).exists() and not stopping:
        time.sleep(0.001)  # the first writer makes it
    rng = task.generator()
    seen: list[Ints] = []
    count = 0
    with diskreplay.open(task.path, access="read", window_bytes=task.window_bytes) as buffer:
        tell("open")
        while not stopping:
            before, count = count, buffer.count
            if count < before:
                tell("wrong", f"{count} transitions were ever written, {before} before")
            if not len(buffer):
                continue
            try:
                seen.append(_batch(buffer, rng))
            except WrongRead as error:
                tell("wrong", str(error))
            if len(seen) == TOLD:
                tell("seen", newest_of(np.concatenate(seen)))
                tell("read", len(seen))
                seen = []


def _batch(buffer: Any, rng: np.random.Generator) -> Ints:
    """Return the numbers of a batch, and get some of them again by write id."""
    batch = buffer.sample(int(rng.integers(1, min(64, len(buffer)) + 1)))
    numbers = numbers_of(batch)
    if rng.random() < 0.1:
        try:
            again = numbers_of(buffer.get(batch.indices))
        except diskreplay.NotLiveError:
            return numbers  # evicted meanwhile
        if not np.array_equal(again, numbers):
            raise WrongRead(f"get() gave {again}, and sample() {numbers} with the same write ids")
    return numbers
