"""Tables: all databases of a store, named in one place, and their keys.

Every other file that opens, verifies, rewrites or measures a store reads the names here, and
docs/format.md has the same rows. A database that is not among them was made by a newer version,
and is kept as it is.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from typing import Any, NamedTuple

import numpy as np

from diskreplay.aliases import Ints
from diskreplay.errors import DamageError
from diskreplay.wording import count_of, shown


class Table(NamedTuple):
    """One database of the environment, and what its keys and values are.

    has_numbers:  whether its keys are numbers (`MDB_INTEGERKEY`), or else names
    item:         the word for one of its values, before its key, in messages
    is_optional:  whether a store may be without it: older versions made none
    """

    name: str
    has_numbers: bool
    key: str
    value: str
    item: str
    is_optional: bool = False


_BLOCK = "number of the block: slot // slots_per_block"
_OBSERVATION = "observation id // entries_per_value"
_FACT = "name of the fact: identity, schema, layout, state"
_KEPT = "database, number of the mark, number of the block"
TABLES = (
    Table("transitions", True, "slot // records_per_value", "records, one or several", "value"),
    Table("priorities", True, _BLOCK, "raw priorities", "priority block"),
    Table("links", True, _BLOCK, "links", "link block", True),
    Table("draw_counts", True, _BLOCK, "draw counts", "block of draw counts", True),
    Table("observations", True, _OBSERVATION, "entries", "value of observations", True),
    Table("runs", True, "number of the run, from 0", "description of the run", "run"),
    Table("meta", False, _FACT, "fact", "fact"),
    Table("marks", False, "name of the mark", "mark", "mark", True),
    Table("notes", False, "name of the note", "note", "note", True),
    Table("kept_blocks", False, _KEPT, "blocks as of marks", "kept block", True),
)
ITEMS = {table.name: table.item for table in TABLES}
SLOT_TABLES = tuple(table.name for table in TABLES if table.key == _BLOCK)

integer_key = functools.partial(int.to_bytes, length=8, byteorder=sys.byteorder)


def integer_keys(numbers: Ints) -> list[bytes]:
    """Return the keys of numbers in a database of integer keys, as `integer_key` of each."""
    keys: list[bytes] = numbers.astype(np.int64, copy=False).view("V8").tolist()
    return keys


class KeptBlock(NamedTuple):
    """The key of a block of a slot table as of a mark: in order by table, mark and block."""

    database: str
    mark: int
    number: int

    def __str__(self) -> str:
        return f"{self.database} {self.mark:016x} {self.number:016x}"

    @classmethod
    def parse(cls, name: str) -> KeptBlock:
        """Return the parts of a key, or raise DamageError."""
        database, _, numbers = name.partition(" ")
        with contextlib.suppress(ValueError):
            found = cls(database, int(numbers[:16], 16), int(numbers[17:], 16))
            if database in SLOT_TABLES and str(found) == name:
                return found
        raise DamageError(f"a kept block has the key {shown(name)}, which names no block")


def name_key(name: str) -> bytes:
    """Return the key of a name in a database of names."""
    return name.encode("utf-8", "surrogateescape")


def name_of(key: Any) -> str:
    """Return the name that a key is; its key is that one again, also if it is damaged."""
    return str(bytes(key), "utf-8", "surrogateescape")


def number_of(key: Any) -> int:
    """Return the number of a key; raise DamageError when it is none."""
    if len(key) != 8:
        raise DamageError(f"a key of {count_of(len(key), 'byte')} is no number (expected 8)")
    return int.from_bytes(bytes(key), sys.byteorder)
