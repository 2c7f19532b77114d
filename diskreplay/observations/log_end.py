"""LogEnd: the end of the observation log, where the entries of a commit are put."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable
from typing import Any

import numpy as np

from diskreplay.aliases import Ints
from diskreplay.errors import DamageError
from diskreplay.observations.frames import LoggedFields
from diskreplay.observations.log_sizes import entries_per_value, largest_frame_bytes, reach_for
from diskreplay.observations.new_frames import NewFrames
from diskreplay.observations.observation_reader import Lookup
from diskreplay.records import Layout, entries_in, entry_of, pack
from diskreplay.store import ObservationRange, Transaction


class LogEnd:
    """The range of a log, its layout, and the entries of its last value, if it can get more.

    A damaged value stays as it is, since repair may find its entries: the next ids are then those
    of another value.

    first, count:  the range
    group:         the entries of the last value
    """

    def __init__(
        self, logged: LoggedFields, capacity: int, found: ObservationRange, layout: Layout
    ) -> None:
        if 0 < layout.reach < 4 * logged.frames_in_row:
            raise DamageError(
                f"the layout has a reach of {layout.reach} observations (expected at least "
                f"{4 * logged.frames_in_row}, four times those of a transition)"
            )
        self._logged = logged
        self._codecs = [kind.compression for kind in logged.kinds]
        self.first, self.count = found.first, found.count
        self.layout = layout
        self.reach = layout.reach or reach_for(logged, capacity)
        self.group: list[bytes] = []
        self._is_changed = False

    def read_group(self, lookup: Lookup) -> None:
        """Read the entries of the last value; the count is that of the next value if it cannot."""
        per_value = self.layout.entries_per_value
        n = self.count % per_value if per_value else 0
        self.group = []
        if self.first == self.count:  # nothing is needed, and a compacted store lacks the value
            self.group = [b""] * n
        if self.group or not n:
            return
        [value] = lookup(np.array([self.count // per_value]))
        with contextlib.suppress(DamageError):
            found = [bytes(entry) for entry in entries_in(value)]
            if len(found) == n:
                self.group = found
                return
        self.count += per_value - n

    def oldest_for_row(self, count: int) -> int:
        """Return the oldest id that a row may refer to, with `count` ids before it."""
        return max(self.first, count + self._logged.frames_in_row - self.reach)

    def values(self, txn: Transaction, keys: Ints) -> list[Any]:
        """Return values of the log as of this moment in a transaction."""
        last = self.count // max(1, self.layout.entries_per_value)
        found = list(txn.observation_values(keys))
        for place in np.flatnonzero(keys == last).tolist() if self.group else ():
            found[place] = pack(self.group)
        return found

    def put(self, txn: Transaction, new: NewFrames) -> None:
        """Put new entries, in whole values but for the last one; the count is behind them."""
        if not new.frames:
            return
        contents = [self._codecs[kind].compress(frame) for kind, frame in new.frames]
        if not self.layout.entries_per_value:
            mean = sum(map(len, contents)) / len(contents)
            per_value = entries_per_value(mean, largest_frame_bytes(self._logged))
            self.layout = self.layout._replace(entries_per_value=per_value, reach=self.reach)
        per_value = self.layout.entries_per_value
        entries = itertools.chain(self.group, map(entry_of, itertools.count(new.begin), contents))
        whole = (len(self.group) + len(contents)) // per_value
        if whole:
            # One by one: the memory of a value stays in the cache of the processor.
            values = (pack([*itertools.islice(entries, per_value)]) for _ in range(whole))
            txn.put_observations(new.begin // per_value, whole, values)
        self.group = list(entries)
        self._is_changed = bool(self.group)
        self.count = new.count

    def end(self, txn: Transaction, oldest: Iterable[int] | None) -> None:
        """Put the last value, and remove what no live record needs.

        oldest:  the observation ids in the oldest live record; None where no record is live, or
                 where it cannot be read, so that nothing is removed
        """
        per_value = self.layout.entries_per_value
        if self._is_changed:
            txn.put_observations((self.count - 1) // per_value, 1, [pack(self.group)])
        newest = -1 if oldest is None else max(oldest, default=-1)
        if -1 < newest < self.count:  # an id beyond the log says nothing of what is needed
            self.first = max(self.first, newest + 1 - self.layout.reach)
            txn.drop_observations(self.first // per_value if per_value else 0)

    def end_empty(self, txn: Transaction) -> None:
        """End as `end` does, where no record is live: nothing is needed any more."""
        self.end(txn, None)
        per_value = self.layout.entries_per_value
        self.first = self.count
        if per_value:
            txn.drop_observations(self.count // per_value)
