"""Layout: the stored facts by which records and blocks are found in a store.

A store keeps its layout as a value of its own. The rule that gives a new store its layout may
change, so only the maker of a store uses the rule. A store of format 1 has no stored layout: there
the number of records in a value is measured, from the values that hold a sound record.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from diskreplay.errors import DamageError, FormatVersionError
from diskreplay.live_range import BLOCK_SLOTS
from diskreplay.records.codec import Codec
from diskreplay.records.features import check_features, features_of
from diskreplay.records.grouping import Grouping, grouping_for
from diskreplay.schema import Schema
from diskreplay.wording import shown

_MOST_BYTES = 1 << 22  # of a value with several records: a store may claim any number
_MOST_ENTRIES = 4096  # of a value
_MOST_REACH = 2**31


class Layout(NamedTuple):
    """The stored layout of records and of the observation log.

    records_per_value:  `grouping` gives it for records of a size
    features:           by which the store is read
    entries_per_value:  of the observation log; 0 before there are entries
    reach:              a record refers to no observation id further than this behind the newest
                        one of its commit; 0 before there are entries
    """

    records_per_value: int
    features: tuple[str, ...] = ()
    entries_per_value: int = 0
    reach: int = 0

    def to_plain(self) -> dict[str, Any]:
        """Return the layout as plain data; `layout_of` is the way back."""
        plain: dict[str, Any] = {
            "records_per_value": self.records_per_value,
            "slots_per_block": BLOCK_SLOTS,
            "features": list(self.features),
        }
        if self.entries_per_value:
            log = {"entries_per_value": self.entries_per_value, "reach": self.reach}
            plain["observations"] = log
        return plain

    def grouping(self, record_bytes: int) -> Grouping:
        """Return how records of this size are grouped; raise DamageError for too large values."""
        if self.records_per_value > 1 and self.records_per_value * record_bytes > _MOST_BYTES:
            raise DamageError(
                f"the layout says that a value holds {self.records_per_value} records of "
                f"{record_bytes} bytes (expected at most {_MOST_BYTES} bytes)"
            )
        return Grouping(self.records_per_value, record_bytes)


def new_grouping(schema: Schema) -> Grouping:
    """Return how a new store groups the records of a schema."""
    return grouping_for(Codec(schema.record_schema).record_bytes)


def schema_facts(
    schema: Schema,
    grouping: Grouping | None = None,
    *,
    entries_per_value: int = 0,
    reach: int = 0,
) -> dict[str, Any]:
    """Return the values that a store, by default a new one, keeps of its schema and layout."""
    grouping = grouping or new_grouping(schema)
    layout = Layout(grouping.per_value, features_of(schema), entries_per_value, reach)
    return {"schema": schema.to_plain(), "layout": layout.to_plain()}


def with_features(plain: Any, features: Iterable[str]) -> dict[str, Any]:
    """Return a layout with more features; None is that of a store without a schema."""
    layout: dict[str, Any] = Layout(1).to_plain() if plain is None else dict(plain)
    return {**layout, "features": [*dict.fromkeys([*layout["features"], *features])]}


def stored_grouping(
    plain: Any,
    values: Callable[[], Iterable[tuple[int, bytes]]],
    codec: Codec,
    capacity: int,
    where: str,
) -> Grouping:
    """Return how an existing store groups its records.

    plain:   its layout, None where it has none
    values:  returns what `measured` takes, for a store without a layout
    """
    if plain is not None:
        layout = layout_of(plain, where)
    else:
        found = measured(values(), codec.record_bytes, capacity, codec.write_id_of, where)
        if found is None:
            return new_grouping(codec.schema)
        layout = found
    return layout.grouping(codec.record_bytes)


def layout_of(plain: Any, where: str) -> Layout:
    """Return the layout that a store holds.

    Raises DamageError when it is none, and FormatVersionError for one that needs a newer reader.
    """
    found = plain if isinstance(plain, Mapping) else {}
    check_features(found.get("features"), where)
    slots, records = found.get("slots_per_block"), found.get("records_per_value")
    if type(slots) is not int or type(records) is not int or slots < 1 or records < 1:
        raise DamageError(f"the layout of {where} is no layout (found {shown(plain)})")
    if slots != BLOCK_SLOTS:
        raise FormatVersionError(
            f"{where} has {slots} slots in a priority block (this diskreplay reads "
            f"{BLOCK_SLOTS}): install a newer version of diskreplay"
        )
    return Layout(records, tuple(found["features"]), *_log_of(found, where))


def _log_of(layout: Mapping[str, Any], where: str) -> tuple[int, int]:
    """Return `entries_per_value` and `reach` of a layout, both 0 where it has none."""
    if "observations" not in layout:
        return 0, 0
    plain = layout["observations"]
    found = plain if isinstance(plain, Mapping) else {}
    entries, reach = found.get("entries_per_value"), found.get("reach")
    if (
        type(entries) is not int
        or type(reach) is not int
        or not 1 <= entries <= _MOST_ENTRIES
        or not 1 <= reach <= _MOST_REACH
    ):
        raise DamageError(f"the layout of {where} has no observation log (found {shown(plain)})")
    return entries, reach


def measured(
    values: Iterable[tuple[int, bytes]],
    record_bytes: int,
    capacity: int,
    write_id_of: Callable[[bytes], int | None],
    where: str,
) -> Layout | None:
    """Return the layout of a store that has none stored, None where there are no values.

    A sound record says its slot, and a value has its full length from its first record on. So each
    value with a sound record tells the number of records in a value; all must tell the same.

    values:       keys and values of `transitions`, some of them, the first and the last too
    write_id_of:  returns the write id of a sound record, None for anything else
    """
    numbers: set[int | None] = set()
    key = None
    for key, value in values:
        for at in range(0, len(value) - record_bytes + 1, record_bytes):
            write_id = write_id_of(value[at : at + record_bytes])
            if write_id is not None:
                slot, within = write_id % capacity, at // record_bytes
                numbers.add(_per_value(key, len(value), slot, within, record_bytes, capacity))
                break
    if key is None:
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
    """Return how many records share a value, if this one has a slot's record at a place of it."""
    records, rest = divmod(value_bytes, record_bytes)
    number, more = divmod(slot - within, key) if key else (records, slot - within)
    fits = number > 0 and not more and not rest and records == min(number, capacity - key * number)
    return number if fits else None
