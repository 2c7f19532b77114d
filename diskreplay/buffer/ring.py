"""Ring: transitions by write id. It joins the window, the codec and the store.

Write ids of a ring of capacity 8 with 13 transitions written, 11 of them committed::

      0  1  2  3  4 | 5  6  7  8  9 10 | 11 12
        evicted     | live, in the     | live, in the window only
                    | store            |
                   first           committed   count

`start` is the count at the last `clear`: first = max(start, count - capacity).
"""

from __future__ import annotations

import contextlib
import os
import platform
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import lmdb
import numpy as np
from numpy.typing import NDArray

from diskreplay.buffer.window import Window
from diskreplay.errors import DamageError, MismatchError, SchemaError, StorageError
from diskreplay.records import (
    ALONE,
    BLOCK_BYTES,
    Codec,
    Packing,
    new_packing,
    packing_in,
    schema_facts,
)
from diskreplay.schema import Array, Field, Schema, infer_schema
from diskreplay.store import Snapshot, Store, Transaction, identity_of, laid_over
from diskreplay.validation import MAX_COUNT
from diskreplay.version import __version__

Ints = NDArray[np.int64]
Columns = list[Array]

# A commit holds up the push that meets it: about 5 ms for this much.
COMMIT_BYTES = 2 << 20
_CHUNK_BYTES = 1 << 20
_COUNTERS = ("count", "start", "commits", "runs")


