"""Layout: what decides where in a store things stand, and what a reader must know.

It is stored, as the fact `layout`. The formula that a new store's layout comes from may change, so
nobody but the maker of a store asks it. A store of format 1 has no such fact: there the number of
records in a value is measured, from values that say themselves which slots they are of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from diskreplay.errors import DamageError, FormatVersionError
from diskreplay.live_range import BLOCK_SLOTS
from diskreplay.records.codec import record_bytes_of
from diskreplay.records.features import KNOWN_FEATURES, check_features
from diskreplay.records.grouping import Packing, packing_for
from diskreplay.schema import Schema

WriteIdOf = Callable[[bytes], int | None]

_MOST_BYTES = 1 << 22  # of a value with several records: a store may claim any number


class Layout(NamedTuple):
    """What a store says of itself; `packing` gives it for records of a size."""

    records_per_value: int

    def to_plain(self) -> dict[str, Any]:
        """Return the layout as the plain data of a fact; `layout_of` is the way back."""
        return {
            "records_per_value": self.records_per_value,
            "slots_per_block": BLOCK_SLOTS,
            "features": list(KNOWN_FEATURES),
        }

    def packing(self, record_bytes: int) -> Packing:
        """Return how records of this size are stored; raise DamageError for an impossible one."""
        if self.records_per_value > 1 and self.records_per_value * record_bytes > _MOST_BYTES:
            raise DamageError(
                f"the layout says that a value holds {self.records_per_value} records of "
                f"{record_bytes} bytes (expected at most {_MOST_BYTES} bytes)"
            )
        return Packing(self.records_per_value, record_bytes)


def new_packing(schema: Schema) -> Packing:
    """Return how a new store keeps the records of a schema."""
    return packing_for(record_bytes_of(schema))


def schema_facts(schema: Schema, packing: Packing | None = None) -> dict[str, Any]:
    """Return what a store, by default a new one, says once it has a schema."""
    packing = packing or new_packing(schema)
    return {"schema": schema.to_plain(), "layout": Layout(packing.per_value).to_plain()}


def packing_in(
    plain: Any,
    values: Callable[[], Iterable[tuple[int, bytes]]],
    schema: Schema,
    write_id_of: WriteIdOf,
    capacity: int,
    where: str,
) -> Packing:
    """Return how records are stored in a store that is there: it says so, or it is measured.

    plain:   its layout, None where it has none
    values:  returns what `measured` takes
    """
    record_bytes = record_bytes_of(schema)
    if plain is None:
        found = measured(values(), record_bytes, capacity, write_id_of, where)
        return new_packing(schema) if found is None else found.packing(record_bytes)
    return layout_of(plain, where).packing(record_bytes)


def layout_of(found: Any, where: str) -> Layout:
    """Return the layout that a fact describes.

    Raises DamageError when it is none, and FormatVersionError for one that needs a newer reader.
    """
    facts = found if isinstance(found, Mapping) else {}
    check_features(facts.get("features"), where)
    slots, records = facts.get("slots_per_block"), facts.get("records_per_value")
    if type(slots) is not int or type(records) is not int or slots < 1 or records < 1:
        raise DamageError(f"the layout of {where} is no layout (found {found!r:.80})")
    if slots != BLOCK_SLOTS:
        raise FormatVersionError(
            f"{where} has {slots} slots in a priority block (this diskreplay reads "
            f"{BLOCK_SLOTS}): install a newer version of diskreplay"
        )
    return Layout(records)


def measured(
    values: Iterable[tuple[int, bytes]],
    record_bytes: int,
    capacity: int,
    write_id_of: WriteIdOf,
    where: str,
) -> Layout | None:
    """Return the layout of a store that does not say it, None of one without values.

    A sound record says its slot, and a value has its full length from its first record on. So each
    value with a sound record tells the number of records in a value; all must tell the same.

    values:       keys and values of `transitions`, some of them, the first and the last too
    write_id_of:  returns the write id of a sound record, None for anything else
    """
    numbers: set[int | None] = set()
    there = False
    for key, value in values:
        there = True
        for at in range(0, len(value) - record_bytes + 1, record_bytes):
            record = value[at : at + record_bytes]
            write_id = write_id_of(record) if record[:1] != b"\0" else None
            if write_id is not None:
                slot, within = write_id % capacity, at // record_bytes
                numbers.add(_per_value(key, len(value), slot, within, record_bytes, capacity))
                break
    if not there:
        return None
    number = numbers.pop() if len(numbers) == 1 else None
    if number is None:
        raise DamageError(
            f"the values of {where} do not agree on how many records share one, and no layout says "
            "it: copy what can be read with diskreplay.repair()"
        )
    return Layout(number)


def _per_value(
    key: int, value_bytes: int, slot: int, within: int, record_bytes: int, capacity: int
) -> int | None:
    """Return how many records a value has where one of this key has a slot's record within it."""
    records, rest = divmod(value_bytes, record_bytes)
    number, more = divmod(slot - within, key) if key else (records, slot - within)
    fits = number > 0 and not more and not rest and records == min(number, capacity - key * number)
    return number if fits else None
