"""Plain arrays of numpy: columns in memory, columns in files that are mapped, rows in a file."""

from __future__ import annotations

import mmap
import os
import struct
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from bench.kernel import forget_pages
from bench.rows import Array, Task, blocks
from bench.serving import serve
from bench.system import System
from bench.timing import Bench, Rounds, gather, push, sample, timed

COMMIT_BYTES = 2 << 20  # of diskreplay


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


class Appended(System):
    """Transitions one after the other in a file, a ring; with "system" synced now and then."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        Path(task.path).mkdir(parents=True, exist_ok=True)
        self.file = os.open(f"{task.path}/rows", os.O_RDWR | os.O_CREAT)
        self.is_synced = task.durability == "system"
        self.together = max(1, COMMIT_BYTES // task.row_bytes)
        self.pushed = 0
        for part in blocks(task):
            self.push_all(list(zip(*part, strict=True)))

    def push(self, *row: Any) -> None:
        """Write one transition, and sync the file where a buffer would commit."""
        state, action, reward, next_state, done = row
        if self.pushed % self.together == 0:
            self.finish()
        if self.pushed % self.task.rows == 0:
            os.lseek(self.file, 0, os.SEEK_SET)
        os.writev(self.file, [struct.pack("<qff", action, reward, done), state, next_state])
        self.pushed += 1

    def finish(self) -> None:
        """Sync the file."""
        if self.is_synced:
            os.fdatasync(self.file)

    def close(self) -> None:
        """Close the file."""
        os.close(self.file)


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
        **timed(Appended, push),
        "fill": fill,
        "cold_sample": timed(Mapped, sample)["sample"],
        "random_sample": timed(partial(Mapped, is_random=True), sample)["sample"],
    }
    serve(BENCHES, ())
