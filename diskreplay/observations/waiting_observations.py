"""WaitingObservations: observations that have their ids, and wait in the window for a commit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from diskreplay.aliases import Columns
from diskreplay.observations.frames import Frame, LoggedFields
from diskreplay.observations.log_end import LogEnd
from diskreplay.observations.log_sizes import reach_for
from diskreplay.observations.new_frames import NewFrames
from diskreplay.observations.observation_ids import ObservationIds
from diskreplay.observations.observation_reader import Lookup, ObservationReader, no_values
from diskreplay.records import Layout
from diskreplay.store import ObservationRange, Transaction

_COMMIT_BYTES = 2 << 20  # of frames that wait
_MOST_BYTES = 8 << 20  # of frames that a call may let wait


class WaitingObservations:
    """Gives ids before the commit, where no other process writes, so that each id is final.

    All frames of a row are in the window until the commit: the new ones, of which a part of the
    window at most may wait, and those of earlier ids, since only the ids of the other part are
    given again.

    After `open` it gives ids to rows. A commit calls `begin` in its transaction, and `confirm`
    after it. When it fails, the frames wait for the next one, unless `take_back` forgets them; the
    next `open` finds out whether a commit that was interrupted had been done. An id may be given
    in a call that is interrupted before its row is there: that costs an entry that nobody reads.

    is_open:  whether ids may be given: False from the beginning of a commit to its end
    """

    def __init__(
        self, logged: LoggedFields, reader: ObservationReader, ids: ObservationIds, capacity: int
    ) -> None:
        self._logged = logged
        self._reader = reader
        self._ids = ids
        self._capacity = capacity
        self.is_open = False
        self._frames: NewFrames | None = None  # those that wait; None before the first `open`
        largest = max(1, *(kind.nbytes for kind in logged.kinds))
        self._most = max(1, _COMMIT_BYTES // largest)
        rows = reader.window.rows
        self._distance = min(reach_for(logged, capacity), rows // 2)
        self._room = max(logged.frames_in_row, min(_MOST_BYTES // largest, rows - self._distance))

    def open(self, found: ObservationRange, layout: Layout, lookup: Lookup) -> None:
        """Begin to give ids behind a log of this range and layout, or go on after a failed commit.

        lookup:  returns values of the log
        """
        if self._frames is None or found.count >= self._frames.count:  # they are in the log
            self._reader.entries_per_value = layout.entries_per_value
            end = LogEnd(self._logged, self._capacity, found, layout)
            end.read_group(lookup)
            self._ids.load(end, lookup)
            self._wait_behind(end)
        self.is_open = True

    def take_back(self) -> None:
        """Forget the frames that wait: other frames get their ids."""
        self.is_open = False
        if self._frames is not None:
            self._ids.forget_from(self._frames.begin)
            self._reader.window.drop_from(self._frames.begin)
            self._reader.window.keep_from(None)
            self._frames = None

    def has_room(self, n: int) -> bool:
        """Return whether the frames of n more rows may wait for the next commit."""
        waiting = 0 if self._frames is None else len(self._frames.frames)
        room = self._room - waiting
        return not waiting or (waiting < self._most and n * self._logged.frames_in_row <= room)

    def fits(self, n: int) -> bool:
        """Return whether the frames of n rows can wait at all."""
        return n * self._logged.frames_in_row <= self._room

    @property
    def nbytes(self) -> int:
        """The bytes of the frames that wait."""
        return 0 if self._frames is None else self._frames.nbytes

    def prepared(self, row: list[Any]) -> list[Any]:
        """Return a row with the bytes of the values that the next row may repeat.

        Where it repeats a value of the last row, it has the same object: what is equal is then
        known by that. Other values stay arrays.
        """
        return self._ids.shared(row)

    def record_of(self, row: Sequence[Any]) -> list[Any]:
        """Return the record of a prepared row, with the ids of its frames."""
        stacks: list[Frame] = []
        for logged in self._logged.fields:
            value = row[logged.place]
            stacks.append(value if type(value) is bytearray else logged.stack_of(value))
        return self._logged.record_with(row, self._ids_of(stacks))

    def records_of(self, columns: Columns) -> Columns:
        """Return the columns of the records of rows that fit, with the ids of their frames."""
        rows = zip(*self._logged.stacks_of(columns), strict=True)
        return self._logged.records_with(columns, [self._ids_of(stacks) for stacks in rows])

    def _ids_of(self, stacks: Iterable[Frame]) -> list[list[int]]:
        new = self._frames
        if new is None:
            raise TypeError("the log was not opened")
        oldest = max(self._end.first, new.begin + len(new.frames) - self._back)
        return self._ids.of_row(stacks, new, oldest, no_values)

    # A commit

    def begin(self, txn: Transaction, found: ObservationRange, layout: Layout) -> LogEnd:
        """Put the frames that wait into a log of this range and layout, and return its end.

        It puts the same again, under the same ids, where a commit was interrupted after its end.
        """
        self.is_open = False
        end = LogEnd(self._logged, self._capacity, found, layout)
        if self._frames is not None:
            end.count, end.group = self._frames.begin, self._end.group
            end.put(txn, self._frames)
        return end

    def confirm(self, end: LogEnd) -> None:
        """Wait behind the log as the commit left it."""
        if self._frames is not None:
            self._reader.entries_per_value = end.layout.entries_per_value
            self._ids.forget_before(end.count - end.reach)
            self._wait_behind(end)
            self.is_open = True

    def _wait_behind(self, end: LogEnd) -> None:
        self._end = end
        self._back = min(end.reach, self._distance) - self._logged.frames_in_row
        self._reader.window.keep_from(end.count - self._distance)
        self._frames = NewFrames(end.count, self._reader.window)
