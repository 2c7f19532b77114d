"""cpprb: buffers in memory, written in C++."""

from __future__ import annotations

from typing import Any

import cpprb
import numpy as np

from bench.rows import Array, Row, Task, blocks
from bench.serving import serve
from bench.system import Floats, System
from bench.timing import extend, push, sample, step, timed

NAMES = ("obs", "act", "rew", "next_obs", "done")


class Cpprb(System):
    """A buffer of cpprb; it takes values by name."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        state, number = {"shape": task.width, "dtype": np.float32}, {"dtype": np.float32}
        fields = dict(zip(NAMES, (state, {"dtype": np.int64}, number, state, number), strict=True))
        if task.prioritized:
            self.buffer: Any = cpprb.PrioritizedReplayBuffer(task.rows, fields, alpha=task.alpha)
        else:
            self.buffer = cpprb.ReplayBuffer(task.rows, fields)
        for part in blocks(task):
            self.push_all([self.as_part(part)])

    def draw(self) -> Any:
        """Draw a batch, and return its indices."""
        return self.buffer.sample(self.task.batch, self.task.beta)["indexes"]

    def update(self, drawn: Any, priorities: Floats) -> object:
        """Update the priorities of indices."""
        return self.buffer.update_priorities(drawn, priorities)

    def sample(self) -> Any:
        """Draw a uniform batch."""
        return self.buffer.sample(self.task.batch)

    def as_rows(self, rows: list[Row]) -> list[Any]:
        """Name the values of transitions."""
        return [dict(zip(NAMES, row, strict=True)) for row in rows]

    def push_all(self, rows: list[Any]) -> None:
        """Add what is named: a transition at a time, or columns."""
        add = self.buffer.add
        for row in rows:
            add(**row)

    def as_part(self, columns: list[Array]) -> Any:
        """Name columns."""
        return dict(zip(NAMES, columns, strict=True))

    def extend_all(self, parts: list[Any]) -> None:
        """Add columns by the thousand."""
        self.push_all(parts)


if __name__ == "__main__":
    serve(timed(Cpprb, step, sample, push, extend), ("cpprb",))
