"""Sources: the identity, state, schema and rows of stores, read by maintenance with all checks.

A store may come from anybody. `SoundStore` reads a store that the engine can open; `salvage.py`
reads the pages of a damaged store.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from diskreplay.aliases import Bools, Columns, Ints
from diskreplay.errors import ArgumentError, DamageError
from diskreplay.live_range import BLOCK_SLOTS
from diskreplay.records import Codec, stored_grouping
from diskreplay.sampling import PrioritySettings, Values, block_of
from diskreplay.schema import Schema
from diskreplay.store import Identity, RunSettings, Snapshot, State, Store

Progress: TypeAlias = Callable[[int, int], object]


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


def parse_block(number: int, content: Any, identity: Identity) -> Values:
    """Return the priorities of a block, or raise DamageError."""
    if not 0 <= number < identity.blocks:
        raise DamageError(f"priority block {number} belongs to no slots")
    if not isinstance(content, bytes):
        raise DamageError(f"priority block {number} holds no bytes")
    return block_of(number, content, identity.capacity)


def priorities_at(slots: Ints, block: Callable[[int], Values | None]) -> tuple[Values, Bools]:
    """Return the priorities of slots, and which of them are known.

    block:  returns the priorities of a block by its number, None if it cannot be read
    """
    found, known = np.zeros(slots.size, np.float32), np.zeros(slots.size, np.bool_)
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

    def __init__(self, store: Store, snapshot: Snapshot) -> None:
        self.path = store.path
        self.snapshot = snapshot
        self.facts = snapshot.facts()
        self.identity = store.identity
        self.state = parse_state(self.facts.get("state"), self.identity)
        self.live = self.state.live(self.identity.capacity)
        plain = self.facts.get("schema")
        self.schema = None if plain is None else Schema.from_stored(plain, str(self.path))
        if self.schema is not None:
            self.codec = Codec(self.schema.record_schema)
            self._grouping = stored_grouping(
                self.facts.get("layout"),
                snapshot.some_values,
                self.codec,
                self.identity.capacity,
                str(self.path),
            )
        elif self.state.count:
            raise DamageError(
                f"the schema of {self.path} is missing: diskreplay.repair() copies the readable "
                "transitions"
            )

    def records(self, write_ids: Ints) -> list[bytes]:
        """Return the records of live write ids, or raise DamageError."""
        slots = self.live.slots(write_ids)
        records = self.snapshot.records(slots, self._grouping)
        if faults := self.codec.faults(records, write_ids, slots):
            raise self._damage(faults[0])
        return list(map(bytes, records))

    def columns(self, write_ids: Ints) -> Columns:
        """Return the rows of live write ids, or raise DamageError."""
        slots = self.live.slots(write_ids)
        try:
            return self.codec.decode(self.snapshot.records(slots, self._grouping), write_ids, slots)
        except DamageError as error:
            raise self._damage(error) from None

    def priorities(self, write_ids: Ints) -> Values:
        """Return the priorities of live write ids, or raise DamageError."""
        return priorities_at(self.live.slots(write_ids), self._block)[0]

    def _block(self, number: int) -> Values:
        return parse_block(number, self.snapshot.block(number, "priorities"), self.identity)

    def _damage(self, fault: object) -> DamageError:
        return DamageError(
            f"{fault}, in {self.path}: nothing was changed; diskreplay.repair() copies the others"
        )
