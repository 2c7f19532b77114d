"""Stacks: values of large frames, which are copied to their columns one by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from diskreplay.aliases import Array, Ints
from diskreplay.observations.frames import Bytes


class Stacks(NamedTuple):
    """The values of a field, and the column that takes them.

    column:  C-contiguous
    rows:    int64 (n, frames): where each frame is, or its id
    """

    column: Array
    rows: Ints

    @property
    def memory(self) -> memoryview:
        """The bytes of the column."""
        return self.column.reshape(-1).view(np.uint8).data


def copy_stacks(stacks: Sequence[Stacks], places: Ints | None, source: Bytes) -> None:
    """Write values into columns, each frame as a row of a source.

    The values of a row are written one after the other, since a next state has most frames of its
    state. Frames that follow each other in the source are copied at once.

    places:  int64 (n,), the place of each value in the columns; None means all, in order
    """
    size, frames = source.shape[1], source.reshape(-1).data
    parts = []
    for of in stacks:
        are_runs = (of.rows[:, 1:] - of.rows[:, :-1] == 1).all(axis=1)
        parts.append((of.memory, of.rows.shape[1] * size, are_runs.tolist(), of.rows.tolist()))
    n = len(stacks[0].rows)
    for row, place in enumerate(range(n) if places is None else places.tolist()):
        for column, nbytes, are_runs, rows in parts:
            to = place * nbytes
            if are_runs[row]:
                at = rows[row][0] * size
                column[to : to + nbytes] = frames[at : at + nbytes]
                continue
            for number in rows[row]:
                column[to : to + size] = frames[number * size : number * size + size]
                to += size


def scattered(
    stacks: Sequence[Stacks], places: Ints | None, size: int
) -> tuple[Ints, Callable[[int, Any], None]]:
    """Return the distinct ids, ascending, and a function that writes a frame wherever it belongs.

    That takes the number of the id and the frame, of `size` bytes.
    """
    begins, columns = [], []
    for of in stacks:
        n, k = of.rows.shape
        where = np.arange(n) if places is None else places
        begins.append(((where[:, None] * k + np.arange(k)) * size).reshape(-1))
        columns += [of.memory] * (n * k)
    ids = np.concatenate([of.rows.reshape(-1) for of in stacks])
    order = np.argsort(ids, kind="stable")
    wanted, firsts = np.unique(ids[order], return_index=True)
    bounds = [*firsts.tolist(), ids.size]
    targets = [
        (columns[at], begin)
        for at, begin in zip(order.tolist(), np.concatenate(begins)[order].tolist(), strict=True)
    ]

    def put(number: int, frame: Any) -> None:
        for column, begin in targets[bounds[number] : bounds[number + 1]]:
            column[begin : begin + size] = frame

    return wanted, put
