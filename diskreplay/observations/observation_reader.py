"""ObservationReader: the values of logged fields by their observation ids."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from diskreplay.aliases import Array, Bools, Columns, Ints
from diskreplay.errors import DamageError
from diskreplay.observations.batch_frames import FrameMemory, Frames, memory_of, write_rows
from diskreplay.observations.frames import Bytes, LoggedFields
from diskreplay.observations.observation_window import ObservationWindow
from diskreplay.observations.stacks import Stacks, copy_stacks, scattered
from diskreplay.records import content_of, entry_in

# Returns the values of the log by their keys, empty where one is missing.
Lookup: TypeAlias = Callable[[Ints], Sequence[Any]]
Put: TypeAlias = Callable[[int, Any], None]


def no_values(keys: Ints) -> list[bytes]:
    """Return that there are no values in the log, a Lookup where all frames are in the window."""
    return [b""] * keys.size


class ObservationReader:
    """Reads frames from the window, or from the log, where each is checked.

    entries_per_value:  of the layout; 0 as long as the log is empty
    """

    def __init__(self, logged: LoggedFields, window: ObservationWindow) -> None:
        self.logged = logged
        self.window = window
        self.entries_per_value = 0
        self._codecs = [kind.compression for kind in logged.kinds]

    def read_into(
        self,
        columns: Sequence[Array | Frames],
        places: Ints | None,
        ids: Columns,
        lookup: Lookup,
        fields: Sequence[int] | None = None,
    ) -> None:
        """Write the values of observation ids into columns; raise DamageError for a damaged one.

        columns:  of all fields or of those at some places of the schema: C-contiguous arrays, or
                  Frames in place of those of logged fields
        places:   int64 (n,), the row of each value in the columns; None means all, in order
        ids:      the columns of the records, of the same fields
        """
        chosen = list(range(len(columns)) if fields is None else fields)
        for kind in range(len(self.logged.kinds)):
            of_kind = self.logged.of_kind(kind, chosen)
            if not of_kind:
                continue
            at = [chosen.index(logged.place) for logged in of_kind]
            if self.logged.kinds[kind].packed is not None:
                for i in at:
                    column: Any = columns[i]  # no Frames: those have frames of one size
                    where = slice(None) if places is None else places
                    column[where] = self._packed(kind, ids[i], lookup)
                continue
            n = len(ids[at[0]])
            of_fields = [ids[i].reshape(n, -1) for i in at]
            stacks = [
                Stacks(column, own)
                for i, logged, own in zip(at, of_kind, of_fields, strict=True)
                if not isinstance(column := columns[i], Frames) and logged.has_large_stacks
            ]
            if len(stacks) == len(at):
                self._read_stacks(kind, stacks, places, lookup)
                continue
            memory = memory_of(columns, at)
            source, rows = self._frames(kind, np.concatenate(of_fields, axis=1), lookup, memory)
            begin = 0
            for i, logged in zip(at, of_kind, strict=True):
                end = begin + logged.field.frames
                column = columns[i]
                if isinstance(column, Frames):
                    write_rows(column, places, rows[:, begin:end])
                else:
                    logged.write(column, places, source, rows[:, begin:end])
                begin = end

    def faults(self, index: int, ids: Ints, lookup: Lookup) -> dict[int, str]:
        """Return a sentence for each damaged observation of a field, by its id."""
        kind = next(logged.kind for logged in self.logged.fields if logged.place == index)
        return self._read(kind, np.unique(ids), None, lookup)

    def frame(self, kind: int, observation_id: int, lookup: Lookup) -> bytes | Bytes | None:
        """Return the bytes of one frame, None where it cannot be read."""
        if self.logged.kinds[kind].packed is not None:
            packed = [self.window.packed(kind, observation_id)]
            if packed[0] is None:
                self._read(kind, np.array([observation_id]), packed.__setitem__, lookup)
            return packed[0]
        found = self.window.frame(kind, observation_id)
        if found is None:
            frames = np.empty((1, self.logged.kinds[kind].nbytes), np.uint8)
            if not self._read(kind, np.array([observation_id]), _into(frames), lookup):
                found = frames[0]
        return found

    def _read_stacks(
        self, kind: int, stacks: Sequence[Stacks], places: Ints | None, lookup: Lookup
    ) -> None:
        """Write large values into columns, each frame straight to the places where it is."""
        window, joined = self.window, np.concatenate([of.rows.reshape(-1) for of in stacks])
        held = window.holds(kind, joined)
        if held.all():
            of_window = [of._replace(rows=of.rows % window.rows) for of in stacks]
            copy_stacks(of_window, places, window.frames[kind])
            return
        wanted, put = scattered(stacks, places, self.logged.kinds[kind].nbytes)
        held = window.holds(kind, wanted)
        for number in np.flatnonzero(held).tolist():
            put(number, window.frames[kind][wanted[number] % window.rows].data)
        self._read_missing(kind, wanted, ~held, put, lookup)

    def _frames(
        self, kind: int, ids: Ints, lookup: Lookup, memory: FrameMemory | None
    ) -> tuple[Bytes, Ints]:
        """Return frames, those of a memory if it is given, and the row of each id among them."""
        window = self.window
        if memory is None and window.holds(kind, ids).all():
            return window.frames[kind], ids % window.rows
        wanted, rows = np.unique(ids, return_inverse=True)
        rows = rows.reshape(ids.shape)
        if memory is None:
            frames = np.empty((wanted.size, self.logged.kinds[kind].nbytes), np.uint8)
            self._gather(kind, wanted, frames, lookup)
            return frames, rows
        begin, frames = memory.begin(wanted.size)
        self._gather(kind, wanted, frames, lookup)
        memory.end(begin + wanted.size)
        return memory.frames, rows + begin

    def _gather(self, kind: int, wanted: Ints, frames: Bytes, lookup: Lookup) -> None:
        """Write the frames of ascending ids; raise DamageError for a damaged one."""
        window = self.window
        held = window.holds(kind, wanted)
        if held.all():  # the mode spares numpy a copy: all rows are in range
            np.take(window.frames[kind], wanted % window.rows, axis=0, out=frames, mode="clip")
            return
        frames[held] = window.frames[kind][wanted[held] % window.rows]
        self._read_missing(kind, wanted, ~held, _into(frames), lookup)

    def _read_missing(
        self, kind: int, wanted: Ints, are_missing: Bools, put: Put, lookup: Lookup
    ) -> None:
        """Read some of ascending ids from the log; raise DamageError for a damaged one."""
        missing = np.flatnonzero(are_missing)

        def put_and_keep(number: int, frame: Any) -> None:
            put(number, frame)
            self.window.write_read(kind, int(wanted[number]), frame)

        taking = put_and_keep if self.window.keeps_read_frames else put
        if faults := self._read(kind, wanted[missing], taking, lookup, missing):
            raise DamageError(next(iter(faults.values())))

    def _packed(self, kind: int, ids: Ints, lookup: Lookup) -> Array:
        """Return packed values, as an array of objects."""
        wanted, rows = np.unique(ids, return_inverse=True)
        found = np.empty(wanted.size, object)
        if faults := self._read(kind, wanted, found.__setitem__, lookup):
            raise DamageError(next(iter(faults.values())))
        values: Array = found[rows.reshape(-1)]
        return values

    def _read(
        self,
        kind: int,
        ids: Ints,
        put: Put | None,
        lookup: Lookup,
        numbers: Ints | None = None,
    ) -> dict[int, str]:
        """Read frames from the log, and return a sentence for each that is damaged, by its id.

        ids:      ascending
        put:      takes the number of each id, and its frame or packed value
        numbers:  of the ids, by default 0, 1, ...
        """
        nbytes, decompress = self.logged.kinds[kind].nbytes, self._codecs[kind].decompress
        per_value = max(1, self.entries_per_value)
        groups, withins = np.divmod(ids, per_value)
        keys, of_value = np.unique(groups, return_inverse=True)
        values = lookup(keys)
        ordered = range(ids.size) if numbers is None else numbers.tolist()
        faults: dict[int, str] = {}
        for observation_id, value, within, number in zip(
            ids.tolist(), of_value.tolist(), withins.tolist(), ordered, strict=True
        ):
            try:
                entry = entry_in(values[value], within)
            except DamageError as error:
                fault = f"the value of observation {observation_id} is damaged: {error}"
                faults[observation_id] = fault
                continue
            try:
                content = content_of(entry, observation_id)
            except DamageError as error:
                faults[observation_id] = str(error)
                continue
            try:
                frame = decompress(content, nbytes)
            except DamageError as error:
                fault = f"the entry of observation {observation_id} is damaged: {error}"
                faults[observation_id] = fault
                continue
            if put is not None:
                put(number, frame)
        return faults


def _into(frames: Bytes) -> Put:
    """Return a function that writes a frame into the row of its number."""
    rows, size = frames.reshape(-1).data, frames.shape[1]

    def put(number: int, frame: Any) -> None:
        rows[number * size : number * size + size] = frame

    return put
