"""ObservationIds: the ids of the frames of rows, each of them once.

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
from typing import Any, TypeAlias

import numpy as np
from xxhash import xxh3_64_intdigest

from diskreplay.errors import DamageError
from diskreplay.observations.frames import Frame, LoggedFields
from diskreplay.observations.log_end import LogEnd
from diskreplay.observations.new_frames import NewFrames
from diskreplay.observations.observation_reader import Lookup, ObservationReader
from diskreplay.records import content_of, entries_in

# A value, and the ids of its frames. A bytearray is compared with any bytes at once, where a
# memoryview goes one by one.
_Stack: TypeAlias = tuple[bytearray, list[int]]

# Of the entries within reach, read at first after an opening: 4096 frames of 84x84.
_LOADED_BYTES = 32 << 20


class ObservationIds:
    """Finds the id of a frame within reach by its digest, or gives it the next id.

    A digest may stand for an id that was taken back, and that another frame got since: so what is
    found is compared, bytes with bytes.
    """

    def __init__(self, logged: LoggedFields, reader: ObservationReader) -> None:
        self._logged = logged
        self._parts = [
            (
                one.kind,
                one.field.frames,
                one.field.frame_bytes,
                one.source,
                one.shift,
                one.is_source,
            )
            for one in logged.fields
        ]
        self._reader = reader
        self._codecs = [kind.compression for kind in logged.kinds]
        self._ids: list[dict[int, int]] = [{} for _ in logged.kinds]  # by digest
        self._order: deque[tuple[int, int, int]] = deque()  # id, kind and digest, ascending ids
        self._is_loaded = False
        # The values of the last row and the ids of their frames: the next row repeats some.
        self._last: list[_Stack] = []
        self._forget_last()

    def shared(self, row: list[Any]) -> list[Any]:
        """Return a row with bytearrays in place of the values that another one may repeat.

        A value that repeats one of the last row is the same bytearray.
        """
        shared = row.copy()
        for logged in self._logged.fields:
            if (stack := logged.stack_in(row[logged.place])) is None:
                continue
            if logged.source >= 0 and not logged.shift:
                other = self._last[logged.source][0]
                if other == stack:
                    shared[logged.place] = other
                    continue
            if logged.is_source:
                shared[logged.place] = bytearray(stack)
        return shared

    def of_row(
        self, stacks: Iterable[Frame], new: NewFrames, oldest: int, lookup: Lookup
    ) -> list[list[int]]:
        """Return the ids of the frames of each logged field in a row.

        stacks:  the bytes of the value of each logged field
        new:     takes the new frames
        oldest:  the oldest id that may be used again, see `LogEnd.oldest_for_row`
        lookup:  returns values of the log before `new`
        """
        found: list[_Stack] = []
        for (kind, n, size, source, shift, is_source), stack in zip(
            self._parts, stacks, strict=True
        ):
            ids: list[int] = []
            if shift:
                other, its_ids = found[source]
                if other.startswith(memoryview(stack)[:-size], size) and min(its_ids) >= oldest:
                    ids = its_ids[1:]
            elif source >= 0:
                other, its_ids = self._last[source]
                if (other is stack or other == stack) and min(its_ids) >= oldest:
                    found.append((other, its_ids))
                    continue
            for at in range(len(ids), n):
                frame = stack if n == 1 else memoryview(stack)[at * size : at * size + size]
                ids.append(self._id_of(kind, frame, new, oldest, lookup))
            if type(stack) is not bytearray:
                stack = bytearray(stack if is_source else b"")
            found.append((stack, ids))
        self._last = found
        return [ids for _, ids in found]

    def _id_of(self, kind: int, frame: Frame, new: NewFrames, oldest: int, lookup: Lookup) -> int:
        ids, digest, frames = self._ids[kind], xxh3_64_intdigest(frame), new.frames
        known, count = ids.get(digest, -1), new.begin + len(frames)
        if oldest <= known < count:
            if known >= new.begin:
                other: Any = frames[known - new.begin][1]
            else:
                other = self._reader.frame(kind, known, lookup)
            if bytearray(frame) == other:
                return known
        self._order.append((count, kind, digest))  # first: what is there can be forgotten
        ids[digest] = count
        new.add(kind, frame)
        return count

    def load(self, end: LogEnd, lookup: Lookup) -> None:
        """Read the newest entries within reach of the end of the log, at the first call."""
        if self._is_loaded:
            return
        self._order.clear()  # an interrupt may have left some
        for ids in self._ids:
            ids.clear()
        first, per_value = max(end.first, end.count - end.reach), end.layout.entries_per_value
        keys = range(first // per_value, -(-end.count // per_value)) if per_value else range(0)
        begin, nbytes = keys.stop, 0
        while begin > keys.start and nbytes < _LOADED_BYTES:
            begin -= 1
            nbytes += len(lookup(np.array([begin]))[0])
        for key in range(begin, keys.stop):
            with contextlib.suppress(DamageError):
                [value] = lookup(np.array([key]))
                for observation_id, entry in enumerate(entries_in(value), key * per_value):
                    if first <= observation_id < end.count:
                        self._load(observation_id, entry)
        self._is_loaded = True

    def _load(self, observation_id: int, entry: memoryview) -> None:
        """Keep the digest and the frame of an entry, of each kind that it can be of."""
        for kind, (_, nbytes, _) in enumerate(self._logged.kinds):
            with contextlib.suppress(DamageError):
                frame = self._codecs[kind].decompress(content_of(entry, observation_id), nbytes)
                digest = xxh3_64_intdigest(frame)
                self._order.append((observation_id, kind, digest))
                self._ids[kind][digest] = observation_id
                self._reader.window.keep(kind, observation_id, frame)

    def forget_before(self, observation_id: int) -> None:
        """Forget the frames of ids below this one."""
        while self._order and self._order[0][0] < observation_id:
            self._forget(*self._order[0])
            self._order.popleft()

    def forget_from(self, observation_id: int) -> None:
        """Forget the frames of ids from this one on: other frames may get these ids."""
        self._forget_last()
        while self._order and self._order[-1][0] >= observation_id:
            self._forget(*self._order[-1])
            self._order.pop()  # at last: after an interrupt the entry is forgotten again

    def _forget_last(self) -> None:
        self._last = [(bytearray(), []) for _ in self._logged.fields]

    def _forget(self, observation_id: int, kind: int, digest: int) -> None:
        if self._ids[kind].get(digest) == observation_id:
            del self._ids[kind][digest]
