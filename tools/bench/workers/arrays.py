"""Plain arrays of numpy: columns in memory, and columns in files that are mapped into it."""

from __future__ import annotations

import mmap
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from bench.kernel import forget_pages
from bench.rows import Array, Task, blocks
from bench.serving import serve
from bench.system import System
from bench.timing import Bench, Rounds, gather, sample, timed


class Memory(System):
    """Columns in memory."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        parts = list(blocks(task))
        self.columns = [np.concatenate(column) for column in zip(*parts, strict=True)]

    def gatherer(self, n: int, *, reuse: bool) -> Any:
        """Return a function that copies n random rows; their numbers are drawn beforehand."""
        rng = np.random.default_rng(self.task.seed)
        drawn = cycle(rng.integers(0, self.task.rows, (64, n)))
        if not reuse:
            return lambda: gathered(self.columns, next(drawn))
        out = gathered(self.columns, next(drawn))

        def again() -> list[Array]:
            rows = next(drawn)
            for column, into in zip(self.columns, out, strict=True):
                # Any other mode makes fresh arrays first.
                np.take(column, rows, axis=0, out=into, mode="clip")
            return out

        return again


def gathered(columns: list[Array], rows: Array) -> list[Array]:
    """Return rows of columns in fresh arrays."""
    return [column[rows] for column in columns]


class Mapped(System):
    """Columns in files, which `fill` wrote; they are not in the page cache at first."""

    def __init__(self, task: Task, *, is_random: bool = False) -> None:
        super().__init__(task)
        forget_pages(task.path)
        self.files = [np.load(f"{task.path}/{number}.npy", mmap_mode="r") for number in range(5)]
        if is_random:  # the system is told that accesses will be
            for file in self.files:
                file.base.madvise(mmap.MADV_RANDOM)
        self.rng = np.random.default_rng(task.seed)

    def sample(self) -> Any:
        """Index the files with random rows."""
        rows = self.rng.integers(0, self.task.rows, self.task.batch)
        return [np.asarray(file[rows]) for file in self.files]


def fill(task: Task) -> Rounds:
    """Write columns into files, one a column."""
    Path(task.path).mkdir(parents=True, exist_ok=True)
    files: list[Any] = []
    first = 0
    for part in blocks(task):
        for number, column in enumerate(part):
            if not first:
                shape = (task.rows, *column.shape[1:])
                path = f"{task.path}/{number}.npy"
                files.append(np.lib.format.open_memmap(path, "w+", column.dtype, shape))
            files[number][first : first + len(column)] = column
        first += len(part[0])
    for file in files:
        file.flush()
    yield {}


if __name__ == "__main__":
    BENCHES: dict[str, Bench] = {
        **timed(Memory, gather),
        "fill": fill,
        "cold_sample": timed(Mapped, sample)["sample"],
        "random_sample": timed(partial(Mapped, is_random=True), sample)["sample"],
    }
    serve(BENCHES, ())
