"""Shared: the contents of a buffer that writes to its store together with other processes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from diskreplay.buffer.pending import NEW, Outbox
from diskreplay.buffer.prefetch import Drawn
from diskreplay.buffer.replica import Contents, SamplerT
from diskreplay.buffer.ring import COMMIT_BYTES, Columns
from diskreplay.live_range import BLOCK_SLOTS
from diskreplay.records import schema_facts
from diskreplay.sampling import Priorities
from diskreplay.schema import Schema
from diskreplay.store import Snapshot, Transaction

Ints = NDArray[np.int64]


class Shared(Contents[SamplerT]):
    """Contents that follow the store, and an outbox that each commit lays on top of it.

    A commit takes the state from inside its own transaction, so it needs nothing of what is in
    memory here but the outbox. What it wrote is taken over afterwards as if another had written it.
    """

    writes = True

    def __init__(self, *arguments: Any) -> None:
        self._outbox = Outbox()
        super().__init__(*arguments)
        self.keeps_draws = bool(self.sampler.state())
        if self.ring.schema is not None:
            self.adopt(self.ring.schema)

    @property
    def stale_updates(self) -> int:
        """How many updates of priorities came too late, over all runs."""
        return self.stale + self._outbox.stale - self._known("stale")

    def advance(self) -> None:
        """Count a draw."""
        self.sampler.advance(1)
        self._outbox.draws += 1

    def _go_back(self, drawn: Drawn, draws: int) -> None:
        super()._go_back(drawn, draws)
        self.sampler.advance(-draws)
        self._outbox.draws -= draws

    @property
    def nbytes(self) -> int:
        """The memory of what is held, in bytes, when full."""
        return super().nbytes + self._outbox.nbytes

    def _forget(self) -> None:
        super()._forget()
        self._outbox.forget_highest()

    def _take_over(self, snapshot: Snapshot) -> None:
        self._run = self.ring.own_run(snapshot)
        self._outbox.forget_updates(self._known("updated"))
        super()._take_over(snapshot)
        self.sampler.advance(self._outbox.draws - self._known("draws"))
        update = self._outbox.latest()
        self._apply(update.write_ids, update.priorities)
        if update.highest >= 0.0:
            self.sampler.raise_largest(np.array([update.highest], np.float32))

    def _apply(self, write_ids: Ints, priorities: Priorities) -> int:
        """Set priorities in memory, and return how many write ids were live."""
        if not write_ids.size:
            return 0
        # These blocks are no longer those that were read.
        for number in np.unique(write_ids % self.ring.capacity // BLOCK_SLOTS).tolist():
            self._seals.pop(number, None)
        return self.sampler.update(write_ids, priorities, self.ring.first, self.ring.count)

    def _known(self, name: str) -> int:
        """Return a total of this run as of the commit that is followed."""
        total: int = self._run.get(name, 0)
        return total

    # Writing

    def schema_for(self, values: dict[str, Any], *, lead: int) -> Schema:
        """Return the schema, or the one that these first transitions ask for."""
        if self.ring.schema is None:
            with self.view():
                pass
        return self.ring.schema_for(values, lead=lead)

    def adopt(self, schema: Schema) -> Schema:
        """Have this schema from now on, and all others too; or that of one who was faster."""
        if self.ring.schema is None:

            def put(txn: Transaction) -> None:
                if txn.meta("schema") is None:
                    txn.put_meta(schema_facts(schema))

            self.store.commit(put)
            with self.view():
                pass
            schema = self.ring.schema or schema
        self._outbox.adopt(schema, self.ring.capacity, COMMIT_BYTES)
        return schema

    def has_room(self, n: int) -> bool:
        """Return whether n more rows may wait for the next commit."""
        return self._outbox.has_room(n)

    def fits(self, n: int) -> bool:
        """Return whether n rows can wait at all."""
        return self._outbox.fits(n)

    def push(self, row: list[Any], given: Priorities | None) -> int:
        """Add a row; its write id is given by the commit."""
        self._outbox.push(row, given)
        return -1

    def extend(self, columns: Columns, given: Priorities | None) -> Ints:
        """Add rows that fit; their write ids are given by the commit."""
        self._outbox.extend(columns, given)
        write_ids = np.empty(len(columns[0]), np.int64)
        write_ids.fill(-1)
        return write_ids

    def commit_columns(self, columns: Columns, given: Priorities | None) -> Ints:
        """Add and commit rows that do not fit. Nothing may be uncommitted before."""
        n = len(columns[0])
        self._commit(columns, np.full(n, NEW) if given is None else given)
        return np.full(n, -1)

    def update(self, write_ids: Ints, priorities: Priorities) -> int:
        """Set priorities, and return how many write ids were live."""
        first, count = self.ring.first, self.ring.count
        live = (write_ids >= first) & (write_ids < count)
        self._outbox.update(write_ids[live], priorities[live])
        self._outbox.stale += int(np.count_nonzero(~live))
        return self._apply(write_ids, priorities)

    def clear(self) -> None:
        """Remove all transitions, at once."""
        self.take_back()
        self._commit(clear=True)

    def commit(self) -> None:
        """Commit everything."""
        self._commit()

    def undo(self) -> None:
        """Take back what was not committed."""
        self._outbox.settle()
        self._followed = None
        with self.store.snapshot() as snapshot:
            run = self.ring.own_run(snapshot)
        self._outbox.draws, self._outbox.stale = run.get("draws", 0), run.get("stale", 0)

    def _commit(
        self,
        columns: Columns | None = None,
        given: Priorities | None = None,
        *,
        clear: bool = False,
    ) -> None:
        """Commit the outbox, then rows of `columns`, then clear, in one transaction."""
        ring, outbox = self.ring, self._outbox

        def put(txn: Transaction) -> tuple[list[Columns], int, int]:
            state = ring.read_state(txn)
            run = ring.run_of(txn, state)
            sent = max(outbox.sent, run.get("sent", 0))
            priorities = outbox.given(sent)
            rows = list(outbox.rows(sent, ring.chunk_rows)) if priorities.size else []
            if columns is not None and given is not None:
                rows.append(columns)
                priorities = np.concatenate([priorities, given])
            begin, count = state["count"], state["count"] + priorities.size
            oldest = max(state["start"], count - ring.capacity)

            if state["start"] != ring.start:
                outbox.forget_highest()  # another process has cleared
            outbox.forget_updates(run.get("updated", 0))
            number, changed, values, highest = outbox.latest()
            live = (changed >= oldest) & (changed < begin)
            sampler, blocks = self.sampler.merge(
                ring.fact("sampler", state),
                txn.blocks,
                max(state["start"], begin - ring.capacity),
                begin,
                np.concatenate([changed[live], np.arange(begin, count)]),
                np.concatenate([values[live], priorities]),
                np.append(priorities, np.float32(highest if highest >= 0.0 else NEW)),
            )
            if "frame" in sampler:
                sampler["frame"] += outbox.draws - run.get("draws", 0)
            if clear and "max_priority" in sampler:
                sampler["max_priority"] = None
            late = outbox.stale - run.get("stale", 0) + int(np.count_nonzero(~live))
            facts = {
                "sampler": sampler,
                "stale_updates": state["stale_updates"] + late,
                "start": count if clear else state["start"],
            }
            run |= {
                "end": count,
                "rows": run["rows"] + priorities.size,
                "sent": outbox.pushed,
                "updated": number,
                "draws": outbox.draws,
                "stale": outbox.stale,
            }
            ring.put(txn, ring.numbered(iter(rows), begin, count), state, count, facts, run)
            txn.put_blocks(blocks)
            return rows, begin, count

        n = outbox.pushed - outbox.sent + (0 if columns is None else len(columns[0]))
        blocks = -(-ring.capacity // BLOCK_SLOTS)  # no more than all
        rows, begin, count = self.store.commit(put, ring.commit_bytes(n, blocks))
        for first, part in ring.numbered(iter(rows), begin, count):
            ring.hold_committed(first, part)
        outbox.settle()
