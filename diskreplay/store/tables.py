"""Tables: all databases of a store, named in one place.

Who opens, verifies, rewrites or measures a store reads them here, and docs/format.md has the same
rows. A database that is not among them is of a newer version, and is kept as it is.
"""

from __future__ import annotations

from typing import NamedTuple


class Table(NamedTuple):
    """One database of the environment, and what its keys and values are.

    has_numbers:  whether its keys are numbers (`MDB_INTEGERKEY`), or else names
    """

    name: str
    has_numbers: bool
    key: str
    value: str


TABLES = (
    Table("transitions", True, "slot // records_per_value", "records, one or several"),
    Table("priorities", True, "number of the block: slot // slots_per_block", "raw priorities"),
    Table("runs", True, "number of the run, from 0", "description of the run"),
    Table("meta", False, "name of the fact: identity, schema, layout, state", "fact"),
)
