"""Time a system: the same loops for all of them.

Each is a generator: it prepares until its first `yield`, and then measures one round for each
further one. A round is a dictionary of figures: nanoseconds of one call, or of one transition.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any

import numpy as np

from bench.rows import BLOCK, Task, columns, singles
from bench.system import System

Figures = dict[str, float]
Rounds = Generator[Figures, None, None]
Bench = Callable[[Task], Rounds]
Loop = Callable[[Task, Any], Rounds]

FEW = (1, 4, 16)  # environments that step together
GATHERED = (32, 256)  # rows of a batch

clock = time.perf_counter_ns


def timed(make: Callable[[Task], System], *loops: Loop) -> dict[str, Bench]:
    """Return the benchmarks of a system: loops by their names, each with a buffer of its own."""

    def bench_of(loop: Loop) -> Bench:
        def bench(task: Task) -> Rounds:
            with contextlib.closing(make(task)) as system:
                yield from loop(task, system)

        return bench

    return {loop.__name__: bench_of(loop) for loop in loops}


def starts(task: Task) -> Iterator[int]:
    """Yield the number of the first transition of each round; lower ones fill the buffer."""
    first = task.rows
    while True:
        yield first
        first += task.count


def step(task: Task, system: System) -> Rounds:
    """Time samples, and the priority update of what each drew, for `task.seconds` a round.

    The priorities are drawn beforehand, new ones in each round; `finish` is not timed.
    """
    rng = np.random.default_rng(task.seed)
    draw, update = system.draw, system.update
    yield {}
    while True:
        priorities = rng.random((256, task.batch), np.float32) + np.float32(0.01)
        sampling = updating = calls = 0
        end = clock() + task.seconds * 1e9
        while clock() < end:
            start = clock()
            drawn = draw()
            middle = clock()
            update(drawn, priorities[calls % 256])
            updating += clock() - middle
            sampling += middle - start
            calls += 1
        system.finish()
        yield {
            "sample": sampling / calls,
            "update": updating / calls,
            "step": (sampling + updating) / calls,
        }


def sample(task: Task, system: System) -> Rounds:
    """Time samples for `task.seconds` a round."""
    yield {}
    while True:
        yield {"sample": _time_of_a_call(system.sample, task.seconds)}


def sequences(task: Task, system: System) -> Rounds:
    """Time batches of sequences, and those that each follow a push, `task.seconds` each a round."""
    rows = itertools.cycle(system.as_rows(singles(task, task.rows, 100)))

    def push_and_draw() -> None:
        system.push(*next(rows))
        system.sequences()

    for _ in range(20):
        system.sequences()
    push_and_draw()
    yield {}
    while True:
        yield {
            "sequences": _time_of_a_call(system.sequences, task.seconds),
            "after a push": _time_of_a_call(push_and_draw, task.seconds),
        }


def _time_of_a_call(draw: Callable[[], object], seconds: float) -> float:
    """Return the mean time of a call, of those that fit into some seconds, in nanoseconds."""
    calls = 0
    start = clock()
    end = start + seconds * 1e9
    while clock() < end:
        draw()
        calls += 1
    return (clock() - start) / calls


def gather(task: Task, system: System) -> Rounds:
    """Time batches of two sizes, into fresh arrays and into the same, `task.seconds` each a round.

    As in a program that learns, a fresh batch is kept until the next one is there.
    """
    draws = {
        f"{into} {n}": system.gatherer(n, reuse=into == "same")
        for n in GATHERED
        for into in ("fresh", "same")
    }
    yield {}
    while True:
        figures = {}
        for name, draw in draws.items():
            batch = draw()
            calls = 0
            start = clock()
            end = start + task.seconds * 1e9
            while clock() < end:
                batch = draw()
                calls += 1
            figures[name] = (clock() - start) / calls
            del batch
        yield figures


def push(task: Task, system: System) -> Rounds:
    """Time `task.count` pushes a round, one by one, with the last commit."""
    yield {}
    for first in starts(task):
        rows = system.as_rows(singles(task, first, task.count))
        start = clock()
        system.push_all(rows)
        system.finish()
        yield {"push": (clock() - start) / task.count}


def extend(task: Task, system: System) -> Rounds:
    """Time extends by a thousand, `task.count` transitions a round, with the last commit."""
    yield {}
    for first in starts(task):
        blocks = range(first, first + task.count, BLOCK)
        parts = [system.as_part(columns(task, start, BLOCK)) for start in blocks]
        start = clock()
        system.extend_all(parts)
        system.finish()
        yield {"row": (clock() - start) / (BLOCK * len(blocks))}


def few(task: Task, system: System) -> Rounds:
    """Time `task.count` transitions by pushes, and by extends of a few, without their commits."""
    yield {}
    for first in starts(task):
        figures = {}
        rows = singles(task, first, task.count)
        system.finish()
        start = clock()
        system.push_all(rows)
        figures["push"] = (clock() - start) / len(rows)
        whole = columns(task, first, task.count)
        whole[4] = whole[4] > 0
        for portion in FEW:
            cuts = range(0, task.count - portion + 1, portion)
            parts = [[column[at : at + portion] for column in whole] for at in cuts]
            system.finish()
            start = clock()
            system.extend_all(parts)
            figures[f"extend by {portion}"] = (clock() - start) / (portion * len(parts))
        yield figures