def new_state(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the state of a ring that was never written to, with the buffer's `facts`."""
    return {**dict.fromkeys(_COUNTERS, 0), "run": "", **facts}


class Ring:
    """The live transitions of one store. It is not safe for threads: its buffer is."""

    def __init__(
        self, store: Store, window_bytes: int, expected: Mapping[str, Field], *, whole: bool = False
    ) -> None:
        self.store = store
        self.capacity = identity_of(store.identity).capacity
        self.schema: Schema | None = None
        self.count = self.start = self.committed = self.commits = 0
        self._window_bytes = window_bytes
        self.expected = expected
        self._expects_all = whole
        self._packing = ALONE
        with store.snapshot() as snapshot:
            self.refresh(snapshot)
        self._run = os.urandom(16).hex()
        self._run_number = -1  # known at the first commit
        self._run_rows = 0
        self._run_started = time.time()

    @property
    def first(self) -> int:
        """The oldest live write id."""
        return max(self.start, self.count - self.capacity)

    @property
    def size(self) -> int:
        """The number of live transitions."""
        return self.count - self.first

    @property
    def uncommitted(self) -> int:
        """The number of transitions that only the window holds."""
        return self.count - self.committed

    @property
    def nbytes(self) -> int:
        """The memory of the window, in bytes."""
        return 0 if self.schema is None else self._window.nbytes

    def read_state(self, snapshot: Snapshot) -> dict[str, Any]:
        """Return the state that is committed, after checking its counts."""
        path, state = self.store.path, snapshot.meta("state")
        numbers = [state.get(name) for name in _COUNTERS] if isinstance(state, dict) else [None]
        if not all(type(number) is int and 0 <= number <= MAX_COUNT for number in numbers):
            raise DamageError(f"the state of {path} has no counts in it")
        if state["start"] > state["count"]:
            raise DamageError(f"the state of {path} starts after its end")
        if state["count"] < self.committed or state["commits"] < self.commits:
            raise StorageError(
                f"{path} has {state['count']} transitions in {state['commits']} commits (there "
                f"were {self.committed} in {self.commits}): its files are others now: open it again"
            )
        needed = self._packing.live_groups(
            max(state["start"], state["count"] - self.capacity), state["count"], self.capacity
        )
        if needed > snapshot.entries("transitions") and self.schema is not None:
            what = "records" if self._packing.per_value == 1 else "groups of records"
            raise DamageError(
                f"{path} has {snapshot.entries('transitions')} {what} (expected {needed} or more)"
            )
        checked: dict[str, Any] = state
        return checked

    def refresh(self, snapshot: Snapshot) -> None:
        """Take over what is committed."""
        plain = snapshot.meta("schema")
        if plain is None:
            self.schema = None  # if one was adopted, then by a call that failed
        elif self.schema is None:
            self._adopt_stored(plain, snapshot)
        state = self.read_state(snapshot)
        if self.schema is None and state["count"]:
            raise DamageError(f"the schema of {self.store.path} is missing")
        self.state: dict[str, Any] = state
        self.count = self.committed = state["count"]
        self.start, self.commits = state["start"], state["commits"]

    def own_run(self, snapshot: Snapshot) -> dict[str, Any]:
        """Return what the store says of this run, {} when it has committed nothing."""
        found = snapshot.run(self._run_number) if self._run_number >= 0 else None
        return found if found is not None and found.get("run") == self._run else {}

    def fact(self, name: str, state: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return one of the facts of a state, by default the one taken over, that are mappings."""
        found = (self.state if state is None else state).get(name)
        if not isinstance(found, dict):
            raise DamageError(f"the state of {self.store.path} has no {name}")
        return found

    # Writing

    def schema_for(self, values: Mapping[str, Any], *, lead: int) -> Schema:
        """Return the schema, or the one that these first transitions ask for."""
        return self.schema or infer_schema(values, self.expected, lead=lead)

    def adopt(self, schema: Schema) -> None:
        """Have this schema from now on."""
        if self.schema is None:
            self._take_up(Codec(schema), new_packing(schema))

    def packing_of(self, schema: Schema) -> Packing:
        """Return how the records of this schema are stored, or will be when it is adopted."""
        return new_packing(schema) if self.schema is None else self._packing

    def schema_facts(self) -> dict[str, Any]:
        """Return the facts of the schema, {} before there is one."""
        return {} if self.schema is None else schema_facts(self.schema, self._packing)

    def has_room(self, n: int) -> bool:
        """Return whether n more rows may wait for the next commit."""
        waiting = self.count - self.committed
        return not waiting or waiting + n <= self._limit

    @property
    def window_rows(self) -> int:
        """The number of rows that the window holds, once there is a schema."""
        return self._window.rows

    def hold_row(self, row: list[Any]) -> None:
        """Hold the row of the next write id, as the schema accepted it, until `publish`."""
        self._window.write_row(self.count, row)

    def hold_rows(self, columns: Columns) -> None:
        """Hold the rows of the next write ids, which fit the window, until `publish`."""
        self._window.write(self.count, columns)

    def hold_committed(self, first: int, columns: Columns) -> None:
        """Hold rows that a commit gave the write ids from `first` on, to save their reading."""
        self._window.write(first, columns)

    def publish(self, n: int) -> None:
        """Make n held rows live, in one step: an interrupt comes before it or after it."""
        self.count += n

    def clear(self) -> None:
        """Have no live transitions; write ids go on counting."""
        self.start = self.count

    def commit(self, facts: Mapping[str, Any], blocks: Mapping[int, bytes]) -> None:
        """Write the uncommitted rows and everything that must agree with them."""

        def rows() -> Iterable[tuple[int, Columns]]:
            if self.count == self.committed:
                return ()
            begin = max(self.committed, self.first)
            return self._window.chunks(begin, self.count, self.chunk_rows)

        self._commit(rows, self.uncommitted, self.start, self.count, facts, blocks)

    def commit_rows(
        self,
        rows: Callable[[], Iterable[Columns]],
        first: int,
        start: int,
        count: int,
        facts: Mapping[str, Any],
        blocks: Mapping[int, bytes],
    ) -> None:
        """Write rows past the window, in one transaction: write ids from `first` to `count`.

        Nothing may be uncommitted before; nothing is changed when it raises. `rows` is called once
        more when the map has to grow.
        """
        if self.schema is not None:
            self._window.drop_from(first)

        def numbered() -> Iterable[tuple[int, Columns]]:
            return self.numbered(rows(), first, count)

        self._commit(numbered, count - first, start, count, facts, blocks)

    def numbered(
        self, rows: Iterable[Columns], first: int, count: int
    ) -> Iterator[tuple[int, Columns]]:
        """Cut rows into chunks with write ids, leaving out what `count` says is evicted already."""
        oldest = count - self.capacity
        for columns in rows:
            n = len(columns[0])
            for at in range(max(0, oldest - first), n, self.chunk_rows):
                yield first + at, [column[at : at + self.chunk_rows] for column in columns]
            first += n

    def put(
        self,
        txn: Transaction,
        rows: Iterable[tuple[int, Columns]],
        state: Mapping[str, Any],
        count: int,
        facts: Mapping[str, Any],
        run: Mapping[str, Any],
    ) -> int:
        """Put rows, and the state that goes with them, into a transaction on top of `state`.

        Returns the number of commits with this one. `run` is what to say of the run, by `run_of`.
        """
        for first, columns in rows:
            records = self._codec.encode_array(columns, first)
            txn.put_records(self.capacity, first, records, self._packing)
        commits: int = state["commits"] + 1
        counters = {
            "count": count,
            "commits": commits,
            "run": self._run,
            "runs": max(state["runs"], self._run_number + 1),
        }
        if self.schema is not None and not (txn.has("schema") and txn.has("layout")):
            txn.put_meta(self.schema_facts())
        txn.put_meta({"state": {**laid_over(state, facts), **counters}})
        txn.put_run(self._run_number, run)
        return commits

    def run_of(self, txn: Transaction, state: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the store says of this run, or what a new run says of itself."""
        found = self.own_run(txn)
        if found:
            return found
        self._run_number = state["runs"]
        return self._new_run(state["count"])

    # Reading

    def fetch(
        self,
        write_ids: Ints,
        snapshot: Snapshot | None = None,
        fields: Sequence[int] | None = None,
    ) -> Columns:
        """Return the rows of live write ids as columns, from the window or else from the store.

        Only rows with all their fields are held for a later call.
        """
        columns, held = self._window.take(write_ids, fields)
        if not held.all():
            missing = np.flatnonzero(~held)
            wanted = write_ids[missing]
            slots = wanted % self.capacity
            with contextlib.nullcontext(snapshot) if snapshot else self.store.snapshot() as view:
                try:
                    records = view.records(slots, self._packing)
                    found = self._codec.decode(records, wanted, slots, fields)
                except DamageError as error:
                    raise DamageError(
                        f"{error}, in {self.store.path}: on_damage='skip' draws batches without "
                        "it, and diskreplay.repair() copies the others"
                    ) from None
            if fields is None:
                self._window.write_below(wanted, found, self.committed)
            if not columns:
                return found
            for column, values in zip(columns, found, strict=True):
                column[missing] = values
        return columns

    def damaged(self, write_ids: Ints, snapshot: Snapshot | None = None) -> Ints:
        """Return those of live write ids whose record in the store is not what was written."""
        _, held = self._window.take(write_ids)
        wanted = np.unique(write_ids[~held])
        slots = wanted % self.capacity
        with contextlib.nullcontext(snapshot) if snapshot else self.store.snapshot() as view:
            return wanted[~self._codec.sound(view.records(slots, self._packing), wanted)]

    def chunks(self, first: int, snapshot: Snapshot) -> Iterator[Columns]:
        """Yield the rows from a live write id on, oldest first, a chunk at a time."""
        for write_ids in self._chunked(first, self.count):
            yield self.fetch(write_ids, snapshot)

    def faults(self, snapshot: Snapshot) -> list[str]:
        """Return one sentence for each committed live record that is not what was written."""
        found: list[str] = []
        for write_ids in self._chunked(self.first, self.committed):
            slots = write_ids % self.capacity
            records = snapshot.records(slots, self._packing)
            found += self._codec.faults(records, write_ids, slots)
        return found

    def _chunked(self, first: int, end: int) -> Iterator[Ints]:
        while first < end:
            yield np.arange(first, min(first + self.chunk_rows, end))
            first += self.chunk_rows

    def commit_bytes(self, rows: int, blocks: int) -> int:
        """Return the bytes that a commit of so many rows and priority blocks puts."""
        records = min(rows, self.capacity) * self._codec.record_bytes if self.schema else 0
        return records + blocks * BLOCK_BYTES

    def _commit(
        self,
        rows: Callable[[], Iterable[tuple[int, Columns]]],
        n: int,
        start: int,
        count: int,
        facts: Mapping[str, Any],
        blocks: Mapping[int, bytes],
    ) -> None:
        def put(txn: Transaction) -> int:
            state = self.read_state(txn)
            # A commit of this run that was interrupted after it was done may not be known here.
            if state["commits"] != self.commits and state.get("run") != self._run:
                raise StorageError(
                    f"{self.store.path} was written by another process although it is held here: "
                    "nothing of this buffer was committed over it"
                )
            run = self.run_of(txn, state)
            run |= {"end": count, "rows": self._run_rows + n}
            commits = self.put(txn, rows(), state, count, {**facts, "start": start}, run)
            txn.put_blocks(blocks)
            return commits

        self.commits = self.store.commit(put, self.commit_bytes(n, len(blocks)))
        self._run_rows += n
        self.count = self.committed = count
        self.start = start

    def _adopt_stored(self, plain: Any, snapshot: Snapshot) -> None:
        try:
            schema = Schema.from_plain(plain)
        except SchemaError as error:
            raise DamageError(f"the schema of {self.store.path} is damaged: {error}") from None
        for name, field in self.expected.items():
            stored = schema[name].type if name in schema.names else "no such field"
            if stored != field.type:
                raise MismatchError(
                    f"field {name!r} is {stored} in {self.store.path} (expected {field.type}): "
                    f"open it with diskreplay.open({str(self.store.path)!r}), or choose a new path"
                )
        if self._expects_all and set(schema.names) != set(self.expected):
            raise MismatchError(
                f"the fields are {', '.join(schema.names)} in {self.store.path} (expected "
                f"{', '.join(self.expected)}): open it with "
                f"diskreplay.open({str(self.store.path)!r}), or choose a new path"
            )
        codec = Codec(schema)
        packing = packing_in(
            snapshot.meta("layout"),
            snapshot.some_values,
            schema,
            codec.write_id_of,
            self.capacity,
            str(self.store.path),
        )
        self._take_up(codec, packing)

    def _take_up(self, codec: Codec, packing: Packing) -> None:
        """Have a schema, by its codec, and a way to store its records."""
        self._codec = codec
        self._packing = packing
        self._window = Window(codec.schema, self.capacity, self._window_bytes)
        self.chunk_rows = max(1, _CHUNK_BYTES // codec.record_bytes)
        self._limit = min(self._window.rows, max(1, COMMIT_BYTES // codec.record_bytes))
        self.schema = codec.schema

    def _new_run(self, count: int) -> dict[str, Any]:
        return {
            "first": count,
            "end": count,
            "rows": 0,
            "started": self._run_started,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "versions": _versions(),
            "run": self._run,
        }


def _versions() -> dict[str, str]:
    return {
        "diskreplay": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "lmdb": lmdb.__version__,
    }
