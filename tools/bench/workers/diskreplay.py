"""What diskreplay does beside its peers: batches, pushes, extends."""

from __future__ import annotations

from typing import Any

import diskreplay
from bench.kernel import forget_pages
from bench.rows import Array, Row, Task
from bench.serving import serve
from bench.timing import Rounds, extends, pushes, samples, steps
from bench.timing import few as few_rows
from bench.workers.alone import ALONE, opened


def step(task: Task) -> Rounds:
    """Sample and update priorities; commits of the buffer's own clock are in it."""
    with opened(task) as buffer:
        yield from steps(
            task,
            lambda: buffer.sample(task.batch).indices,
            buffer.update_priorities,
            finish=buffer.flush,
        )


def sample(task: Task) -> Rounds:
    """Sample uniformly."""
    with opened(task) as buffer:
        yield from samples(task, lambda: buffer.sample(task.batch))


def cold_sample(task: Task) -> Rounds:
    """Sample uniformly from a store that is full already, and not in the page cache at first."""
    forget_pages(task.path)
    with diskreplay.open(task.path, window_bytes=task.window_bytes) as buffer:
        yield from samples(task, lambda: buffer.sample(task.batch))


def push(task: Task) -> Rounds:
    """Push one by one; the last commit is in the time."""
    with opened(task) as buffer:

        def push_all(rows: list[Row]) -> None:
            for row in rows:
                buffer.push(*row)
            buffer.flush()

        yield from pushes(task, list, push_all)


def extend(task: Task) -> Rounds:
    """Extend by a thousand; the last commit is in the time."""
    with opened(task) as buffer:

        def extend_all(parts: list[list[Array]]) -> None:
            for part in parts:
                buffer.extend(*part)
            buffer.flush()

        yield from extends(task, list, extend_all)


def few(task: Task) -> Rounds:
    """Push, and extend by a few; the time of commits is left out."""
    with opened(task) as buffer:
        yield from few_rows(task, buffer.push, buffer.extend, buffer.flush)


def fill(task: Task) -> Rounds:
    """Make a full store for other benchmarks."""
    opened(task, warm=False).close()
    yield {}


if __name__ == "__main__":
    BENCHES: dict[str, Any] = {
        "step": step, "sample": sample, "cold_sample": cold_sample, "push": push,
        "extend": extend, "few": few, "fill": fill, **ALONE,
    }  # fmt: skip
    serve(BENCHES, ("diskreplay", "lmdb"))
