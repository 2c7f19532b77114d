"""LogCheck: the check of the observation log of a store, page by page, without LMDB."""

from __future__ import annotations

import numpy as np

from diskreplay.aliases import Columns, Ints
from diskreplay.errors import DamageError
from diskreplay.lmdbfile import Tree, Walk
from diskreplay.maintenance.ranges import ExpectedNumbers, range_text
from diskreplay.observations import LoggedFields
from diskreplay.records import ENTRY_HEADER, Layout, content_of, entries_in
from diskreplay.schema import Schema
from diskreplay.store import ObservationRange
from diskreplay.wording import count_of

_TREE = b"observations"


class LogCheck:
    """The check of the log of one store: first of what refers to it, and then of its entries.

    Memory: 8 bytes an observation.

    schema:  of the rows; None where the store has none that can be read
    layout:  None likewise
    found:   the range of the log
    """

    def __init__(
        self, walk: Walk, schema: Schema | None, layout: Layout | None, found: ObservationRange
    ) -> None:
        self._walk = walk
        self._faults = walk.faults
        logged = LoggedFields(schema) if schema is not None and schema.logged else None
        self._fields = [] if logged is None else logged.fields
        self._kinds = [] if logged is None else logged.kinds
        self._codecs = [kind.compression for kind in self._kinds]
        self._per_value = 0 if layout is None else layout.entries_per_value
        self._first, self._count = found.first, found.count
        # What the entries are used for: place in the range * kinds + number of the kind.
        self._uses = [np.zeros(0, np.int64)]
        self._fits = found.count - found.first <= walk.file.size // ENTRY_HEADER
        if not self._fits:
            entries = count_of(found.count - found.first, "observation")
            self._faults.add(f"the state counts {entries}, which the file is too short for")

    def refer(self, records: Columns, write_ids: Ints) -> None:
        """Check the observation ids in live records: these must be in the range of the log.

        records:  their columns of the fields in the log, in the order of the schema
        """
        for field, column in zip(self._fields, records, strict=True):
            ids = column.reshape(len(column), field.field.frames)
            is_there = (ids >= self._first) & (ids < self._count)
            for row in np.flatnonzero(~is_there.all(axis=1)).tolist():
                missing = ids[row][~is_there[row]][0]
                self._faults.add(
                    f"the record of write id {write_ids[row]} refers to observation {missing}, "
                    f"which is not in the log (expected {self._first} to {self._count - 1})"
                )
            if self._fits:
                places = ids[is_there] - self._first
                self._uses.append(np.unique(places * len(self._kinds) + field.kind))

    def check(self, tree: Tree) -> None:
        """Check the values of the log, and that each observation of the range is there."""
        if not self._per_value:
            if tree.entries or self._count:
                self._faults.add("the layout does not say how observations are stored")
            self._walk.exhaust(_TREE, tree)
            return
        expected = ExpectedNumbers([(self._first, self._count)] if self._fits else [])
        uses = np.unique(np.concatenate(self._uses))
        for key, _, value in self._walk.numbered(_TREE, tree):
            begin = key * self._per_value
            end = min(begin + self._per_value, self._count)
            if begin + self._per_value <= self._first or end <= begin:
                self._faults.add(
                    f"value {key} of observations is outside of the range of the log "
                    f"({self._first} to {self._count - 1})"
                )
                continue
            kinds = self._kinds_of(uses, max(begin, self._first), end)
            for observation_id, entry in enumerate(self._entries(key, value, end - begin), begin):
                expected.see(observation_id)
                # Those before the range are no longer needed; a lost one may be empty.
                if observation_id >= self._first or len(entry):
                    self._check_entry(entry, observation_id, kinds.get(observation_id, []))
        for low, high in expected.missing():
            self._faults.add(f"the entry of {range_text('observation', low, high)} is missing")

    def _kinds_of(self, uses: Ints, begin: int, end: int) -> dict[int, list[int]]:
        """Return the kinds of frame that the observations from `begin` to `end` are used for."""
        found: dict[int, list[int]] = {}
        n = max(1, len(self._kinds))
        ends = [place * n for place in (begin - self._first, end - self._first)]
        for use in uses[slice(*np.searchsorted(uses, ends))].tolist():
            found.setdefault(self._first + use // n, []).append(use % n)
        return found

    def _entries(self, key: int, value: bytes, expected: int) -> list[memoryview]:
        """Return the entries of a value; none, with a fault, where it is damaged."""
        try:
            entries = entries_in(value)
            if len(entries) == expected:
                return entries
            fault = f"it has {len(entries)} entries (expected {expected})"
        except DamageError as error:
            fault = str(error)
        self._faults.add(f"value {key} of observations is damaged: {fault}")
        return []

    def _check_entry(self, entry: memoryview, observation_id: int, kinds: list[int]) -> None:
        try:
            content = content_of(entry, observation_id)
        except DamageError as error:
            self._faults.add(str(error))
            return
        for kind in kinds:
            try:
                self._codecs[kind].decompress(content, self._kinds[kind].nbytes)
            except DamageError as error:
                self._faults.add(f"the entry of observation {observation_id} is damaged: {error}")
