"""Reverb: a server in C++, in the process of its client, which is faster than beside it."""

from __future__ import annotations

from typing import Any

import numpy as np
import reverb

from bench.rows import Row, Task, blocks
from bench.serving import serve
from bench.timing import Floats, Rounds, pushes, steps

TABLE = "replay"


def filled(task: Task) -> tuple[Any, Any]:
    """Return the server of a full table, and its client."""
    table = reverb.Table(
        TABLE,
        sampler=reverb.selectors.Prioritized(task.alpha),
        remover=reverb.selectors.Fifo(),
        rate_limiter=reverb.rate_limiters.MinSize(1),
        max_size=task.rows,
    )
    server = reverb.Server(tables=[table])
    client = reverb.Client(f"localhost:{server.port}")
    for part in blocks(task):
        write(client, [as_arrays(row) for row in zip(*part, strict=True)])
    return server, client


def as_arrays(row: tuple[Any, ...]) -> list[Any]:
    """Return a transition as Reverb takes it."""
    state, action, reward, next_state, done = row
    return [state, np.int64(action), np.float32(reward), next_state, np.float32(done)]


def write(client: Any, rows: list[list[Any]]) -> None:
    """Insert transitions one by one; all are in the table at the end."""
    with client.trajectory_writer(num_keep_alive_refs=1) as writer:
        for number, row in enumerate(rows):
            writer.append(row)
            writer.create_item(TABLE, 1.0, [column[-1:] for column in writer.history])
            if number % 10 == 0:
                writer.flush(block_until_num_items=40)
        writer.flush()


def step(task: Task) -> Rounds:
    """Sample and update priorities."""
    _server, client = filled(task)

    def sample() -> list[int]:
        drawn = client.sample(TABLE, task.batch, emit_timesteps=False)
        return [one.info.key for one in drawn]

    def update(keys: list[int], priorities: Floats) -> None:
        client.mutate_priorities(TABLE, dict(zip(keys, priorities.tolist(), strict=True)))

    yield from steps(task, sample, update)


def push(task: Task) -> Rounds:
    """Insert one by one."""
    _server, client = filled(task)

    def prepare(rows: list[Row]) -> list[list[Any]]:
        return [as_arrays(row) for row in rows]

    yield from pushes(task, prepare, lambda rows: write(client, rows))


if __name__ == "__main__":
    serve({"step": step, "push": push}, ("dm-reverb", "tensorflow-cpu"))
