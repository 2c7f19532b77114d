"""Transaction: the values of the next commit, put where the tables of the store want them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from diskreplay.errors import StorageError
from diskreplay.records import ALONE, Grouping, layout_of, seal, with_features
from diskreplay.store.snapshot import KEPT_BLOCKS, OBSERVATIONS, Snapshot
from diskreplay.store.tables import KeptBlock, integer_key, integer_keys, name_key, number_of

NewRecords: TypeAlias = Sequence[bytes] | NDArray[np.uint8]

_LARGE_ROW = 4096  # bytes


class Transaction(Snapshot):
    """A snapshot that nobody else can change before it ends, and the values put into it."""

    def put_records(
        self, ring_slots: int, first: int, records: NewRecords, grouping: Grouping = ALONE
    ) -> None:
        """Put the records of the write ids from `first` on into their slots."""
        slot = first % ring_slots
        self._forget_places(ring_slots, slot, len(records), grouping)
        with self._cursor("transitions") as cursor:
            if grouping.per_value == 1:
                rows = _rows_of(records) if isinstance(records, np.ndarray) else records
                _put_in_order(cursor, slot, len(rows), rows, ring_slots)
                return
            if not isinstance(records, np.ndarray):
                joined = np.frombuffer(b"".join(records), np.uint8)
                records = joined.reshape(-1, grouping.record_bytes)
            while len(records):
                part, records = records[: ring_slots - slot], records[ring_slots - slot :]
                values = _values_of(cursor, slot, part, ring_slots, grouping)
                key = slot // grouping.per_value
                _put_in_order(cursor, key, len(values), values, grouping.groups(ring_slots))
                slot = 0

    def put_one_by_one(
        self, ring_slots: int, first: int, n: int, records: Iterable[memoryview]
    ) -> None:
        """Put n records of the write ids from `first` on into their slots, each in its own value.

        records:  may yield the same memory again: each is copied before the next is asked for
        """
        self._forget_places(ring_slots, first % ring_slots, n, ALONE)
        with self._cursor("transitions") as cursor:
            _put_in_order(cursor, first % ring_slots, n, records, ring_slots)

    def _forget_places(self, ring_slots: int, slot: int, n: int, grouping: Grouping) -> None:
        """Forget the places of the values of n slots, around the end of the ring."""
        end, per_value = slot + n, grouping.per_value
        for first, last in ((slot, min(end, ring_slots)), (0, min(end - ring_slots, ring_slots))):
            if first < last:
                self._env.places.forget(first // per_value, grouping.groups(last))

    def put_observations(self, first_key: int, n: int, values: Iterable[Any]) -> None:
        """Put n values of the observation log under the keys from `first_key` on.

        The first may take the place of the last value there is; all others are appended.
        """
        self._make(OBSERVATIONS)
        with self._cursor(OBSERVATIONS) as cursor:
            if cursor.last() and number_of(cursor.key()) > first_key:
                raise StorageError(
                    f"a value {number_of(cursor.key())} of observations is there already (expected "
                    f"{first_key} to be the last one): nothing was put"
                )
            _put_in_order(cursor, first_key, n, values, first_key + n)

    def drop_observations(self, end_key: int) -> None:
        """Remove the values of the observation log under all keys below `end_key`.

        Cost: O(removed).
        """
        if OBSERVATIONS in self._databases:
            with self._cursor(OBSERVATIONS) as cursor:
                while cursor.first() and number_of(cursor.key()) < end_key:
                    cursor.delete()

    def put_blocks(
        self, blocks: Mapping[int, bytes], database: str, mark: int | None = None
    ) -> None:
        """Put blocks of a slot table, by number.

        mark:  the number of the newest mark: a block that changes after it is kept once as it was
        """
        self._make(database)
        for number, content in blocks.items():
            if mark is not None:
                self._keep_block(KeptBlock(database, mark, number))
            self._put(database, integer_key(number), seal(number, content))

    def _keep_block(self, block: KeptBlock) -> None:
        """Keep the content of a block for a mark, if none is kept yet: nil where there is none."""
        name, key = str(block), integer_key(block.number)
        self._make(block.database)
        if not self.has_name(KEPT_BLOCKS, name):
            content = self._txn.get(key, db=self._databases[block.database])
            self.put_named(KEPT_BLOCKS, name, content)

    def restore_block(self, block: KeptBlock) -> None:
        """Put the content of a kept block back; raise DamageError if it is damaged."""
        content, key = self.named(KEPT_BLOCKS, str(block)), integer_key(block.number)
        self._make(block.database)
        if content is None:
            self._txn.delete(key, db=self._databases[block.database])
            return
        self._unseal(content, block.number, f"the content of kept block {str(block)!r}")
        self._put(block.database, key, content)

    def put_named(self, database: str, name: str, content: Any) -> None:
        """Put what a name stands for."""
        self.put_sealed(database, name, seal(name, content))

    def put_sealed(self, database: str, name: str, raw: bytes) -> None:
        """Put the sealed bytes of what a name stands for."""
        self._make(database)
        self._put(database, name_key(name), raw)

    def drop_named(self, database: str, name: str) -> None:
        """Remove a name."""
        self._txn.delete(name_key(name), db=self._databases[database])

    def put_meta(self, facts: Mapping[str, Any]) -> dict[str, bytes]:
        """Put facts, by name, and return their sealed bytes."""
        sealed = {name: seal(name, fact) for name, fact in facts.items()}
        for name, raw in sealed.items():
            self._put("meta", name.encode(), raw)
        return sealed

    def put_schema(self, facts: Mapping[str, Any]) -> None:
        """Put the facts of a schema; the layout keeps the features that the store has already."""
        stored = self.meta("layout")
        features = () if stored is None else layout_of(stored, str(self._path)).features
        self.put_meta({**facts, "layout": with_features(facts["layout"], features)})

    def put_feature(self, name: str) -> None:
        """Put a feature into the layout, if the store has one: its first rows bring it."""
        stored = self.meta("layout")
        if stored is not None and name not in layout_of(stored, str(self._path)).features:
            self.put_meta({"layout": with_features(stored, [name])})

    def put_run(self, number: int, description: Mapping[str, Any]) -> None:
        """Put the description of a run."""
        self._put("runs", integer_key(number), seal(number, description))

    def put_others(self, source: Snapshot) -> None:
        """Put the databases of another store that this version does not know."""
        for name, database in source.others().items():
            mine = self._env.open_db(name, self._txn, **database.flags(source._txn))
            with self._txn.cursor(mine) as cursor:
                cursor.putmulti(source._txn.cursor(database))

    def _make(self, database: str) -> None:
        """Make a database where an older version has made none."""
        if database not in self._databases:
            made = self._env.make_database(database, self._txn)
            self._databases = {**self._databases, database: made}

    def _put(self, database: str, key: bytes, value: bytes) -> None:
        self._txn.put(key, value, db=self._databases[database])


def _values_of(
    cursor: Any, slot: int, part: NDArray[np.uint8], ring_slots: int, grouping: Grouping
) -> list[Any]:
    """Return the values of the records of contiguous slots, with the records beside them.

    A value has its full length from the first record on: one that grew would split its page.
    """

    def value_around(slot: int, part: NDArray[np.uint8]) -> bytes:
        group, within = divmod(slot, grouping.per_value)
        found = bytes(cursor.value()) if cursor.set_key(integer_key(group)) else b""
        value = np.zeros((grouping.slots_in(group, ring_slots), grouping.record_bytes), np.uint8)
        value.reshape(-1)[: len(found)] = np.frombuffer(found, np.uint8)[: value.size]
        value[within : within + len(part)] = part
        return value.tobytes()

    before = min(-slot % grouping.per_value, len(part))
    whole = len(part) - (len(part) - before) % grouping.per_value
    values = [value_around(slot, part[:before])] if before else []
    values += _rows_of(part[before:whole].reshape(-1, grouping.value_bytes))
    if whole < len(part):
        values.append(value_around(slot + whole, part[whole:]))
    return values


def _rows_of(array: NDArray[np.uint8]) -> list[Any]:
    """Return the rows as buffers: large ones where they lie, small ones faster, as bytes."""
    if array.shape[1] > _LARGE_ROW:
        return list(map(memoryview, array))  # type: ignore[arg-type]
    rows: list[Any] = array.view(f"V{array.shape[1]}")[:, 0].tolist()
    return rows


def _put_in_order(cursor: Any, first: int, n: int, values: Iterable[Any], n_keys: int) -> None:
    """Put n values under the keys from `first` on, around the end of the ring of keys.

    Keys beyond the last one in use are appended: that fills the pages, where inserting would
    leave them half empty.
    """
    last = number_of(cursor.key()) if cursor.last() else -1
    left, key, rest = n, first, iter(values)
    while left:
        append = key > last
        part = min(left, (n_keys if append else last + 1) - key)
        keys = integer_keys(np.arange(key, key + part))
        # Out of order, `append` drops values and says so in these counts alone.
        # When the keys end, no value has been taken in vain: the values come second.
        pairs = zip(keys, rest, strict=False)
        consumed, added = cursor.putmulti(pairs, append=append)
        if (consumed, added) != (part, part):
            raise StorageError(f"the engine took {added} of {part} values at key {key}")
        left -= part
        if append:
            last = key + part - 1
        key = (key + part) % n_keys
