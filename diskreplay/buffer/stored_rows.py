"""StoredRows: the committed transitions of one store by write id, read from the disk."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from diskreplay.aliases import Array, Bools, Columns, Ints
from diskreplay.errors import DamageError
from diskreplay.observations import LoggedRows
from diskreplay.records import Codec, Grouping
from diskreplay.store import Snapshot, Store


class RowsPart(NamedTuple):
    """Some fields of some rows, and the columns that take them.

    fields:  their places in the schema, None for all
    places:  int64 (n,), the place of each row in the columns; None means all, in order
    """

    columns: Columns
    write_ids: Ints
    fields: Sequence[int] | None
    places: Ints | None = None

    @property
    def chosen(self) -> Sequence[int]:
        """The places of the fields in the schema."""
        return range(len(self.columns)) if self.fields is None else self.fields


class StoredRows:
    """Reads rows of a store, each record and each observation checked.

    Without a snapshot a method reads as of the last commit.

    ring_slots:  those of the ring
    logged:      the fields in the log; None where none are
    """

    def __init__(
        self,
        store: Store,
        ring_slots: int,
        codec: Codec,
        grouping: Grouping,
        logged: LoggedRows | None,
    ) -> None:
        self._store = store
        self._ring_slots = ring_slots
        self._codec = codec
        self._grouping = grouping
        self._logged = logged

    def read(self, parts: Sequence[RowsPart], snapshot: Snapshot | None = None) -> None:
        """Read some fields of rows into columns, see `Codec.decode_into`.

        The records of all parts are found together. Raises DamageError for a damaged one.
        """
        with self._reading(snapshot) as view:
            if self._logged is None:
                self._read_records(parts, view)
                return
            for part, records in zip(parts, self._records(parts, view), strict=True):
                columns, write_ids, fields, places = part
                slots = write_ids % self._ring_slots
                self._logged.read_into(columns, places, records, write_ids, slots, view, fields)

    def read_joined(
        self,
        columns: Sequence[Any],
        places: Ints,
        parts: Sequence[RowsPart],
        snapshot: Snapshot | None = None,
    ) -> None:
        """Read fields of several records into each row of columns, of which some are Frames.

        The frames of all parts are read together, so that Frames have each of them once.

        columns:  of all fields
        parts:    of different fields; their columns are not used
        """
        logged: Any = self._logged
        with self._reading(snapshot) as view:
            records: dict[int, Array] = {}
            for part, found in zip(parts, self._records(parts, view), strict=True):
                records |= zip(part.fields or (), found, strict=True)
            fields, write_ids = sorted(records), parts[0].write_ids
            chosen, values = [columns[i] for i in fields], [records[i] for i in fields]
            slots = write_ids % self._ring_slots
            logged.read_into(chosen, places, values, write_ids, slots, view, fields)

    def damaged(self, write_ids: Ints, snapshot: Snapshot | None) -> Ints:
        """Return the write ids whose record, or an observation of it, is damaged."""
        slots = write_ids % self._ring_slots
        with self._view(snapshot) as view:
            records = view.records(slots, self._grouping)
            sound = self._codec.sound(records, write_ids)
            if self._logged is not None:
                ids = self._decoded(records, write_ids, slots, sound)
                sound[sound] = self._logged.sound(ids, view)
            return write_ids[~sound]

    def faults(self, write_ids: Ints, snapshot: Snapshot) -> list[str]:
        """Return one sentence for each damaged record, and for each damaged observation."""
        slots = write_ids % self._ring_slots
        records = snapshot.records(slots, self._grouping)
        found = self._codec.faults(records, write_ids, slots)
        if self._logged is not None:
            sound = self._codec.sound(records, write_ids)
            ids = self._decoded(records, write_ids, slots, sound)
            found += self._logged.faults(ids, snapshot)
        return found

    # Inside

    def _view(self, snapshot: Snapshot | None) -> contextlib.AbstractContextManager[Snapshot]:
        return contextlib.nullcontext(snapshot) if snapshot else self._store.snapshot()

    @contextlib.contextmanager
    def _reading(self, snapshot: Snapshot | None) -> Iterator[Snapshot]:
        """Yield a snapshot; an error of damage names the store."""
        with self._view(snapshot) as view:
            try:
                yield view
            except DamageError as error:
                raise DamageError(
                    f"{error}, in {self._store.path}: on_damage='skip' draws batches without "
                    "it, and diskreplay.repair() copies the others"
                ) from None

    def _records(self, parts: Sequence[RowsPart], view: Snapshot) -> list[Columns]:
        """Return the values in the records of some parts: ids where they are in the log."""
        schema = self._codec.schema
        found = [schema.empty_columns(part.write_ids.size, part.fields) for part in parts]
        pairs = zip(parts, found, strict=True)
        self._read_records([p._replace(columns=c, places=None) for p, c in pairs], view)
        return found

    def _read_records(self, parts: Sequence[RowsPart], view: Snapshot) -> None:
        """Write the values in records into columns."""
        write_ids, own = parts[0].write_ids, [slice(None)]
        if len(parts) > 1:
            write_ids, own = _joined([part.write_ids for part in parts])
        slots = write_ids % self._ring_slots
        try:
            records = view.remembered_records(slots, self._grouping)
            self._decode(parts, own, records, write_ids, slots)
        except DamageError:  # look each value up again: the place may be what is wrong
            self._decode(parts, own, view.records(slots, self._grouping), write_ids, slots)

    def _decode(
        self,
        parts: Sequence[RowsPart],
        own: Sequence[slice],
        records: Any,
        write_ids: Ints,
        slots: Ints,
    ) -> None:
        """Write the values in records into columns.

        own:  the records of each part
        """
        codec = self._codec
        checked = None if codec.are_large else codec.checked(records, write_ids, slots)
        for (columns, of_part, fields, places), at in zip(parts, own, strict=True):
            if checked is not None:
                codec.copy_into(columns, places, checked[at], fields)
            else:
                codec.decode_into(columns, places, records[at], of_part, slots[at], fields)

    def _decoded(self, records: Any, write_ids: Ints, slots: Ints, sound: Bools) -> Columns:
        """Return the columns of the sound ones of some records."""
        whole = [records[i] for i in np.flatnonzero(sound).tolist()]
        return self._codec.decode(whole, write_ids[sound], slots[sound])


def _joined(write_ids: Sequence[Ints]) -> tuple[Ints, list[slice]]:
    """Return the write ids of all parts in one array, and where those of each part are.

    Parts of one size are the steps of chains. The write ids of a chain stand together: they are
    mostly near each other, so that their records share values.
    """
    if len({of_part.size for of_part in write_ids}) == 1:
        joined = np.array(write_ids).T.reshape(-1)
        return joined, [slice(step, None, len(write_ids)) for step in range(len(write_ids))]
    ends = np.cumsum([of_part.size for of_part in write_ids]).tolist()
    own = [slice(end - of_part.size, end) for of_part, end in zip(write_ids, ends, strict=True)]
    return np.concatenate(write_ids), own
