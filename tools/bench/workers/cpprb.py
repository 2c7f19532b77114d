"""cpprb: buffers in memory, written in C++."""

from __future__ import annotations

from typing import Any

import cpprb
import numpy as np

from bench.rows import Array, Row, Task, blocks
from bench.serving import serve
from bench.timing import Rounds, extends, pushes, samples, steps

NAMES = ("obs", "act", "rew", "next_obs", "done")


def filled(task: Task) -> Any:
    """Return a full buffer."""
    state = {"shape": task.width, "dtype": np.float32}
    number = {"dtype": np.float32}
    fields = dict(zip(NAMES, (state, {"dtype": np.int64}, number, state, number), strict=True))
    if task.prioritized:
        buffer: Any = cpprb.PrioritizedReplayBuffer(task.rows, fields, alpha=task.alpha)
    else:
        buffer = cpprb.ReplayBuffer(task.rows, fields)
    for part in blocks(task):
        buffer.add(**named(part))
    return buffer


def named(values: list[Array] | Row) -> dict[str, Any]:
    """Return a transition, or columns, as cpprb takes them."""
    return dict(zip(NAMES, values, strict=True))


def step(task: Task) -> Rounds:
    """Sample and update priorities."""
    buffer = filled(task)
    yield from steps(
        task,
        lambda: buffer.sample(task.batch, task.beta)["indexes"],
        buffer.update_priorities,
    )


def sample(task: Task) -> Rounds:
    """Sample uniformly."""
    buffer = filled(task)
    yield from samples(task, lambda: buffer.sample(task.batch))


def push(task: Task) -> Rounds:
    """Add one by one."""
    buffer = filled(task)

    def push_all(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            buffer.add(**row)

    yield from pushes(task, lambda rows: [named(row) for row in rows], push_all)


def extend(task: Task) -> Rounds:
    """Add a thousand at once."""
    buffer = filled(task)

    def extend_all(parts: list[dict[str, Any]]) -> None:
        for part in parts:
            buffer.add(**part)

    yield from extends(task, named, extend_all)


if __name__ == "__main__":
    serve({"step": step, "sample": sample, "push": push, "extend": extend}, ("cpprb",))
