"""Sources: the identity, state, schema and rows of stores, read by maintenance with all checks.

A store may come from anybody. `SoundStore` reads a store that the engine can open; `salvage.py`
reads the pages of a damaged store.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diskreplay.aliases import Bools, Columns, Ints
from diskreplay.episodes import Links, LinkValues
from diskreplay.errors import ArgumentError, DamageError
from diskreplay.live_range import BLOCK_SLOTS, LiveRange, blocks_in
from diskreplay.observations import LoggedRows
from diskreplay.records import (
    Codec,
    Layout,
    content_of,
    entries_in,
    has_links,
    layout_of,
    pack,
    stored_grouping,
)
from diskreplay.sampling import Priorities, PrioritySettings, SlotTable, Values, ValueT
from diskreplay.schema import Schema
from diskreplay.store import (
    Identity,
    ObservationRange,
    RunSettings,
    Snapshot,
    State,
    Store,
    sealed_notes_of,
)

WINDOW_BYTES = 16 << 20  # of observations
_PART_BYTES = 4 << 20  # of the log


def parse_state(plain: Any, identity: Identity) -> State:
    """Return the state of a store, or raise DamageError, also for unusable settings."""
    state = State.parse(plain, identity)
    try:
        RunSettings.of(state.settings)
        if identity.has_priorities:
            PrioritySettings.of(state.settings)
    except ArgumentError as error:
        raise DamageError(f"the settings are damaged: {error!s:.200}") from None
    return state


def blocks_of(table: type[SlotTable[Any]], identity: Identity) -> int:
    """Return how many blocks of a table a store has when all its slots are in use."""
    return identity.blocks if table is Priorities else blocks_in(identity.slots)


def parse_block(
    table: type[SlotTable[ValueT]], number: int, content: Any, identity: Identity
) -> NDArray[ValueT]:
    """Return the values of a block of a table, or raise DamageError."""
    if not 0 <= number < blocks_of(table, identity):
        raise DamageError(f"{table.item} {number} belongs to no slots")
    if not isinstance(content, bytes):
        raise DamageError(f"{table.item} {number} holds no bytes")
    return table.block_of(number, content, identity.slots)


def values_at(
    table: type[SlotTable[ValueT]], slots: Ints, block: Callable[[int], NDArray[ValueT] | None]
) -> tuple[NDArray[ValueT], Bools]:
    """Return the values of slots in a table, and which of them are known.

    block:  returns the values of a block by its number, None if it cannot be read
    """
    found: NDArray[ValueT] = np.zeros(slots.size, table.dtype)
    known = np.zeros(slots.size, np.bool_)
    numbers = slots // BLOCK_SLOTS
    ends = (np.flatnonzero(np.diff(numbers, append=-1)) + 1).tolist()
    for begin, end in zip([0, *ends], ends, strict=False):
        content = block(int(numbers[begin]))
        if content is not None:
            found[begin:end] = content[slots[begin:end] % BLOCK_SLOTS]
            known[begin:end] = True
    return found, known


class SoundStore:
    """The identity, state, schema and live rows of one commit; each record is checked."""

    codec: Codec  # set if there is a schema
    layout: Layout | None = None  # set if there are fields in the log
    _logged_places: tuple[int, ...] = ()

    def __init__(self, store: Store, snapshot: Snapshot) -> None:
        self.path = store.path
        self.snapshot = snapshot
        self.facts = snapshot.facts()
        self.identity = store.identity
        self.state = parse_state(self.facts.get("state"), self.identity)
        self.live = self.state.live(self.identity)
        plain = self.facts.get("schema")
        self.schema = None if plain is None else Schema.from_stored(plain, str(self.path))
        if self.schema is not None:
            self.codec = Codec(self.schema.record_schema)
            if self.schema.logged:
                self._logged_places = self.schema.logged
                self.layout = layout_of(self.facts.get("layout"), str(self.path))
                capacity, where = self.identity.capacity, str(self.path)
                self._logged = LoggedRows(self.schema, capacity, WINDOW_BYTES, where)
            self._grouping = stored_grouping(
                self.facts.get("layout"),
                snapshot.some_values,
                self.codec,
                self.identity.slots,
                str(self.path),
            )
            try:
                snapshot.check_records(self.live, self._grouping)
            except DamageError as error:
                raise self._damage(error) from None
        elif self.state.count:
            raise DamageError(
                f"the schema of {self.path} is missing: diskreplay.repair() copies the readable "
                "transitions"
            )

    def records(self, write_ids: Ints, log: ObservationRange | None = None) -> list[bytes]:
        """Return the records of live write ids, or raise DamageError.

        log:  the range of the observation log that they may refer to, by default all of it
        """
        slots = self.live.slots(write_ids)
        records = self.snapshot.records(slots, self._grouping)
        if faults := self.codec.faults(records, write_ids, slots):
            raise self._damage(faults[0])
        self._check_references(records, write_ids, slots, log or self.state.observations)
        return list(map(bytes, records))

    def notes(self) -> dict[str, bytes]:
        """Return the sealed bytes of the notes by name, or raise DamageError."""
        return sealed_notes_of(self.snapshot)

    def columns(self, write_ids: Ints) -> Columns:
        """Return the rows of live write ids, or raise DamageError."""
        slots = self.live.slots(write_ids)
        try:
            records = self.snapshot.records(slots, self._grouping)
            found = self.codec.decode(records, write_ids, slots)
            if self.schema is None or not self.schema.logged:
                return found
            rows = self.schema.empty_columns(write_ids.size)
            self._logged.read_into(rows, None, found, write_ids, slots, self.snapshot, None)
            return rows
        except DamageError as error:
            raise self._damage(error) from None

    def priorities(self, write_ids: Ints) -> Values:
        """Return the priorities of live write ids, or raise DamageError."""
        return self._values(Priorities, write_ids)

    def links(self, write_ids: Ints) -> LinkValues:
        """Return the links of live write ids, or raise DamageError; all 0 if there are none."""
        if not has_links(self.facts.get("layout")):
            return np.zeros(write_ids.size, np.int32)
        return self._values(Links, write_ids)

    # The observation log

    def needed_observations(self, live: LiveRange) -> ObservationRange:
        """Return the part of the log that the transitions of a live range refer to."""
        log = self.state.observations
        if self.layout is None or not live.size:
            return ObservationRange(log.count, log.count)
        oldest = np.array([live.first])
        slots = self.live.slots(oldest)
        records = self.snapshot.records(slots, self._grouping)
        try:
            ids = self.codec.decode(records, oldest, slots, self._logged_places)
        except DamageError as error:
            raise self._damage(error) from None
        newest = max(int(of_field.max(initial=-1)) for of_field in ids)
        return replace(log, first=max(log.first, newest + 1 - self.layout.reach))

    def log_values(self, first: int) -> Iterator[tuple[int, list[bytes]]]:
        """Yield the values of the log from an observation id on, in parts by first key.

        Each entry is checked; raises DamageError for a damaged one, and for one that is missing.
        Entries before the id are empty.
        """
        if self.layout is None or not self.layout.entries_per_value:
            return
        per_value, log = self.layout.entries_per_value, self.state.observations
        values = max(1, self.snapshot.entries("observations"))
        value_bytes = self.snapshot.disk_bytes("observations") // values
        n = max(1, _PART_BYTES // max(1, value_bytes))
        end = -(-log.count // per_value) if first < log.count else 0
        for begin in range(first // per_value, end, n):
            keys = np.arange(begin, min(begin + n, end))
            found = self.snapshot.observation_values(keys)
            ids = (range(k * per_value, min((k + 1) * per_value, log.count)) for k in keys.tolist())
            yield begin, [*map(self._checked_value, found, ids, [first] * len(found))]

    def _checked_value(self, value: Any, ids: range, first: int) -> bytes:
        """Return a value that has these ids, without the entries before `first`."""
        try:
            entries = entries_in(value)
            if len(entries) != len(ids):
                raise DamageError(f"it has {len(entries)} entries (expected {len(ids)})")
        except DamageError as error:
            name = f"the value of observations {ids[0]} to {ids[-1]}"
            raise self._damage(f"{name} is damaged: {error}") from None
        try:
            for observation_id, entry in zip(ids, entries, strict=True):
                if observation_id >= first:
                    content_of(entry, observation_id)
        except DamageError as error:
            raise self._damage(error) from None
        unneeded = max(0, first - ids[0])
        if not unneeded:
            return bytes(value)
        return pack([*[memoryview(b"")] * unneeded, *entries[unneeded:]])

    def _check_references(
        self, records: Any, write_ids: Ints, slots: Ints, log: ObservationRange
    ) -> None:
        """Raise DamageError if a record refers to an observation that is not in the log."""
        places = self._logged_places
        for ids in self.codec.decode(records, write_ids, slots, places) if places else ():
            wrong = ((ids < log.first) | (ids >= log.count)).reshape(len(ids), -1).any(axis=1)
            if wrong.any():
                raise self._damage(
                    f"the record of write id {write_ids[np.argmax(wrong)]} refers to an "
                    f"observation that is not in the log (expected {log.first} to {log.count - 1})"
                )

    def _values(self, table: type[SlotTable[ValueT]], write_ids: Ints) -> NDArray[ValueT]:
        """Return the values of live write ids in a table, or raise DamageError."""

        def block(number: int) -> NDArray[ValueT]:
            content = self.snapshot.block(number, table.database)
            return parse_block(table, number, content, self.identity)

        with table.read_from(self.path):
            return values_at(table, self.live.slots(write_ids), block)[0]

    def _damage(self, fault: object) -> DamageError:
        return DamageError(
            f"{fault}, in {self.path}: nothing was changed; diskreplay.repair() copies the others"
        )
