"""Benchmarks of diskreplay alone: stalls, opening, sizes; and how its buffers are made."""

from __future__ import annotations

import gc
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import diskreplay
from bench.kernel import private_bytes, resident_bytes
from bench.rows import Task, blocks, columns, singles
from bench.timing import Rounds, clock

SLACK_BYTES = 100e6  # what the goal for memory grants beside the window and the side tables
SLOT_BYTES = 16
DATA_FILE = "data.mdb"
LAYOUTS: dict[str, dict[str, Any]] = {
    "pairs": {},
    "log": {"observations": "log"},
    "log, lz4": {"observations": "log", "codec": "lz4"},
    "log, zstd": {"observations": "log", "codec": "zstd"},
}


def opened(task: Task, *, warm: bool = True) -> Any:
    """Return a full buffer at the path of a task; it is filled if it is new.

    With `warm`, all that fits into the window is read into it.
    """
    settings: dict[str, Any] = {
        "seed": task.seed, "path": task.path, "durability": task.durability,
        "window_bytes": task.window_bytes, "access": task.access, **LAYOUTS[task.layout],
    }  # fmt: skip
    if task.layout != "pairs" and not task.width:
        settings["frame_axis"] = 0
    if task.prioritized:
        buffer: Any = diskreplay.PrioritizedReplayBuffer(
            task.rows, alpha=task.alpha, beta_start=task.beta, **settings
        )
    else:
        buffer = diskreplay.ReplayBuffer(task.rows, **settings)
    with warnings.catch_warnings():  # the rows are random, and do not follow each other
        warnings.simplefilter("ignore", diskreplay.EpisodeWarning)
        for part in blocks(task, len(buffer), task.rows - len(buffer)):
            buffer.extend(*part, env=0)
    buffer.flush()
    if warm:
        rows = min(task.rows, task.window_bytes // task.row_bytes)
        for ids in chunks(task, buffer.count - rows, buffer.count):
            buffer.get(ids)
    return buffer


def chunks(task: Task, first: int, end: int) -> Iterator[Any]:
    """Yield the write ids from `first` to `end`, as many at a time as are read at once."""
    for start in range(first, end, 5 * task.block):
        yield np.arange(start, min(start + 5 * task.block, end))


def stall(task: Task) -> Rounds:
    """Push at a pace, and measure the slowest pushes; `every` mixes steps in."""
    period = 1e9 / task.per_second
    rng = np.random.default_rng(task.seed)
    with opened(task) as buffer:
        first = task.rows
        yield {}
        while True:
            rows = singles(task, first, task.count)
            first += task.count
            took = np.empty(task.count)
            began = clock()
            for i, row in enumerate(rows):
                if task.every and i % task.every == 0:
                    batch = buffer.sample(task.batch)
                    buffer.update_priorities(batch.indices, rng.random(task.batch))
                wait = began + i * period - clock()
                if wait > 0:
                    time.sleep(wait / 1e9)
                start = clock()
                buffer.push(*row)
                took[i] = clock() - start
            late = clock() - began - (task.count - 1) * period
            p50, p99, p999 = np.quantile(took, [0.5, 0.99, 0.999])
            yield {"p50": p50, "p99": p99, "p99.9": p999, "max": took.max(), "late": late}


def n_step(task: Task) -> Rounds:
    """Time plain samples and n-step returns in turns, for `task.seconds` of each a round."""
    with opened(task) as buffer:
        if not task.window_bytes:  # as in a run that has gone on for a while
            for ids in np.random.default_rng(task.seed).permutation(task.rows).reshape(-1, 250):
                buffer.get(buffer.first + ids, fields=["reward"])
        calls = {"sample": 1, "n_step": task.n_step}
        yield {}
        while True:
            took = dict.fromkeys(calls, 0)
            rounds = 0
            end = clock() + 2 * task.seconds * 1e9
            while (start := clock()) < end:
                for name, steps in calls.items():
                    buffer.sample(task.batch, n_step=steps)
                    took[name] -= start - (start := clock())
                rounds += 1
            yield {name: nanoseconds / rounds for name, nanoseconds in took.items()}


def ready(task: Task) -> Rounds:
    """Open a full store, and sample once; in a process that has only just begun."""
    yield {}
    start = clock()
    with diskreplay.open(task.path) as buffer:
        opened_at = clock()
        buffer.sample(task.batch)
        done = clock()
        yield {"open": opened_at - start, "ready": done - start}


def read(task: Task) -> Rounds:
    """Read all records once, without a window."""
    with diskreplay.open(task.path, window_bytes=0) as buffer:
        yield {}
        while True:
            start = clock()
            for ids in chunks(task, buffer.first, buffer.count):
                buffer.get(ids)
            yield {"read": clock() - start}


def rebuild(task: Task) -> Rounds:
    """Make a sum-tree and set all of its masses."""
    masses = np.random.default_rng(task.seed).random(task.rows) + 0.01
    yield {}
    while True:
        start = clock()
        diskreplay.SumTree(task.rows).set(np.arange(task.rows), masses)
        yield {"rebuild": clock() - start}


def lap(buffer: Any, task: Task, first: int, rows: int) -> None:
    """Push `rows` transitions: extends, single pushes, and now and then a step."""
    rng = np.random.default_rng([task.seed, first])
    for number, start in enumerate(range(first, first + rows, task.block)):
        n = min(task.block, first + rows - start)
        if number % 10 == 9:
            for row in singles(task, start, n):
                buffer.push(*row)
            batch = buffer.sample(task.batch)
            if task.prioritized:
                buffer.update_priorities(batch.indices, rng.random(task.batch))
        else:
            buffer.extend(*columns(task, start, n))


def disk(task: Task) -> Rounds:
    """Measure the data file after each lap, and the transitions in it."""
    with opened(task, warm=False) as buffer:
        yield {}
        laps = 1
        while True:
            payload = task.rows * buffer.schema.payload_bytes
            yield {"file": data_file_bytes(task.path), "payload": payload, "laps": laps}
            lap(buffer, task, task.rows * laps, task.rows)
            buffer.flush()
            laps += 1


def memory(task: Task) -> Rounds:
    """Measure the private memory of a process that opened a store and worked with it."""
    yield {}
    with opened(task) as buffer:
        for _ in range(100):
            batch = buffer.sample(task.batch)
            buffer.update_priorities(batch.indices, np.ones(task.batch))
        lap(buffer, task, task.rows, task.count)
        buffer.flush()
        gc.collect()
        bound = task.window_bytes + SLOT_BYTES * task.rows + SLACK_BYTES
        yield {"private": private_bytes(DATA_FILE), "bound": bound}


def endure(task: Task) -> Rounds:
    """Push `task.count` transitions a round, without an end, and tell memory and file size."""
    with opened(task) as buffer:
        yield {}
        pushed = task.rows
        while True:
            lap(buffer, task, pushed, task.count)
            pushed += task.count
            buffer.flush()
            sizes = {"private": private_bytes(DATA_FILE), "file": data_file_bytes(task.path)}
            yield {"pushed": pushed, "resident": resident_bytes(), **sizes}


def data_file_bytes(path: str) -> int:
    """Return the size of the data file of a store."""
    return (Path(path) / DATA_FILE).stat().st_size


ALONE: dict[str, Callable[[Task], Rounds]] = {
    "n_step": n_step, "stall": stall, "ready": ready, "read": read, "rebuild": rebuild,
    "disk": disk, "memory": memory, "endure": endure,
}  # fmt: skip
