"""Outbox: what one of several writing processes will say at its next commit.

Rows have no write ids yet, only their number in the outbox, which counts on for ever. What is
counted is counted as totals: a commit compares them with those that the store has of this run, so
that a commit which was done, but whose end was interrupted, is not done twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diskreplay.priorities import Priorities
from diskreplay.schema import Array, Schema
from diskreplay.window import Window

Ints = NDArray[np.int64]
NEW = np.float32(np.nan)  # the priority of a row that gets the largest so far


class Outbox:
    """Rows, priorities by write id, and counts that wait for a commit."""

    def __init__(self) -> None:
        self.pushed = self.sent = 0  # rows: in all, and done with
        self.draws = self.stale = 0
        self.updates: list[tuple[Ints, Priorities]] = []
        self.highest = np.zeros(0, np.float32)  # of all updates, at most one
        self._window: Window | None = None

    def adopt(self, schema: Schema, capacity: int, window_bytes: int) -> None:
        """Make room for rows of this schema."""
        if self._window is None:
            self._window = Window(schema, capacity, window_bytes)
            self._given = np.full(self._window.rows, NEW)

    def has_room(self, n: int) -> bool:
        """Return whether n more rows can be held."""
        return self._window is None or self.pushed - self.sent + n <= self._window.rows

    def push(self, row: list[Any], given: Priorities | None) -> None:
        """Hold one row."""
        if self._window is not None:
            self._window.write_row(self.pushed, row)
            self._given[self.pushed % self._window.rows] = NEW if given is None else given[0]
            self.pushed += 1

    def extend(self, columns: list[Array], given: Priorities | None) -> None:
        """Hold rows, for which there is room."""
        if self._window is not None:
            numbers = np.arange(self.pushed, self.pushed + len(columns[0]))
            self._window.write(numbers, columns)
            self._given[numbers % self._window.rows] = NEW if given is None else given
            self.pushed += numbers.size

    def update(self, write_ids: Ints, priorities: Priorities) -> None:
        """Hold new priorities."""
        if write_ids.size:
            self.highest = np.append(self.highest, priorities).max(keepdims=True)
            self.updates.append((write_ids, priorities))

    def rows(self, sent: int, size: int) -> Iterator[list[Array]]:
        """Yield the rows after the first `sent`, at most `size` in a chunk."""
        if self._window is not None:
            for _, columns in self._window.chunks(sent, self.pushed, size):
                yield columns

    def given(self, sent: int) -> Priorities:
        """Return the priorities of the rows after the first `sent`; NEW where none was given."""
        if self._window is None:
            return np.zeros(0, np.float32)
        return self._given[np.arange(sent, self.pushed) % self._window.rows]

    def latest(self) -> tuple[Ints, Priorities]:
        """Return the write ids with a new priority, each once, and its last."""
        if not self.updates:
            return np.zeros(0, np.int64), np.zeros(0, np.float32)
        ids = np.concatenate([ids for ids, _ in self.updates])[::-1]
        priorities = np.concatenate([priorities for _, priorities in self.updates])[::-1]
        unique, at = np.unique(ids, return_index=True)
        self.updates = [(unique, priorities[at])]
        return self.updates[0]

    def forget_highest(self) -> None:
        """Let the largest priority start anew, as `clear` has it."""
        self.highest = np.zeros(0, np.float32)

    def settle(self) -> None:
        """Let all of it be done with: it is committed, or is not to be."""
        self.updates = []
        self.forget_highest()
        self.sent = self.pushed
