"""System: a full replay buffer under test, with the few operations that the loops time.

Each worker defines one for its library. This module also runs in the virtual environments of the
peers: it imports numpy (1 or 2) and the standard library only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.rows import Array, Row, Task

Floats = NDArray[np.float32]


class System:
    """A full buffer; `__init__` makes and fills it, and sets what is called with one item.

    push, extend:  take the values that `as_row` and `as_part` return, unpacked
    sample:        draws a batch
    sequences:     draws a batch of sequences
    """

    push: Callable[..., object]
    extend: Callable[..., object]
    sample: Callable[[], Any]
    sequences: Callable[[], Any]

    def __init__(self, task: Task) -> None:
        self.task = task

    def draw(self) -> Any:
        """Draw a batch, and return what `update` takes to know it by."""
        raise NotImplementedError

    def gatherer(self, n: int, *, reuse: bool) -> Callable[[], Any]:
        """Return a function that draws n rows, into fresh arrays or into the same at each call."""
        raise NotImplementedError

    def update(self, drawn: Any, priorities: Floats) -> object:
        """Update the priorities of what was drawn."""
        raise NotImplementedError

    def as_rows(self, rows: list[Row]) -> list[Any]:
        """Put transitions in the form that `push_all` takes them in."""
        return rows

    def push_all(self, rows: list[Any]) -> None:
        """Push transitions one by one."""
        push = self.push
        for row in rows:
            push(*row)

    def as_part(self, columns: list[Array]) -> Any:
        """Put a thousand transitions in the form that `extend_all` takes them in."""
        return columns

    def extend_all(self, parts: list[Any]) -> None:
        """Add transitions by the thousand."""
        extend = self.extend
        for part in parts:
            extend(*part)

    def finish(self) -> None:
        """Commit what is not committed; peers have nothing to commit."""

    def close(self) -> None:
        """Close the buffer."""
