"""ObservationWriter: transitions as records and new entries of the log, each observation once.

A frame whose bytes are those of an entry within reach gets the id of that entry, any other one is a
new entry. So the next state of one transition and the state of the next one share their frames,
with any number of environments, and a stack that moves on by one frame adds one::

    state       frames a a a a    ids 0 0 0 0
    next_state  frames a a a b    ids 0 0 0 1
    state       frames a a a b    ids 0 0 0 1
    next_state  frames a a b c    ids 0 0 1 2

The reach bounds how far an id may lie behind the end of the log: each id in a record is at most
`reach` behind the end of the log after that record. So what lies further behind than the oldest
live record allows is needed by no live record, and nobody has to count references.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterable
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
from xxhash import xxh3_64_intdigest

from diskreplay.aliases import Columns, Ints
from diskreplay.errors import DamageError
from diskreplay.observations.frames import LoggedFields
from diskreplay.observations.observation_reader import ObservationReader
from diskreplay.records import (
    ENTRY_HEADER,
    Layout,
    content_of,
    entries_in,
    entry_of,
    pack,
)
from diskreplay.store import ObservationRange, Transaction

Frame: TypeAlias = bytes | memoryview  # a packed value, or a view into the frames of a column

_LEAST_REACH, _MOST_REACH = 64, 4096
_VALUE_BYTES = 32 << 10
_MOST_IN_VALUE = 512
# A commit writes the last value again, and a lookup reads the whole value: so that is how large one
# may get where the first frames were black, and later ones leave a codec nothing to do.
_MOST_VALUE_BYTES = 1 << 20
_LARGE_PACKED = 127 << 10  # of a packed value: eight of them share a value of the log
_PART_BYTES = 4 << 20
_OFFSET_BYTES = 4
# Of the entries within reach, read by the first commit after an opening: 4096 frames of 84x84.
_LOADED_BYTES = 32 << 20


class ObservationWriter:
    """Encodes the transitions of one store, a commit after the other.

    A commit calls `begin`, `put` for rows in the order of their write ids, and `end`, all in its
    transaction; and `confirm` after it. A commit that fails is forgotten by the next `begin`.
    """

    def __init__(self, logged: LoggedFields, reader: ObservationReader, capacity: int) -> None:
        self._logged = logged
        self._reader = reader
        self._capacity = capacity
        self._codecs = [kind.compression for kind in logged.kinds]
        self._recent: list[dict[int, int]] = [{} for _ in logged.kinds]  # ids by digest
        self._order: deque[tuple[int, int, int]] = deque()  # id, kind and digest, ascending ids
        self._confirmed = -1  # the count after the last commit; -1 before the first
        self._is_confirmed = True  # False while a commit is under way, and after a failed one

    # A commit

    def begin(self, txn: Transaction, found: ObservationRange, layout: Layout) -> None:
        """Begin a commit to a log of this range and layout."""
        self.forget_failed()
        if 0 < layout.reach < 4 * self._logged.frames_in_row:
            raise DamageError(
                f"the layout has a reach of {layout.reach} observations (expected at least "
                f"{4 * self._logged.frames_in_row}, four times those of a transition)"
            )
        self._txn = txn
        self._first, self._count = found.first, found.count
        self.layout = layout
        self._reader.entries_per_value = layout.entries_per_value
        self._group = self._last_group()  # the entries of the last value, if it can get more
        self._group_is_changed = False
        if self._confirmed < 0:
            self._load_recent()
            self._confirmed = self._count
        self._is_confirmed = False

    def put(self, columns: Columns) -> Columns:
        """Put the new observations of rows, and return the columns of their records."""
        n, records = len(columns[0]), list(columns)
        size = max(1, self._reach // 2 // max(1, self._logged.frames_in_row))
        parts = [
            self._put_part([column[begin:end] for column in columns])
            for begin, end in pairwise(self._ends_of_parts(columns, size))
        ]
        for place, index in enumerate(self._logged.schema.logged):
            of_field = np.concatenate([part[place] for part in parts])
            shape = self._logged.schema.record_schema.fields[index].shape
            records[index] = of_field.reshape(n, *shape)
        return records

    def end(self, oldest: Iterable[int] | None) -> ObservationRange:
        """Put the last value, remove what no live record needs, and return the range of the log.

        oldest:  the observation ids in the oldest live record; None where no record is live, or
                 where it cannot be read, so that nothing is removed
        """
        per_value = self.layout.entries_per_value
        if self._group_is_changed:
            self._txn.put_observations((self._count - 1) // per_value, [pack(self._group)])
        newest = -1 if oldest is None else max(oldest, default=-1)
        if -1 < newest < self._count:  # an id beyond the log says nothing of what is needed
            self._first = max(self._first, newest + 1 - self.layout.reach)
            self._txn.drop_observations(self._first // per_value if per_value else 0)
        self._group = []  # its entries may be large; the next commit reads them
        return ObservationRange(self._first, self._count)

    def end_empty(self) -> ObservationRange:
        """End as `end` does, where no record is live: nothing is needed any more."""
        self.end(None)
        per_value = self.layout.entries_per_value
        self._first = self._count
        if per_value:
            self._txn.drop_observations(self._count // per_value)
        return ObservationRange(self._first, self._count)

    def confirm(self) -> None:
        """Keep the digests of the commit: it was done."""
        self._confirmed = self._count
        self._is_confirmed = True

    def forget_failed(self) -> None:
        """Forget what a commit that failed has left: others may get its ids, and the layout."""
        if not self._is_confirmed:
            while self._order and self._order[-1][0] >= self._confirmed:
                self._forget(*self._order[-1])
                self._order.pop()  # at last: after an interrupt the entry is forgotten again
            self._reader.window.drop_from(self._confirmed)
            self._reader.entries_per_value = 0  # read again: it may have decided the layout
            self._is_confirmed = True

    # Inside

    @property
    def _reach(self) -> int:
        return self.layout.reach or reach_for(self._logged, self._capacity)

    def _ends_of_parts(self, columns: Columns, size: int) -> list[int]:
        """Return where rows are cut into parts of at most a number of rows, with 0 in front.

        A part with packed values ends also where these are 4 MiB, since all its entries are in
        memory.
        """
        n, varying = len(columns[0]), self._logged.schema.varying
        if not varying:
            return [*range(0, n, size), n]
        ends, waiting = [0], 0
        for row in range(n):
            waiting += sum(len(columns[index][row]) for index in varying)
            if row + 1 - ends[-1] == size or waiting >= _PART_BYTES:
                ends.append(row + 1)
                waiting = 0
        return ends if ends[-1] == n else [*ends, n]

    def _put_part(self, columns: Columns) -> list[Ints]:
        """Put rows with at most half a reach of frames; return the ids of each logged field."""
        begin, oldest = self._count, max(self._first, self._count - self._reach // 2)
        frames = [
            None if logged.field.varies else logged.frames_of(columns[logged.place])
            for logged in self._logged.fields
        ]
        copies = self._logged.stack_copies(frames)
        contents: list[Any] = [
            None if array is None else array.reshape(-1).data for array in frames
        ]
        ids: list[list[int]] = [[] for _ in frames]
        new: list[tuple[int, Frame]] = []  # kind and frame of each new id, from `begin` on
        for row in range(len(columns[0])):
            for place, (index, field, kind) in enumerate(self._logged.fields):
                if field.varies:
                    content = columns[index][row]
                    ids[place].append(self._id_of(kind, content, begin, oldest, new))
                    continue
                n, size, known = field.frames, field.frame_bytes, ids[place]
                copy, at = copies[place], row * n
                if copy is not None and copy.found[row]:
                    source = (row - copy.rows_back) * n
                    known += ids[copy.field][source + copy.shift : source + n]
                    at += n - copy.shift
                for begins in range(at * size, (row + 1) * n * size, size) if size else ():
                    view = contents[place][begins : begins + size]
                    known.append(self._id_of(kind, view, begin, oldest, new))
                if not size:
                    known += [self._id_of(kind, contents[place], begin, oldest, new)] * n
        self._put_new(begin, new)
        self._forget_before(self._count - self._reach)
        return [np.array(known, np.int64) for known in ids]

    def _id_of(
        self,
        kind: int,
        frame: Frame,
        begin: int,
        oldest: int,
        new: list[tuple[int, Frame]],
    ) -> int:
        """Return the id of a frame: of an entry not older than `oldest`, or a new one."""
        recent, digest = self._recent[kind], xxh3_64_intdigest(frame)
        known = recent.get(digest, -1)
        if known < oldest or not self._is_equal(kind, known, frame, begin, new):
            known = begin + len(new)
            new.append((kind, frame))
            self._order.append((known, kind, digest))  # first: what is there can be forgotten
            recent[digest] = known
        return known

    def _is_equal(
        self,
        kind: int,
        known: int,
        frame: Frame,
        begin: int,
        new: list[tuple[int, Frame]],
    ) -> bool:
        """Return whether a frame has the bytes of an entry with the same digest."""
        if known >= begin:
            return bytes(new[known - begin][1]) == bytes(frame)
        return self._reader.frame(kind, known, self._values) == bytes(frame)

    def _values(self, keys: Ints) -> list[Any]:
        """Return values of the log as of this moment in the transaction."""
        last = self._count // max(1, self.layout.entries_per_value)
        found = list(self._txn.observation_values(keys))
        for place in np.flatnonzero(keys == last).tolist() if self._group else ():
            found[place] = pack(self._group)
        return found

    def _put_new(self, begin: int, new: list[tuple[int, Frame]]) -> None:
        """Put new entries, in whole values but for the last one."""
        if not new:
            return
        entries = [
            entry_of(observation_id, self._codecs[kind].compress(view))
            for observation_id, (kind, view) in enumerate(new, begin)
        ]
        if not self.layout.entries_per_value:
            mean = sum(map(len, entries)) / len(entries) - ENTRY_HEADER
            largest = largest_frame_bytes(self._logged)
            self.layout = self.layout._replace(
                entries_per_value=entries_per_value(mean, largest), reach=self._reach
            )
            self._reader.entries_per_value = self.layout.entries_per_value
        per_value = self.layout.entries_per_value
        key = begin // per_value
        group = self._group + entries
        whole = len(group) // per_value
        values = [pack(group[n * per_value : n * per_value + per_value]) for n in range(whole)]
        if values:
            self._txn.put_observations(key, values)
        self._group = group[whole * per_value :]
        self._group_is_changed = bool(self._group)
        self._count = begin + len(new)
        for kind in range(len(self._logged.kinds)):
            places = [at for at, (of, _) in enumerate(new) if of == kind]
            if self._logged.kinds[kind].packed is not None:
                for at in places:
                    self._reader.window.write_packed(kind, begin + at, bytes(new[at][1]))
            elif places:
                nbytes = self._logged.kinds[kind].nbytes
                joined = b"".join([new[at][1] for at in places])
                frames = np.frombuffer(joined, np.uint8).reshape(len(places), nbytes)
                self._reader.window.write(kind, begin + np.array(places), frames)

    def _last_group(self) -> list[bytes]:
        """Return the entries of the last value if it can get more.

        A damaged one stays as it is, since repair may find its entries: the next ids are those of
        another value.
        """
        per_value = self.layout.entries_per_value
        n = self._count % per_value if per_value else 0
        if self._first == self._count:  # nothing is needed, and a compacted store lacks the value
            return [b""] * n
        if not n:
            return []
        [value] = self._txn.observation_values(np.array([self._count // per_value]))
        with contextlib.suppress(DamageError):
            found = [bytes(entry) for entry in entries_in(value)]
            if len(found) == n:
                return found
        if self._first == self._count:  # there are none, as after `clear` and `compact`
            self._first += per_value - n
        self._count += per_value - n
        return []

    # Digests of the entries within reach

    def _load_recent(self) -> None:
        """Read the newest entries within reach, so that the first transitions find their frames."""
        self._order.clear()
        for recent in self._recent:
            recent.clear()
        per_value = self.layout.entries_per_value
        first = max(self._first, self._count - self._reach)
        keys = range(first // per_value, -(-self._count // per_value)) if per_value else range(0)
        for key in self._newest(keys):
            with contextlib.suppress(DamageError):
                [value] = self._txn.observation_values(np.array([key]))
                for observation_id, entry in enumerate(entries_in(value), key * per_value):
                    if first <= observation_id < self._count:
                        self._load(observation_id, entry)

    def _newest(self, keys: range) -> range:
        """Return the last of some keys, whose values have 32 MiB together, or one more."""
        begin, nbytes = keys.stop, 0
        while begin > keys.start and nbytes < _LOADED_BYTES:
            begin -= 1
            [value] = self._txn.observation_values(np.array([begin]))
            nbytes += len(value)
        return range(begin, keys.stop)

    def _load(self, observation_id: int, entry: memoryview) -> None:
        """Keep the digest of an entry, of each kind that it can be of."""
        for kind, (_, nbytes, _) in enumerate(self._logged.kinds):
            with contextlib.suppress(DamageError):
                frame = self._codecs[kind].decompress(content_of(entry, observation_id), nbytes)
                digest = xxh3_64_intdigest(frame)
                self._order.append((observation_id, kind, digest))
                self._recent[kind][digest] = observation_id

    def _forget_before(self, observation_id: int) -> None:
        while self._order and self._order[0][0] < observation_id:
            self._forget(*self._order[0])
            self._order.popleft()

    def _forget(self, observation_id: int, kind: int, digest: int) -> None:
        if self._recent[kind].get(digest) == observation_id:
            del self._recent[kind][digest]


def reach_for(logged: LoggedFields, capacity: int) -> int:
    """Return the reach of a new log: a sixteenth of the capacity, from 64 to 4096 entries."""
    reach = min(_MOST_REACH, max(_LEAST_REACH, capacity // 16))
    return max(reach, 4 * logged.frames_in_row)


def entries_per_value(content_bytes: float, largest_bytes: int) -> int:
    """Return how many entries share a value: as many as 32 KiB hold, at most 512.

    content_bytes:  of an entry, compressed
    largest_bytes:  of the largest frame, so many of which take 1 MiB at most, or one alone
    """
    fitting = _VALUE_BYTES // entry_bytes(content_bytes)
    bounded = _MOST_VALUE_BYTES // entry_bytes(largest_bytes)
    return max(1, min(_MOST_IN_VALUE, int(fitting), int(bounded)))


def largest_frame_bytes(logged: LoggedFields) -> int:
    """Return the bytes of the largest frame; packed values count as large ones, whatever they are.

    Any of them may be larger still. Since at most eight share a value of the log, it stays below
    the limit of LMDB, 4 GiB.
    """
    return max(_LARGE_PACKED if kind.packed else kind.nbytes for kind in logged.kinds)


def entry_bytes(content_bytes: float) -> float:
    """Return the bytes of an entry in a value."""
    return float(ENTRY_HEADER + content_bytes + _OFFSET_BYTES)
