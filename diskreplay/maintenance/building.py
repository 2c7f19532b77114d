"""Building: write a whole new store.

The store is written at a hidden path, in commits of bounded size and in the order of its slots, so
that its pages are full and in order. Then it is renamed (`beside`), or its data file replaces
another one (rewriting.py): other processes see nothing of it, or all of it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from diskreplay.aliases import Columns, Ints, Progress
from diskreplay.episodes import Links, LinkValues
from diskreplay.errors import StorageError
from diskreplay.live_range import blocks_in
from diskreplay.maintenance.part_blocks import PartBlocks
from diskreplay.maintenance.sources import WINDOW_BYTES
from diskreplay.observations import LoggedRows
from diskreplay.records import (
    ALONE,
    BLOCK_BYTES,
    KEPT_ROWS,
    LINKS,
    Codec,
    Layout,
    new_grouping,
    schema_facts,
    tree_bytes,
    with_features,
)
from diskreplay.sampling import Priorities, PrioritySettings, Values
from diskreplay.schema import Schema
from diskreplay.store import (
    Identity,
    MarkSummary,
    ObservationRange,
    Rewinds,
    Run,
    Snapshot,
    State,
    Store,
    Transaction,
    make_known,
    put_notes,
)
from diskreplay.wording import human

if TYPE_CHECKING:
    from typing_extensions import Self

NewRecords: TypeAlias = Sequence[bytes] | NDArray[np.uint8]

_PART_BYTES = 4 << 20  # of records in a commit
_VARYING_PART_ROWS = 1024
_OTHER_BYTES = 1 << 20  # of the data file: facts, runs, and pages that commits have freed


class StoreBuilder:
    """A new store that is being written, from its identity to its state.

    A sketch that copies a store::

        with StoreBuilder(place, identity, state, source.schema) as builder:
            for write_ids in builder.parts():
                builder.append(write_ids[0], source.records(write_ids))
            builder.finish(runs)

    An observation log is made anew from whole rows, by `append_rows` with all of them. Or it is
    copied: its values by `append_log`, and the records that refer to it by `append`.

    place:      a path without a file, best that of `beside`
    state:      gives the live range; its largest priority is raised by the rows. The new store
                has no marks and no kept rows
    schema:     None if nothing was ever pushed
    progress:   called after each commit with the numbers of transitions written and of all
    copied:     the layout of the log that is copied, whose range the state has
    log_bytes:  the disk space of the log, about
    """

    def __init__(
        self,
        place: Path,
        identity: Identity,
        state: State,
        schema: Schema | None,
        progress: Progress | None = None,
        *,
        copied: Layout | None = None,
        log_bytes: int = 0,
    ) -> None:
        # ArgumentError here if memory has no room for the tables of a buffer that opens it.
        if identity.has_priorities:
            usual = PrioritySettings()
            Priorities(identity.slots, alpha=usual.alpha, epsilon=usual.epsilon)
        Links(identity.slots)
        self.identity = identity
        self.live = state.live(identity)
        state = replace(state, marks=MarkSummary(), rewinds=Rewinds())
        self._place, self._state, self._schema = place, state, schema
        self._progress, self._done = progress, 0
        self._priority_blocks = PartBlocks(Priorities, identity.slots)
        self._link_blocks = PartBlocks(Links, identity.slots)
        self._grouping = ALONE
        self._log_layout = copied
        self._logged: LoggedRows | None = None  # makes the log anew
        if schema is not None:
            self._codec = Codec(schema.record_schema)
            self._grouping = new_grouping(schema)
            if schema.logged and copied is None:
                self._state = replace(state, observations=ObservationRange())
                self._logged = LoggedRows(schema, identity.capacity, WINDOW_BYTES, str(place))
        self._check_room(log_bytes)
        Store.create(place, identity.to_plain(), {})
        self._store = Store(place, access="exclusive", durability="process")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._store.close(sync=False)

    def parts(self, rows: int | None = None) -> Iterator[Ints]:
        """Yield the live write ids in parts of one commit each, in the order of their slots.

        Where a log is made anew they come in their own order, which the reach of a log needs.

        rows:  of a part at most; the write ids then come in their own order, too
        """
        row_bytes = self._grouping.record_bytes
        in_order = rows is not None or self._logged is not None
        if self._logged is not None and self._schema is not None:
            row_bytes = self._schema.payload_bytes
        if in_order:
            self._fill_early_slots()
        most = max(1, _PART_BYTES // max(1, row_bytes)) if rows is None else rows
        if self._logged is not None and self._schema is not None and self._schema.varying:
            most = min(most, _VARYING_PART_ROWS)  # whole rows are in memory, of any size
        spans = [*self.live.spans(most)]
        if not in_order:
            spans.sort(key=lambda span: span.start)
        for span in spans:
            yield self.live.newest_ids(np.arange(span.start, span.stop))

    def append_rows(
        self,
        first: int,
        columns: Columns,
        priorities: Values | None = None,
        links: LinkValues | None = None,
    ) -> None:
        """Commit rows as `append` does, given as columns of the schema's types."""
        logged, schema = self._logged, self._schema
        if logged is None or schema is None:
            self.append(first, self._codec.encode(columns, first), priorities, links)
            return
        log = self._state.observations

        def records(txn: Transaction) -> NDArray[np.uint8]:
            nonlocal log
            if not txn.has("layout"):
                txn.put_meta(self._schema_facts())
            logged.begin(txn, self._state.observations)
            found = self._codec.encode(logged.put(txn, columns), first)
            log = logged.end(txn, None, is_empty=False)
            self._log_layout = logged.new_layout or self._log_layout
            txn.put_meta(self._schema_facts())
            return found

        n = len(columns[0])
        self._append(first, n, records, n * schema.payload_bytes, priorities, links)
        logged.confirm()
        self._state = replace(self._state, observations=log)

    def append_log(self, first_key: int, values: Sequence[bytes]) -> None:
        """Commit values of the log that is copied, in the order of their keys."""
        self._store.commit(
            lambda txn: txn.put_observations(first_key, len(values), values), sum(map(len, values))
        )

    def append(
        self,
        first: int,
        records: NewRecords,
        priorities: Values | None = None,
        links: LinkValues | None = None,
    ) -> None:
        """Commit records of write ids from `first` on, with priorities in a prioritized store.

        Without links each transition is an episode of which nothing else is known.
        Call it in the order of the slots, best with one of the `parts` at a time.
        """
        n = len(records)
        nbytes = n * self._grouping.record_bytes
        self._append(first, n, lambda _: records, nbytes, priorities, links)

    def _append(
        self,
        first: int,
        n: int,
        records: Callable[[Transaction], NewRecords],
        nbytes: int,
        priorities: Values | None,
        links: LinkValues | None,
    ) -> None:
        """Commit n records, with all that `records` puts for them before it returns them."""
        slot = first % self.live.ring_slots
        link_blocks = self._link_blocks.of(slot, np.zeros(n, np.int32) if links is None else links)
        blocks = [(self._link_blocks.database, link_blocks)]
        if priorities is not None:
            own = self._priority_blocks
            blocks.append((own.database, own.of(slot, priorities)))
            largest = max(float(priorities.max()), self._state.max_priority or 0.0)
            self._state = replace(self._state, max_priority=largest)

        def put(txn: Transaction) -> None:
            txn.put_records(self.live.ring_slots, first, records(txn), self._grouping)
            for database, found in blocks:
                txn.put_blocks(found, database)

        n_blocks = sum(len(found) for _, found in blocks)
        self._store.commit(put, nbytes + n_blocks * BLOCK_BYTES)
        self._done += n
        if self._progress is not None:
            self._progress(self._done, self.live.size)

    def finish(
        self,
        runs: Sequence[Mapping[str, Any]] | None = None,
        facts: Mapping[str, Any] | None = None,
        others: Snapshot | None = None,
        notes: Mapping[str, bytes] = MappingProxyType({}),
    ) -> None:
        """Commit all but the rows, close the store, and wait until all is on the disk.

        runs:    descriptions of the runs that wrote the rows; None means one run, of this process
        facts:   entries of another store, to keep those that only a newer version knows
        others:  the snapshot of another store, to keep databases that only a newer version knows
        notes:   the sealed bytes of notes, by name
        """
        if runs is None:
            run = replace(Run.new(self.live.first), end=self.live.count, rows=self.live.size)
            self._state = replace(self._state, commits=1, runs=1, run=run.id)
            runs = [run.to_plain()]
        kept = {name: fact for name, fact in (facts or {}).items() if name != "identity"}
        layout = kept.pop("layout", {})
        if self._schema is not None:
            new = self._schema_facts()
            kept |= {**new, "layout": {**layout, **new["layout"]}}
            kept["layout"] = with_features(kept["layout"], (LINKS,))
        if self.identity.keep_rows:
            kept["layout"] = with_features(kept.get("layout"), (KEPT_ROWS,))
        state = self._state.to_plain(self.identity)

        def put(txn: Transaction) -> None:
            for number, description in enumerate(runs):
                txn.put_run(number, description)
            txn.put_meta({**kept, "state": state})
            put_notes(txn, notes)
            if others is not None:
                txn.put_others(others)

        self._store.commit(put)
        self._store.close()
        make_known(self._place)

    def _schema_facts(self) -> dict[str, Any]:
        log = self._log_layout
        if self._schema is None:
            return {}
        return schema_facts(
            self._schema,
            self._grouping,
            entries_per_value=0 if log is None else log.entries_per_value,
            reach=0 if log is None else log.reach,
        )

    def _fill_early_slots(self) -> None:
        """Put empty records into the slots before the first live one, which are filled last.

        Records that are put before others would leave pages half empty.
        """
        spans = [*self.live.spans()]
        end = spans[-1].stop if len(spans) > 1 else 0
        size = self._grouping.record_bytes
        rows = max(1, _PART_BYTES // max(1, size))
        for begin in range(0, end, rows):
            empty = np.zeros((min(rows, end - begin), size), np.uint8)
            put = partial(Transaction.put_records, ring_slots=self.live.ring_slots, first=begin)
            self._store.commit(partial(put, records=empty, grouping=self._grouping), empty.size)

    def _check_room(self, log_bytes: int) -> None:
        """Raise StorageError if the disk has no room for the live transitions."""
        if self._schema is None or not self.live.size:
            return
        rows = self.live.size
        needed = tree_bytes(self._grouping.groups(rows), self._grouping.value_bytes) + _OTHER_BYTES
        needed += log_bytes
        tables = 2 if self.identity.has_priorities else 1
        needed += tables * tree_bytes(blocks_in(rows), BLOCK_BYTES)
        usage = shutil.disk_usage(self._place.parent)
        if usage.total > 0 and usage.free < needed:
            raise StorageError(
                f"{self._place} needs {human(needed)} for its data file (found "
                f"{human(usage.free)} free): make room, or write to another disk, as save() can"
            )
