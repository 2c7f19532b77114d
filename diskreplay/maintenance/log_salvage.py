"""LogSalvage: find the readable entries of the observation log of a damaged store.

As records, entries are read where the trees lead to, and searched for in all pages if some are
missing: the checksum proves that an entry is whole, and the entry contains its own id. But a record
is whole by itself, and an entry has a meaning only beside a record. So an entry that was never
committed, or whose id a later commit gave again, must not come in: if it is not known of each page
whether it is free, there is no search.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

import numpy as np

from diskreplay.aliases import Bools, Columns, Ints
from diskreplay.errors import DamageError
from diskreplay.maintenance.readable_pages import ReadablePages, offsets_in_page
from diskreplay.observations import LoggedFields, ObservationReader, ObservationWindow
from diskreplay.records import (
    ENTRY_HEAD,
    ENTRY_HEADER,
    content_of,
    entries_in,
    entry_bytes_in,
    observation_id_in,
    pack,
)
from diskreplay.schema import Schema

_CHUNK = 1 << 16  # entries


class LogSalvage:
    """The readable entries of a log: ids, offsets in the file, and lengths.

    Memory: 24 bytes an observation.
    """

    def __init__(self, pages: ReadablePages, schema: Schema) -> None:
        self._pages = pages
        self._schema = schema
        logged = LoggedFields(schema)
        self._reader = ObservationReader(logged, ObservationWindow(logged, 1, 0))
        self._reader.entries_per_value = 1  # as `_values` gives them
        largest = max(kind.nbytes for kind in logged.kinds)
        self._most = largest + largest // 64 + 1024  # more than any codec adds to what is random
        self._ids, self._offsets, self._lengths = _found(self._reached())

    @property
    def nbytes(self) -> int:
        """The bytes of all readable entries."""
        return int(self._lengths.sum())

    def search(self) -> None:
        """Search the whole file for entries that no tree leads to."""
        if self._pages.knows_free:
            ids, offsets, lengths = _found(self._scanned())
            new = ~np.isin(ids, self._ids)
            order = np.argsort(all_ids := np.concatenate([self._ids, ids[new]]))
            self._ids = all_ids[order]
            self._offsets = np.concatenate([self._offsets, offsets[new]])[order]
            self._lengths = np.concatenate([self._lengths, lengths[new]])[order]

    def whole(self, records: Columns) -> Bools:
        """Return which rows have readable observations only.

        records:  the columns of the records of the rows
        """
        whole = np.ones(len(records[0]), np.bool_)
        for place in self._schema.logged:
            ids = records[place].reshape(len(whole), -1)
            faults = self._reader.faults(place, ids, self._values)
            whole &= ~np.isin(ids, list(faults)).any(axis=1)
        return whole

    def rows(self, records: Columns) -> Columns:
        """Return whole rows, from the columns of their records."""
        rows = self._schema.empty_columns(len(records[0]))
        for place, (row, column) in enumerate(zip(rows, records, strict=True)):
            if place not in self._schema.logged:
                row[:] = column
        self._reader.read_into(rows, None, records, self._values)
        return rows

    def _values(self, ids: Ints) -> list[bytes]:
        """Return the entry of each id in a value of its own, empty where it cannot be read."""
        places = np.searchsorted(self._ids, ids)
        is_there = np.zeros(ids.size, np.bool_)
        inside = places < self._ids.size
        is_there[inside] = self._ids[places[inside]] == ids[inside]
        found = [b""] * ids.size
        for at in np.flatnonzero(is_there).tolist():
            place = places[at]
            raw = self._pages.read(int(self._offsets[place]), int(self._lengths[place]))
            found[at] = pack([raw])
        return found

    def _reached(self) -> Iterator[tuple[int, memoryview]]:
        """Yield offset and bytes of each entry that the trees lead to, sound or not."""
        for _, at, value in self._pages.numbered(b"observations"):
            with contextlib.suppress(DamageError):
                begin = at + len(value)
                entries = entries_in(value)
                begin -= sum(map(len, entries))
                for entry in entries:
                    yield begin, entry
                    begin += len(entry)

    def _scanned(self) -> Iterator[tuple[int, memoryview]]:
        """Yield offset and bytes of each place in the file that begins like an entry."""
        for offset, page in self._pages.pages(free=False):
            page += self._pages.read(offset + len(page), ENTRY_HEADER - 1)
            for at in offsets_in_page(ENTRY_HEAD, page):
                nbytes = entry_bytes_in(page[at : at + ENTRY_HEADER])
                if 0 < nbytes <= self._most:
                    raw = self._pages.read_in_use(offset + at, nbytes)
                    yield offset + at, memoryview(raw)


def _found(entries: Iterable[tuple[int, memoryview]]) -> tuple[Ints, Ints, Ints]:
    """Return ids, offsets and lengths of the sound ones of some entries, ascending.

    An id with two different entries is left out.
    """
    parts = [np.zeros((0, 4), np.int64)]
    chunk: list[tuple[int, int, int, int]] = []
    for at, entry in entries:
        observation_id = observation_id_in(entry)
        with contextlib.suppress(DamageError):
            content_of(entry, observation_id)
            checksum = int.from_bytes(entry[2:10], "big", signed=True)
            chunk.append((observation_id, at, len(entry), checksum))
        if len(chunk) == _CHUNK:
            parts.append(np.array(chunk, np.int64))
            chunk = []
    parts.append(np.array(chunk, np.int64).reshape(-1, 4))
    found = np.concatenate(parts)
    ids, offsets, lengths, checksums = found[np.lexsort((found[:, 3], found[:, 0]))].T
    is_new = np.diff(ids, prepend=-1) > 0
    differs = ~is_new & (np.diff(checksums, prepend=0) != 0)
    good = is_new & ~np.isin(ids, ids[differs])
    return ids[good], offsets[good], lengths[good]
