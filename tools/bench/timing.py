"""The loops that are timed: the same for all systems, which give them functions to call.

Each is a generator: it prepares until its first `yield`, and then measures one round for each
further one. A round is a dictionary of figures: nanoseconds of one call, or of one transition.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.rows import BLOCK, Array, Row, Task, columns, singles

Figures = dict[str, float]
Rounds = Generator[Figures, None, None]
Floats = NDArray[np.float32]

FEW = (1, 4, 16)  # environments that step together

clock = time.perf_counter_ns


def nothing() -> None:
    """Do nothing: for systems that have nothing to finish."""


def steps(
    task: Task,
    sample: Callable[[], Any],
    update: Callable[[Any, Floats], object],
    finish: Callable[[], object] = nothing,
) -> Rounds:
    """Time samples, and the priority update of what each drew, for `task.seconds` a round.

    The priorities are drawn beforehand, new ones in each round; `finish` is not timed.
    """
    rng = np.random.default_rng(task.seed)
    yield {}
    while True:
        priorities = rng.random((256, task.batch), np.float32) + np.float32(0.01)
        sampling = updating = calls = 0
        end = clock() + task.seconds * 1e9
        while clock() < end:
            start = clock()
            drawn = sample()
            middle = clock()
            update(drawn, priorities[calls % 256])
            updating += clock() - middle
            sampling += middle - start
            calls += 1
        finish()
        yield {
            "sample": sampling / calls,
            "update": updating / calls,
            "step": (sampling + updating) / calls,
        }


def samples(task: Task, sample: Callable[[], Any]) -> Rounds:
    """Time samples for `task.seconds` a round."""
    yield {}
    while True:
        calls = 0
        start = clock()
        end = start + task.seconds * 1e9
        while clock() < end:
            sample()
            calls += 1
        yield {"sample": (clock() - start) / calls}


def pushes(
    task: Task,
    prepare: Callable[[list[Row]], list[Any]],
    push_all: Callable[[list[Any]], object],
) -> Rounds:
    """Time `task.count` pushes a round, one by one; `prepare` puts rows in the form they take."""
    first = task.rows
    yield {}
    while True:
        ready = prepare(singles(task, first, task.count))
        first += task.count
        start = clock()
        push_all(ready)
        yield {"push": (clock() - start) / task.count}


def few(
    task: Task,
    push: Callable[..., object],
    extend: Callable[..., object],
    finish: Callable[[], object],
) -> Rounds:
    """Time `task.count` transitions by pushes, and by extends of a few, without their commits."""
    first = task.rows
    yield {}
    while True:
        figures = {}
        rows = singles(task, first, task.count)
        finish()
        start = clock()
        for row in rows:
            push(*row)
        figures["push"] = (clock() - start) / len(rows)
        states, actions, rewards, next_states, dones = columns(task, first, task.count)
        whole = [states, actions, rewards, next_states, dones > 0]
        for portion in FEW:
            cuts = range(0, task.count - portion + 1, portion)
            ready = [[column[at : at + portion] for column in whole] for at in cuts]
            finish()
            start = clock()
            for part in ready:
                extend(*part)
            figures[f"extend by {portion}"] = (clock() - start) / (portion * len(ready))
        first += task.count
        yield figures


def extends(
    task: Task,
    prepare: Callable[[list[Array]], Any],
    extend_all: Callable[[list[Any]], object],
) -> Rounds:
    """Time extends by a thousand, `task.count` transitions a round."""
    first = task.rows
    yield {}
    while True:
        starts = range(first, first + task.count, BLOCK)
        ready = [prepare(columns(task, start, BLOCK)) for start in starts]
        first += task.count
        start = clock()
        extend_all(ready)
        yield {"row": (clock() - start) / (BLOCK * len(starts))}
