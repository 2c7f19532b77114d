"""diskreplay, measured as its peers are: batches, pushes, extends."""

from __future__ import annotations

from functools import partial
from typing import Any

import diskreplay
from bench.kernel import forget_pages
from bench.rows import Task
from bench.serving import serve
from bench.system import Floats, System
from bench.timing import (
    Rounds,
    extend,
    few,
    gather,
    push,
    sample,
    sequences,
    step,
    timed,
)
from bench.workers.alone import ALONE, opened


class DiskReplay(System):
    """A buffer of diskreplay, with all in the window that fits."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self.buffer = self.open()
        self.push, self.extend = self.buffer.push, self.buffer.extend

    def open(self) -> Any:
        """Return the buffer."""
        return opened(self.task)

    def draw(self) -> Any:
        """Draw a batch, and return its write ids."""
        return self.buffer.sample(self.task.batch).indices

    def gatherer(self, n: int, *, reuse: bool) -> Any:
        """Return a function that samples n rows."""
        if not reuse:
            return partial(self.buffer.sample, n)
        return partial(self.buffer.sample, n, out=self.buffer.sample(n))

    def update(self, drawn: Any, priorities: Floats) -> object:
        """Update the priorities of write ids."""
        return self.buffer.update_priorities(drawn, priorities)

    def sample(self) -> Any:
        """Draw a uniform batch."""
        return self.buffer.sample(self.task.batch)

    def sequences(self) -> Any:
        """Draw a batch of sequences."""
        return self.buffer.sample_sequences(self.task.sequences, self.task.length)

    def finish(self) -> None:
        """Commit what is not committed."""
        self.buffer.flush()

    def close(self) -> None:
        """Close the buffer."""
        self.buffer.close()


class Cold(DiskReplay):
    """A store that is full already, and not in the page cache at first."""

    def open(self) -> Any:
        """Return the buffer."""
        forget_pages(self.task.path)
        return diskreplay.open(self.task.path, window_bytes=self.task.window_bytes)


def fill(task: Task) -> Rounds:
    """Make a full store for other benchmarks."""
    opened(task, warm=False).close()
    yield {}


if __name__ == "__main__":
    loops = timed(DiskReplay, step, sample, sequences, gather, push, extend, few)
    cold = timed(Cold, sample)["sample"]
    serve({**loops, "cold_sample": cold, "fill": fill, **ALONE}, ("diskreplay", "lmdb"))
