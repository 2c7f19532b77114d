"""Plain arrays of numpy: columns in memory, and columns in files that are mapped into it."""

from __future__ import annotations

import mmap
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench.kernel import forget_pages
from bench.rows import Task, blocks
from bench.serving import serve
from bench.system import System
from bench.timing import Bench, Rounds, sample, timed


class Memory(System):
    """Columns in memory."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        parts = list(blocks(task))
        self.columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
        self.rng = np.random.default_rng(task.seed)

    def sample(self) -> Any:
        """Copy random transitions out of the columns."""
        rows = self.rng.integers(0, self.task.rows, self.task.batch)
        return [column.take(rows, axis=0) for column in self.columns]


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
        "copy": timed(Memory, sample)["sample"],
        "fill": fill,
        "cold_sample": timed(Mapped, sample)["sample"],
        "random_sample": timed(partial(Mapped, is_random=True), sample)["sample"],
    }
    serve(BENCHES, ())
