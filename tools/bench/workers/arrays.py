"""Plain arrays of numpy: columns in memory, and columns in files that are mapped into it."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any

import numpy as np

from bench.kernel import forget_pages
from bench.rows import Task, blocks
from bench.serving import serve
from bench.timing import Rounds, samples


def copy(task: Task) -> Rounds:
    """Copy random transitions out of columns in memory."""
    parts = list(blocks(task))
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    del parts
    rng = np.random.default_rng(task.seed)

    def sample() -> list[Any]:
        rows = rng.integers(0, task.rows, task.batch)
        return [column.take(rows, axis=0) for column in columns]

    yield from samples(task, sample)


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


def cold_sample(task: Task, *, is_random: bool = False) -> Rounds:
    """Index the files with random rows; they are not in the page cache at first."""
    forget_pages(task.path)
    files = [np.load(f"{task.path}/{number}.npy", mmap_mode="r") for number in range(5)]
    if is_random:
        for file in files:
            file.base.madvise(mmap.MADV_RANDOM)
    rng = np.random.default_rng(task.seed)

    def sample() -> list[Any]:
        rows = rng.integers(0, task.rows, task.batch)
        return [np.asarray(file[rows]) for file in files]

    yield from samples(task, sample)


def random_sample(task: Task) -> Rounds:
    """Do the same, after telling the system that accesses will be random."""
    yield from cold_sample(task, is_random=True)


if __name__ == "__main__":
    serve(
        {"copy": copy, "fill": fill, "cold_sample": cold_sample, "random_sample": random_sample}, ()
    )
