"""PendingChanges: the changes of a shared writer that wait for its next commit.

Pending rows have no write ids yet, only a number, and updates of priorities have a number, too. The
numbers never begin anew: they are totals, which a commit compares with the totals that the store
keeps of this run. So a commit that was interrupted after it was done is not done twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from diskreplay.aliases import Array, Ints
from diskreplay.buffer.new_window import new_window
from diskreplay.buffer.window_layout import window_nbytes, window_rows
from diskreplay.episodes import LinkValues
from diskreplay.sampling import Values
from diskreplay.schema import Schema

NEW = np.float32(np.nan)  # the priority of a row that gets the largest so far
_LINK_BYTES = 4
_LEAST_COMPACTED = 1 << 14


def pending_nbytes(schema: Schema, capacity: int, window_bytes: int) -> int:
    """Return the memory of the pending rows, in bytes."""
    rows = window_rows(schema, capacity, window_bytes)
    return window_nbytes(schema, capacity, window_bytes) + rows * (NEW.nbytes + _LINK_BYTES)


class Update(NamedTuple):
    """New priorities by write id, and the largest one, also if a later one replaced it."""

    number: int
    write_ids: Ints
    priorities: Values
    highest: float


class PendingChanges:
    """Rows, updates of priorities, and counts that wait for a commit."""

    def __init__(self) -> None:
        self.pushed = self.sent = 0  # rows: all of this run, and those committed
        self.updated = 0
        self.stale = self._stale_committed = 0  # updates of write ids that were no longer live
        self._updates: list[Update] = []
        self._waiting = self._compacted = 0  # write ids in the updates: now, and when compacted
        self._rows = 0  # rows of the window; 0 before there is a schema
        self._rows_nbytes = 0
        self._priorities = np.zeros(1, np.float32)
        self._links = np.zeros(1, np.int32)

    @property
    def nbytes(self) -> int:
        """The memory of the pending changes, in bytes."""
        return self._rows_nbytes + 12 * self._waiting

    @property
    def is_empty(self) -> bool:
        """True if nothing waits for a commit."""
        is_counted = self.sent == self.pushed and self.stale == self._stale_committed
        return is_counted and not self._updates

    def adopt(self, schema: Schema, capacity: int, window_bytes: int) -> None:
        """Make room for the rows of a schema, the first time."""
        if not self._rows:
            self._window = new_window(schema, capacity, window_bytes)
            self._priorities = np.full(self._window.rows, NEW)
            self._links = np.zeros(self._window.rows, np.int32)
            self._rows_nbytes = pending_nbytes(schema, capacity, window_bytes)
            self._rows = self._window.rows

    def has_room(self, n: int, packed_bytes: int = 0) -> bool:
        """Return whether n more rows, with packed values, can be held."""
        if not self._rows:
            return True
        waiting = self._window.packed_since(self.sent)
        has_bytes = waiting + packed_bytes <= self._window.most_packed
        return has_bytes and self.pushed - self.sent + n <= self._rows

    def fits(self, n: int, packed_bytes: int = 0) -> bool:
        """Return whether n rows can be held at all, once there is a schema."""
        return n <= self._rows and packed_bytes <= self._window.most_packed

    def prepared(self, row: list[Any]) -> list[Any]:
        """Return a row, as a schema accepted it, in the form that `push` takes."""
        return self._window.prepared(row)

    def push(self, row: list[Any], priorities: Values | None, link: int) -> None:
        """Add one prepared row."""
        self._window.write_row(self.pushed, row)
        self._priorities[self.pushed % self._rows] = NEW if priorities is None else priorities[0]
        self._links[self.pushed % self._rows] = link
        self.pushed += 1

    def extend(self, columns: list[Array], priorities: Values | None, links: LinkValues) -> int:
        """Write rows, for which there is room; return `pushed` with them, which adds them."""
        n, at = len(columns[0]), self.pushed % self._rows
        self._window.write(self.pushed, columns)
        places: Any = slice(at, at + n)
        if at + n > self._rows:
            places = np.arange(at, at + n) % self._rows
        self._priorities[places] = NEW if priorities is None else priorities
        self._links[places] = links
        return self.pushed + n

    def update(self, write_ids: Ints, priorities: Values) -> None:
        """Add new priorities by write id."""
        if write_ids.size:
            number, highest = self.updated + 1, float(priorities.max())
            self._updates.append(Update(number, write_ids, priorities, highest))
            self.updated = number
            self._waiting += write_ids.size
            if self._waiting > 2 * self._compacted + _LEAST_COMPACTED:
                self.latest()

    def rows(self, sent: int, size: int) -> Iterator[list[Array]]:
        """Yield the rows after the first `sent`, at most `size` in a chunk."""
        if sent < self.pushed:
            for _, columns in self._window.chunks(sent, self.pushed, size):
                yield columns

    def priorities_after(self, sent: int) -> Values:
        """Return the priorities of the rows after the first `sent`; NEW where none was given."""
        return self._priorities[np.arange(sent, self.pushed) % max(1, self._rows)]

    def links_after(self, sent: int) -> LinkValues:
        """Return the links of the rows after the first `sent`, by the numbers of rows."""
        return self._links[np.arange(sent, self.pushed) % max(1, self._rows)]

    def latest(self) -> Update:
        """Return all updates as one: each write id once, with its last priority."""
        if not self._updates:
            return Update(self.updated, np.zeros(0, np.int64), np.zeros(0, np.float32), -1.0)
        ids = np.concatenate([update.write_ids for update in self._updates])[::-1]
        priorities = np.concatenate([update.priorities for update in self._updates])[::-1]
        unique, at = np.unique(ids, return_index=True)
        highest = max(update.highest for update in self._updates)
        number = self._updates[-1].number
        self._updates = [Update(number, unique, priorities[at], highest)]
        self._waiting = self._compacted = unique.size
        return self._updates[0]

    def forget_highest(self) -> None:
        """Forget the largest of the pending priorities, as `clear` does."""
        self._updates = [update._replace(highest=-1.0) for update in self._updates]

    def forget_updates(self, number: int) -> None:
        """Forget the updates up to a number: they were committed."""
        if self._updates and self._updates[0].number <= number:
            self._updates = [update for update in self._updates if update.number > number]
            self._waiting = sum(update.write_ids.size for update in self._updates)

    def forget_all(self) -> None:
        """Forget all changes: they were committed, or were taken back."""
        self._updates = []
        self._waiting = 0
        self.sent = self.pushed
        self._stale_committed = self.stale
