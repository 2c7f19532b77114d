"""ObservationWriter: a commit that gives ids to observations, and puts the new ones in the log."""

from __future__ import annotations

from functools import partial

import numpy as np

from diskreplay.aliases import Columns
from diskreplay.observations.frames import LoggedFields
from diskreplay.observations.log_end import LogEnd
from diskreplay.observations.new_frames import NewFrames
from diskreplay.observations.observation_ids import ObservationIds
from diskreplay.observations.observation_reader import ObservationReader
from diskreplay.records import Layout
from diskreplay.store import ObservationRange, Transaction

_PART_BYTES = 4 << 20


class ObservationWriter:
    """Gives ids in the transaction of a commit, where other processes may write to the log, too.

    A commit calls `begin`, and `put` for rows in the order of their write ids; and `confirm` after
    its transaction. A commit that fails is forgotten by the next `begin`.
    """

    def __init__(
        self, logged: LoggedFields, reader: ObservationReader, ids: ObservationIds, capacity: int
    ) -> None:
        self._logged = logged
        self._reader = reader
        self._ids = ids
        self._capacity = capacity
        self._begun_at = 0  # the count before the last commit
        self._is_confirmed = True  # False while a commit is under way, and after a failed one

    def begin(self, txn: Transaction, found: ObservationRange, layout: Layout) -> LogEnd:
        """Begin a commit to a log of this range and layout, and return the end of the log."""
        self.forget_failed()
        self._end = end = LogEnd(self._logged, self._capacity, found, layout)
        self._reader.entries_per_value = layout.entries_per_value
        end.read_group(txn.observation_values)
        self._ids.load(end, txn.observation_values)
        self._begun_at = end.count
        self._is_confirmed = False
        return end

    def put(self, txn: Transaction, columns: Columns) -> Columns:
        """Put the new observations of rows, and return the columns of their records."""
        end, lookup = self._end, partial(self._end.values, txn)
        new, found = NewFrames(end.count), []
        for stacks in zip(*self._logged.stacks_of(columns), strict=True):
            if new.nbytes >= _PART_BYTES:
                self._put_new(txn, new)
                new = NewFrames(end.count)
            oldest = end.oldest_for_row(new.count)
            found.append(self._ids.of_row(stacks, new, oldest, lookup))
        self._put_new(txn, new)
        return self._logged.records_with(columns, found)

    def _put_new(self, txn: Transaction, new: NewFrames) -> None:
        self._end.put(txn, new)
        self._ids.forget_before(self._end.count - self._end.reach)
        self._reader.entries_per_value = self._end.layout.entries_per_value
        window = self._reader.window
        for kind, (_, nbytes, packed) in enumerate(self._logged.kinds):
            places = [place for place, (of, _) in enumerate(new.frames) if of == kind]
            if packed is not None:
                for place in places:
                    window.write_packed(kind, new.begin + place, bytes(new.frames[place][1]))
            elif places:
                joined = b"".join([new.frames[place][1] for place in places])
                frames = np.frombuffer(joined, np.uint8).reshape(len(places), nbytes)
                window.write(kind, new.begin + np.array(places), frames)

    def confirm(self) -> None:
        """Keep the digests of the commit: it was done."""
        self._is_confirmed = True

    def forget_failed(self) -> None:
        """Forget what a commit that failed has left: others may get its ids, and the layout."""
        if not self._is_confirmed:
            self._ids.forget_from(self._begun_at)
            self._reader.window.drop_from(self._begun_at)
            self._reader.entries_per_value = 0  # read again: it may have decided the layout
            self._is_confirmed = True
