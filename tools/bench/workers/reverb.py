"""Reverb: a server in C++, in the process of its client, which is faster than beside it."""

from __future__ import annotations

from typing import Any

import numpy as np
import reverb

from bench.rows import Row, Task, blocks
from bench.serving import serve
from bench.system import Floats, System
from bench.timing import push, step, timed

TABLE = "replay"


class Reverb(System):
    """The server of a full table, and its client."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        table = reverb.Table(
            TABLE,
            sampler=reverb.selectors.Prioritized(task.alpha),
            remover=reverb.selectors.Fifo(),
            rate_limiter=reverb.rate_limiters.MinSize(1),
            max_size=task.rows,
        )
        self.server = reverb.Server(tables=[table])
        self.client = reverb.Client(f"localhost:{self.server.port}")
        for part in blocks(task):
            self.push_all(self.as_rows(list(zip(*part, strict=True))))

    def draw(self) -> Any:
        """Draw a batch, and return its keys."""
        drawn = self.client.sample(TABLE, self.task.batch, emit_timesteps=False)
        return [one.info.key for one in drawn]

    def update(self, drawn: Any, priorities: Floats) -> object:
        """Update the priorities of keys."""
        updates = dict(zip(drawn, priorities.tolist(), strict=True))
        return self.client.mutate_priorities(TABLE, updates)

    def as_rows(self, rows: list[Row]) -> list[Any]:
        """Put transitions in the form that Reverb takes them in."""
        return [
            [state, np.int64(action), np.float32(reward), next_state, np.float32(done)]
            for state, action, reward, next_state, done in rows
        ]

    def push_all(self, rows: list[Any]) -> None:
        """Insert transitions one by one; all are in the table at the end."""
        with self.client.trajectory_writer(num_keep_alive_refs=1) as writer:
            for number, row in enumerate(rows):
                writer.append(row)
                writer.create_item(TABLE, 1.0, [column[-1:] for column in writer.history])
                if number % 10 == 0:
                    writer.flush(block_until_num_items=40)
            writer.flush()


if __name__ == "__main__":
    serve(timed(Reverb, step, push), ("dm-reverb", "tensorflow-cpu"))
