"""Snapshot: the values of a store as of one commit.

It knows the databases of tables.py and bytes, and no schema. All values are sealed, but for records
and the observation log.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import getitem
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from diskreplay.aliases import Bools, Ints
from diskreplay.errors import DamageError
from diskreplay.live_range import LiveRange
from diskreplay.records import ALONE, Grouping, unseal
from diskreplay.store.environment import Environment
from diskreplay.store.read_ahead import pages_waited_for
from diskreplay.store.tables import ITEMS, TABLES, integer_key, name_key, name_of, number_of
from diskreplay.wording import shown

RecordBuffers: TypeAlias = Sequence[Any] | NDArray[np.uint8]

OBSERVATIONS = "observations"
MARKS = "marks"
KEPT_BLOCKS = "kept_blocks"
_WAY_OUT = "restore the store from a copy, or copy what can be read of it with diskreplay.repair()"
_MOST_LEARNED = 1024  # values of one call: of a scan, a microsecond for each would be too much
_GATHERED_BYTES = 8192  # records of at most this size are copied into one array
_JOINED_BYTES = 1024  # values of at most this size are copied whole, and cut all at once


class Snapshot:
    """One consistent view of what is committed, valid inside its `with` block only."""

    def __init__(
        self, path: Path, env: Environment, txn: Any, databases: Mapping[str, Any]
    ) -> None:
        self._path = path
        self._databases = databases
        self._env = env
        self._read_ahead = env.read_ahead
        self._txn = txn

    def end(self) -> None:
        """End the transaction.

        It holds its slot among the readers until the object is gone, and a traceback could keep it:
        so nothing refers to it afterwards.
        """
        txn, self._txn = self._txn, None
        self._env.end(txn)

    # Facts, by name

    def raw(self, name: str) -> bytes | None:
        """Return the sealed bytes of the fact `name`, None when it was never committed.

        A reader that compares them with the bytes that it saw last need not parse equal ones.
        """
        raw = self._txn.get(name.encode(), db=self._databases["meta"])
        return None if raw is None else bytes(raw)

    def meta(self, name: str) -> Any:
        """Return the fact `name`, or None when it was never committed."""
        raw = self.raw(name)
        return None if raw is None else self._unseal(raw, name, f"the {name}")

    def has(self, name: str) -> bool:
        """Return whether the fact `name` was ever committed."""
        return self.raw(name) is not None

    def facts(self) -> dict[str, Any]:
        """Return all facts, also those that this version does not know."""
        raw = {str(bytes(k), "utf-8", "replace"): value for k, value in self._cursor("meta")}
        return {name: self._unseal(raw[name], name, f"the {ascii(name)[1:-1]:.40}") for name in raw}

    # Records, by slot

    def records(self, slots: Ints, grouping: Grouping = ALONE) -> RecordBuffers:
        """Return the record of each slot as a buffer: into the store, or as the row of an array.

        A record that is missing is empty; in a value with others it is zero bytes.
        """
        keys, within = grouping.places(slots)
        return self._looked_up(keys, within, grouping)

    def remembered_records(self, slots: Ints, grouping: Grouping) -> RecordBuffers:
        """Return the records as `records`, but read values at the places that are remembered.

        The caller checks them, and calls `records` if one is not sound.
        """
        keys, within = grouping.places(slots)
        if not grouping.has_own_pages:
            return self._looked_up(keys, within, grouping)
        found = None
        if not self._read_ahead.was_cold:  # or it would read ahead what is on disk only
            found = self._env.places.starts(keys, grouping.value_bytes, self._txn.id())
        if found is None:
            return self._looked_up(keys, within, grouping, learns=True)
        starts, known = found
        new = np.flatnonzero(~known)
        others = self._looked_up(keys[new], within[new], grouping, learns=True)
        starts = (starts + within * grouping.record_bytes)[known]
        if grouping.record_bytes <= _GATHERED_BYTES:
            return self._gathered(starts, known, others, grouping.record_bytes)
        return _in_order(known, self._env.places.views(starts, grouping.record_bytes), others)

    def _gathered(
        self, starts: Ints, known: Bools, others: RecordBuffers, nbytes: int
    ) -> RecordBuffers:
        """Return records as rows: those at remembered places, and others that were looked up."""
        before = pages_waited_for()
        rows = self._env.places.rows(starts, nbytes)
        self._read_ahead.note_pages(pages_waited_for() - before)
        if not len(others):
            return rows
        if set(map(len, others)) != {nbytes}:  # one is missing or damaged
            return _in_order(known, rows, others)
        mixed = np.empty((known.size, nbytes), np.uint8)
        mixed[known] = rows
        mixed[~known] = np.frombuffer(b"".join(others), np.uint8).reshape(-1, nbytes)
        return mixed

    def _looked_up(
        self, keys: Ints, within: Ints, grouping: Grouping, *, learns: bool = False
    ) -> RecordBuffers:
        """Look values up, and return a record of each: the one in a place within it.

        learns:  remember the places of the values
        """
        of_record, n = None, keys.size
        if grouping.per_value > 1 and (runs := _runs_of(keys)) is not None:
            keys, of_record = runs
        values = self._values(keys)
        if learns and n <= _MOST_LEARNED and not self._read_ahead.was_cold:
            places, offset_of = self._env.places, self._read_ahead.offset_of
            places.learn(keys, values, grouping.value_bytes, self._txn.id(), offset_of)
        return _records_of(values, within, grouping, of_record)

    def _values(self, keys: Ints) -> list[Any]:
        return self._read_ahead.values(self._txn, self._databases["transitions"], keys)

    def some_values(self, n: int = 64) -> list[tuple[int, bytes]]:
        """Return up to n values of records by their keys, the first and the last among them."""
        found: dict[int, bytes] = {}
        with self._cursor("transitions") as cursor:
            if cursor.last():
                last = number_of(cursor.key())
                cursor.first()
                first = number_of(cursor.key())
                for i in range(n):
                    cursor.set_range(integer_key(first + (last - first) * i // max(1, n - 1)))
                    found[number_of(cursor.key())] = bytes(cursor.value())
        return list(found.items())

    # The observation log, by key of the value

    def observation_values(self, keys: Ints) -> list[Any]:
        """Return the value of each key as a buffer, empty where there is none."""
        if OBSERVATIONS not in self._databases:
            return [b""] * keys.size
        return self._read_ahead.values(self._txn, self._databases[OBSERVATIONS], keys)

    # Slot tables, by number of the block

    def seals(self, database: str) -> dict[int, bytes]:
        """Return the checksum of each block of a slot table, which tells the changed ones."""
        found: dict[int, bytes] = {}
        if database not in self._databases:
            return found
        cursor = iter(self._cursor(database))
        numbers = np.arange(self.entries(database))
        for begin, end in self._read_ahead.parts(self._txn, self._databases[database], numbers):
            part = itertools.islice(cursor, end - begin)
            found.update((number_of(key), bytes(raw[2:10])) for key, raw in part)
        return found

    def blocks(self, numbers: Iterable[int], database: str) -> Mapping[int, bytes]:
        """Return the contents of blocks of a slot table, each read when it is looked up."""
        return _Blocks(self, numbers, database)

    def block(self, number: int, database: str) -> bytes:
        """Return the content of one block; raise DamageError when it is damaged or missing.

        The error names neither store nor way out: `SlotTable.read_from` does.
        """
        raw = b""
        if database in self._databases:
            raw = self._txn.get(integer_key(number), b"", self._databases[database])
        content = unseal(raw, number, f"{ITEMS[database]} {number}")
        if not isinstance(content, bytes):
            raise DamageError(f"{ITEMS[database]} {number} holds no bytes")
        return content

    # Runs, by number

    def runs(self) -> list[dict[str, Any]]:
        """Return the descriptions of all runs, oldest first."""
        return [self._run(number) for number in self.run_numbers()]

    def run_numbers(self) -> list[int]:
        """Return the numbers of the runs that have a description, ascending."""
        return [number_of(key) for key, _ in self._cursor("runs")]

    def run(self, number: int) -> dict[str, Any] | None:
        """Return the description of one run, None when there is none."""
        if self._txn.get(integer_key(number), db=self._databases["runs"]) is None:
            return None
        found: dict[str, Any] = self._run(number)
        return found

    # Marks, notes and kept blocks, by name

    def names(self, database: str, first: str = "") -> list[str]:
        """Return the names in a database from one on, in their order."""
        if database not in self._databases:
            return []
        with self._cursor(database) as cursor:
            if not cursor.set_range(name_key(first)):
                return []
            return [*map(name_of, cursor.iternext(values=False))]

    def has_name(self, database: str, name: str) -> bool:
        """Return whether a database has a name."""
        if database not in self._databases:
            return False
        with self._cursor(database) as cursor:
            return bool(cursor.set_key(name_key(name)))

    def named(self, database: str, name: str, way_out: str = "") -> Any:
        """Return what a name stands for; raise DamageError when it is damaged or missing.

        way_out:  of the error; by default copies and repair
        """
        raw = self._raw_named(database, name)
        return self._unseal(raw, name, f"{ITEMS[database]} {shown(name)}", way_out)

    def sealed(self, database: str, name: str, way_out: str = "") -> bytes:
        """Return the sealed bytes of what `named` returns; raise DamageError as it does."""
        self.named(database, name, way_out)
        return bytes(self._raw_named(database, name))

    def _raw_named(self, database: str, name: str) -> Any:
        if database not in self._databases:
            return b""
        return self._txn.get(name_key(name), b"", self._databases[database])

    # Databases

    def entries(self, database: str) -> int:
        """Return how many keys a database has."""
        if database not in self._databases:
            return 0
        entries: int = self._txn.stat(self._databases[database])["entries"]
        return entries

    def check_records(self, live: LiveRange, grouping: Grouping) -> None:
        """Raise DamageError if there are fewer records than live transitions.

        The error has no way out. A call that takes memory for each live transition begins here,
        since a stranger's store may claim any number of them.
        """
        needed = grouping.live_groups(live.first, live.count, live.ring_slots)
        found = self.entries("transitions")
        if needed > found:
            values = "records" if grouping.per_value == 1 else "groups of records"
            raise DamageError(f"there are {found} {values} (expected {needed} or more)")

    def disk_bytes(self, database: str) -> int:
        """Return the size of the pages that a database is on, in bytes."""
        if database not in self._databases:
            return 0
        stat = self._txn.stat(self._databases[database])
        pages = stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]
        return int(pages * stat["psize"])

    def others(self) -> dict[bytes, Any]:
        """Return handles of the databases that a newer version has made, by name."""
        known = {table.name.encode() for table in TABLES}
        names = [bytes(name) for name, _ in self._txn.cursor() if bytes(name) not in known]
        return {name: self._env.open_db(name, self._txn, create=False) for name in names}

    def _cursor(self, database: str) -> Any:
        return self._txn.cursor(self._databases[database])

    def _run(self, number: int) -> Any:
        raw = self._txn.get(integer_key(number), b"", self._databases["runs"])
        return self._unseal(raw, number, f"{ITEMS['runs']} {number}")

    def _unseal(self, raw: Any, key: str | int, name: str, way_out: str = "") -> Any:
        try:
            return unseal(raw, key, f"{name} of {self._path}")
        except DamageError as error:
            raise DamageError(f"{error}: {way_out or _WAY_OUT}") from None


class _Blocks(Mapping[int, bytes]):
    """Blocks of a slot table by number, each of which is read when it is looked up."""

    def __init__(self, snapshot: Snapshot, numbers: Iterable[int], database: str) -> None:
        self._snapshot = snapshot
        self._numbers = list(numbers)
        self._database = database

    def __getitem__(self, number: int) -> bytes:
        return self._snapshot.block(number, self._database)

    def __iter__(self) -> Iterator[int]:
        return iter(self._numbers)

    def __len__(self) -> int:
        return len(self._numbers)


def _runs_of(keys: Ints) -> tuple[Ints, Ints] | None:
    """Return the keys without repeated ones in a row, and the place of each key among these.

    Returns None where few are repeated, so that all may be looked up as well.
    """
    is_new = np.ones(keys.size, np.bool_)
    np.not_equal(keys[1:], keys[:-1], out=is_new[1:])
    if 4 * np.count_nonzero(is_new) > 3 * keys.size:
        return None
    return keys[is_new], np.cumsum(is_new) - 1


def _records_of(
    values: Sequence[Any], within: Ints, grouping: Grouping, of_record: Ints | None = None
) -> RecordBuffers:
    """Return the records in some places within values.

    of_record:  the place of the value of each record; None where these are the values in order
    """
    if grouping.per_value == 1:
        return values
    size = grouping.value_bytes
    if size <= _JOINED_BYTES and set(map(len, values)) == {size}:
        joined = np.frombuffer(b"".join(values), f"V{grouping.record_bytes}")
        at = np.arange(len(values)) if of_record is None else of_record
        found = joined.take(at * grouping.per_value + within)
        return found.view(np.uint8).reshape(within.size, grouping.record_bytes)
    parts = map(grouping.parts.__getitem__, within.tolist())
    if of_record is not None:
        values = [*map(values.__getitem__, of_record.tolist())]
    return [*map(getitem, values, parts)]


def _in_order(known: Bools, remembered: Iterable[Any], others: Iterable[Any]) -> list[Any]:
    """Return the remembered records and the others in the order that `known` tells."""
    sources = iter(others), iter(remembered)
    return [next(sources[is_known]) for is_known in known.tolist()]
