"""Exclusive: the contents of a buffer that alone writes to its store."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diskreplay.buffer.prefetch import Drawn
from diskreplay.buffer.replica import Contents, SamplerT
from diskreplay.buffer.ring import Columns, Ring
from diskreplay.errors import MismatchError
from diskreplay.sampling import (
    Priorities,
    PrioritizedSampler,
    generator_from_plain,
    generator_to_plain,
)
from diskreplay.schema import Schema, fields_of
from diskreplay.store import Snapshot, Store, laid_over

Ints = NDArray[np.int64]


_NO_SNAPSHOT = contextlib.nullcontext()


class Exclusive(Contents[SamplerT]):
    """Contents ahead of the store: a transition is there, with its write id, when it is pushed."""

    writes = True
    keeps_draws = True

    @property
    def next_draw(self) -> Drawn | None:
        """The batch whose draw is the first that does not count yet; None where all count."""
        return self.ahead.oldest

    def restore(self) -> None:
        """Go back to the last commit, with the random stream as it was then."""
        self.ahead.drop()  # their draws come after it
        super().restore()
        self.generator = generator_from_plain(self.ring.state.get("generator"))

    def view(self) -> contextlib.AbstractContextManager[Snapshot | None]:
        """Give no snapshot: nobody else changes anything."""
        return _NO_SNAPSHOT

    def advance(self) -> None:
        """Count a draw."""
        self.sampler.advance(1)

    # Writing

    def schema_for(self, values: dict[str, Any], *, lead: int) -> Schema:
        """Return the schema, or the one that these first transitions ask for."""
        return self.ring.schema_for(values, lead=lead)

    def adopt(self, schema: Schema) -> Schema:
        """Have this schema from now on."""
        if self.ring.schema is None:
            self.ring.adopt(schema)
        return schema

    def has_room(self, n: int) -> bool:
        """Return whether n more rows may wait for the next commit."""
        return self.ring.has_room(n)

    def fits(self, n: int) -> bool:
        """Return whether n rows can wait at all."""
        return n <= self.ring.window_rows

    def push(self, row: list[Any], given: Priorities | None) -> int:
        """Add a row and return its write id."""
        write_id = self.ring.count
        self.ring.hold_row(row)
        self.sampler.hold(write_id, 1, given)
        self.ring.publish(1)
        return write_id

    def extend(self, columns: Columns, given: Priorities | None) -> Ints:
        """Add rows that fit, and return their write ids."""
        first, n = self.ring.count, len(columns[0])
        self.ring.hold_rows(columns)
        self.sampler.hold(first, n, given)
        write_ids = np.arange(first, first + n)
        self.ring.publish(n)
        return write_ids

    def commit_columns(self, columns: Columns, given: Priorities | None) -> Ints:
        """Add and commit rows that do not fit. Nothing may be uncommitted before."""
        first, n = self.ring.count, len(columns[0])
        with self._restored_on_error():
            self.sampler.hold(first, n, given)
            self.commit_rows(lambda: [columns], first, self.ring.start, first + n)
        return np.arange(first, first + n)

    def update(self, write_ids: Ints, priorities: Priorities) -> int:
        """Set priorities, and return how many write ids were live."""
        applied = self.sampler.update(write_ids, priorities, self.ring.first, self.ring.count)
        self.stale += write_ids.size - applied
        return applied

    def _go_back(self, drawn: Drawn, draws: int) -> None:
        if isinstance(self.sampler, PrioritizedSampler):
            self.sampler.frame = drawn.frame
        super()._go_back(drawn, draws)

    def clear(self) -> None:
        """Remove all transitions."""
        self.take_back()
        self.sampler.distrust()
        self.ring.clear()
        self.sampler.clear(self.ring.count)

    def commit(self) -> None:
        """Commit everything."""
        blocks = self.sampler.dirty_blocks(self.ring.first, self.ring.count)
        self.ring.commit(self._facts(), blocks)
        self.sampler.committed(blocks)

    def undo(self) -> None:
        """Take back what was not committed."""
        self.restore()

    def load(self, store: Store) -> None:
        """Have the contents of another store. Nothing may be uncommitted before."""
        own = self.ring.schema
        source = Ring(store, 0, self.ring.expected if own is None else fields_of(own))
        capacity = self.ring.capacity
        saved = self.sampler.sibling(source.capacity)
        with self._restored_on_error(), store.snapshot() as snapshot:
            self.ahead.drop()
            source.refresh(snapshot)
            saved.load_blocks(
                snapshot.blocks_one_by_one(saved.live_blocks(source.first, source.count)),
                source.first,
                source.count,
            )
            order = self._order_of(source)
            size = min(source.size, capacity)
            first = source.count - size
            moved = max(0, self.ring.count - first + capacity - 1) // capacity * capacity
            if source.schema is not None:
                self.ring.adopt(source.schema)
            begin = first + moved
            self.sampler.clear(begin)
            if size:
                self.sampler.hold(begin, size, saved.live_priorities(first, source.count))
            self.sampler.restore(source.fact("sampler"))
            self.generator = generator_from_plain(source.state.get("generator"))

            def rows() -> Iterator[Columns]:
                for columns in source.chunks(first, snapshot):
                    yield [columns[i] for i in order]

            self.commit_rows(rows, begin, begin, begin + size, source.state)

    def _order_of(self, source: Ring) -> list[int]:
        """Return where the columns of a saved store are that this one wants, in its order."""
        own = self.ring.schema or source.schema
        if own is None or source.schema is None:
            return []
        if set(own.fields) != set(source.schema.fields):
            raise MismatchError(
                f"the fields are {source.schema} in {source.store.path} (expected {own})"
            )
        return [source.schema.names.index(name) for name in own.names]

    def commit_rows(
        self,
        rows: Callable[[], Iterable[Columns]],
        first: int,
        start: int,
        count: int,
        under: Mapping[str, Any] | None = None,
    ) -> None:
        """Commit rows past the window, whose priorities the sampler holds already.

        under:  a state that they come from; what this version does not know of it is kept
        """
        blocks = self.sampler.dirty_blocks(max(start, count - self.ring.capacity), count)
        facts = laid_over(under or {}, self._facts())
        self.ring.commit_rows(rows, first, start, count, facts, blocks)
        self.sampler.committed(blocks)

    def _facts(self) -> dict[str, Any]:
        """Return what a commit holds beside transitions and priorities.

        Batches that were drawn ahead, and not given to anyone, are still to be drawn.
        """
        drawn, sampler = self.ahead.oldest, self.sampler.state()
        if drawn is not None and "frame" in sampler:
            sampler["frame"] = drawn.frame
        return {
            "generator": generator_to_plain(self.generator) if drawn is None else drawn.before,
            "sampler": sampler,
            "settings": self.settings,
            "stale_updates": self.stale,
        }

    @contextlib.contextmanager
    def _restored_on_error(self) -> Iterator[None]:
        """Go back to the last commit when the block raises. Nothing may be uncommitted before."""
        try:
            yield
        except BaseException:
            self.restore()
            raise
