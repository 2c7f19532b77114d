"""Building: write a whole new store.

The store is written at a hidden path, in commits of bounded size and in the order of its slots, so
that its pages are full and in order. Then it is renamed (`beside`), or its data file replaces
another one (rewriting.py): other processes see nothing of it, or all of it.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from diskreplay.aliases import Columns, Ints
from diskreplay.errors import StorageError
from diskreplay.live_range import BLOCK_SLOTS, block_span, blocks_in
from diskreplay.maintenance.sources import Progress
from diskreplay.records import ALONE, BLOCK_BYTES, Codec, new_grouping, schema_facts, tree_bytes
from diskreplay.sampling import Blocks, Priorities, PrioritySettings, Values
from diskreplay.schema import Schema
from diskreplay.store import Identity, Run, Snapshot, State, Store, Transaction, make_known
from diskreplay.wording import human

if TYPE_CHECKING:
    from typing_extensions import Self

_PART_BYTES = 4 << 20  # of records in a commit
_OTHER_BYTES = 1 << 20  # of the data file: facts, runs, and pages that commits have freed


class StoreBuilder:
    """A new store that is being written, from its identity to its state.

    A sketch that copies a store::

        with StoreBuilder(place, identity, state, source.schema) as builder:
            for write_ids in builder.parts():
                builder.append(write_ids[0], source.records(write_ids))
            builder.finish(runs)

    place:     a path without a file, best that of `beside`
    state:     gives the live range; its largest priority is raised by the rows
    schema:    None if nothing was ever pushed
    progress:  called after each commit with the numbers of transitions written and of all
    """

    def __init__(
        self,
        place: Path,
        identity: Identity,
        state: State,
        schema: Schema | None,
        progress: Progress | None = None,
    ) -> None:
        if identity.has_priorities:  # ArgumentError here if memory has no room for the priorities
            usual = PrioritySettings()
            Priorities(identity.capacity, alpha=usual.alpha, epsilon=usual.epsilon)
        self.identity = identity
        self.live = state.live(identity.capacity)
        self._place, self._state, self._schema = place, state, schema
        self._progress, self._done = progress, 0
        self._last_block = -1, np.zeros(0, np.float32)
        self._grouping = ALONE
        if schema is not None:
            self._codec = Codec(schema)
            self._grouping = new_grouping(schema)
        self._check_room()
        Store.create(place, identity.to_plain(), {})
        self._store = Store(place, access="exclusive", durability="process")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._store.close(sync=False)

    def parts(self) -> Iterator[Ints]:
        """Yield the live write ids in parts of one commit each, in the order of their slots."""
        rows = max(1, _PART_BYTES // max(1, self._grouping.record_bytes))
        for span in sorted(self.live.spans(rows), key=lambda span: span.start):
            yield self.live.newest_ids(np.arange(span.start, span.stop))

    def append_rows(self, first: int, columns: Columns, priorities: Values | None = None) -> None:
        """Commit rows as `append` does, given as columns of the schema's types."""
        self.append(first, self._codec.encode(columns, first), priorities)

    def append(
        self,
        first: int,
        records: Sequence[bytes] | NDArray[np.uint8],
        priorities: Values | None = None,
    ) -> None:
        """Commit records of write ids from `first` on, with priorities in a prioritized store.

        Call it in the order of the slots, best with one of the `parts` at a time.
        """
        blocks: Mapping[int, bytes] = {}
        if priorities is not None:
            blocks = self._blocks(first % self.live.capacity, priorities)
            largest = max(float(priorities.max()), self._state.max_priority or 0.0)
            self._state = replace(self._state, max_priority=largest)

        def put(txn: Transaction) -> None:
            txn.put_records(self.live.capacity, first, records, self._grouping)
            txn.put_blocks(blocks, "priorities")

        size = len(records) * self._grouping.record_bytes + len(blocks) * BLOCK_BYTES
        self._store.commit(put, size)
        self._done += len(records)
        if self._progress is not None:
            self._progress(self._done, self.live.size)

    def finish(
        self,
        runs: Sequence[Mapping[str, Any]] | None = None,
        facts: Mapping[str, Any] | None = None,
        others: Snapshot | None = None,
    ) -> None:
        """Commit all but the rows, close the store, and wait until all is on the disk.

        runs:    descriptions of the runs that wrote the rows; None means one run, of this process
        facts:   entries of another store, to keep those that only a newer version knows
        others:  the snapshot of another store, to keep databases that only a newer version knows
        """
        if runs is None:
            run = replace(Run.new(self.live.first), end=self.live.count, rows=self.live.size)
            self._state = replace(self._state, commits=1, runs=1, run=run.id)
            runs = [run.to_plain()]
        kept = {name: fact for name, fact in (facts or {}).items() if name != "identity"}
        if self._schema is not None:
            new = schema_facts(self._schema, self._grouping)
            kept |= {**new, "layout": {**kept.get("layout", {}), **new["layout"]}}
        state = self._state.to_plain(self.identity)

        def put(txn: Transaction) -> None:
            for number, description in enumerate(runs):
                txn.put_run(number, description)
            txn.put_meta({**kept, "state": state})
            if others is not None:
                txn.put_others(others)

        self._store.commit(put)
        self._store.close()
        make_known(self._place)

    def _blocks(self, slot: int, priorities: Values) -> dict[int, bytes]:
        """Return the blocks of the slots from `slot` on.

        A block with slots of two parts is written with both, the second time as a whole.
        """
        first, end = slot // BLOCK_SLOTS, slot + priorities.size
        begin, last = first * BLOCK_SLOTS, (end - 1) // BLOCK_SLOTS
        table = np.zeros(block_span(last, self.live.capacity).stop - begin, np.float32)
        if self._last_block[0] == first:
            block = self._last_block[1]
            table[: block.size] = block
        table[slot - begin : end - begin] = priorities
        self._last_block = last, table[(last - first) * BLOCK_SLOTS :]
        found = Blocks(table, list(range(last - first + 1)))
        return {first + number: content for number, content in found.items()}

    def _check_room(self) -> None:
        """Raise StorageError if the disk has no room for the live transitions."""
        if self._schema is None or not self.live.size:
            return
        rows = self.live.size
        needed = tree_bytes(self._grouping.groups(rows), self._grouping.value_bytes) + _OTHER_BYTES
        if self.identity.has_priorities:
            needed += tree_bytes(blocks_in(rows), BLOCK_BYTES)
        usage = shutil.disk_usage(self._place.parent)
        if usage.total > 0 and usage.free < needed:
            raise StorageError(
                f"{self._place} needs {human(needed)} for its data file (found "
                f"{human(usage.free)} free): make room, or write to another disk, as save() can"
            )
