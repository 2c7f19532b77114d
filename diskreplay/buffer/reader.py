"""Reader: what a buffer says and draws of its transitions, and changes none of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Generic, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from diskreplay.buffer.batch import Batch, Draw, Experience, batch_of, with_extra
from diskreplay.buffer.batches import Batches, BatchT
from diskreplay.buffer.replica import SamplerT
from diskreplay.buffer.ring import Columns
from diskreplay.buffer.session import Session
from diskreplay.errors import ArgumentError, NotLiveError, SampleError, SchemaError
from diskreplay.schema import Array, Schema
from diskreplay.store import Snapshot
from diskreplay.validation import whole_number, whole_numbers
from diskreplay.wording import count_of

Ints = NDArray[np.int64]


class Reader(Session[SamplerT], Generic[SamplerT, BatchT]):
    """A session with the methods that read."""

    def sample(self, batch_size: int) -> BatchT:
        """Draw a batch."""
        with self._view() as view:
            batch = self._new_batch(batch_size, view)
            self._settle()
            return batch

    def batches(self, batch_size: int, prefetch: int = 0) -> Batches[BatchT]:
        """Return an endless iterator of what `sample` returns; use it in a `with` block.

        With prefetch=0 each batch is drawn when it is asked for. With prefetch=n a thread keeps up
        to n batches ready, in memory: the same batches in the same order, as long as nothing is
        pushed or updated. A batch that was drawn ahead stays as it was drawn, with the contents,
        priorities, weights and beta of then, so a push or an update takes effect n batches later at
        the latest. Commits, `frame` and `beta` count a batch when it is given (with access="shared"
        when it is drawn), so that a run that goes on is given what the killed one would have been.
        `clear` and `load` drop what was drawn before. Raises what `sample` raises, where the batch
        would come, and ClosedError when the buffer is closed.

        >>> buffer = PrioritizedReplayBuffer(capacity=100)
        >>> ids = buffer.extend([[0.0]] * 9, [0] * 9, [1.0] * 9, [[0.0]] * 9, [False] * 9)
        >>> with buffer.batches(4, prefetch=2) as batches:
        ...     for step, batch in zip(range(10), batches):
        ...         applied = buffer.update_priorities(batch.indices, [0.5] * 4)
        >>> buffer.frame
        10
        """
        n = whole_number("batch_size", batch_size, at_least=1)
        ready = whole_number("prefetch", prefetch, at_least=0)
        self._refuse_nesting()
        with self._lock:
            self._check_open()
            return Batches(self, n, ready)

    def draw(self, n: int) -> Draw:
        """Draw transitions as `sample` does, and return their write ids instead of the transitions.

        It counts as a draw: the write ids are those of the batch that `sample(n)` would have
        returned, the next draw is another, beta advances, and a commit saves that. No record is
        read, so on_damage="skip" leaves out those only that a batch or a `get` of a batch has met.
        Raises SampleError as `sample`.

        >>> buffer = ReplayBuffer(capacity=100)
        >>> ids = buffer.extend([[0.0]] * 8, [0] * 8, [1.0] * 8, [[0.0]] * 8, [False] * 8)
        >>> indices, probabilities = buffer.draw(4)
        >>> probabilities.tolist(), buffer.get(indices, fields=["reward"])["reward"].tolist()
        ([0.125, 0.125, 0.125, 0.125], [1.0, 1.0, 1.0, 1.0])

        Returns a Draw: `indices`, int64 (n,), and `probabilities`, float64 (n,).
        """
        with self._view():
            n = self._begin_draw("n", n)
            ring, contents = self._ring, self._contents
            drawn = self._sampler.draw(n, ring.first, ring.count, contents.generator)
            contents.advance()
            self._settle()
            return Draw(drawn[0], np.full(n, drawn[1], np.float64))

    @overload
    def get(self, indices: ArrayLike, fields: None = None) -> Batch: ...

    @overload
    def get(self, indices: ArrayLike, fields: Iterable[str]) -> dict[str, Array]: ...

    def get(
        self, indices: ArrayLike, fields: Iterable[str] | None = None
    ) -> Batch | dict[str, Array]:
        """Return transitions by write id, in the order given.

        Raises NotLiveError, naming the first, when a write id was evicted, cleared or never given,
        and SchemaError for a field that there is not.

        >>> buffer = ReplayBuffer(capacity=100)
        >>> ids = buffer.extend([[0.0]] * 8, [0] * 8, range(8), [[0.0]] * 8, [False] * 8)
        >>> buffer.get([[0, 1], [2, 3]], fields=["reward"])
        {'reward': array([[0., 1.],
               [2., 3.]], dtype=float32)}

        indices:  int of any shape, write ids as `push`, `extend` or `sample` returned them; each
                  array has this shape before that of its field
        fields:   names of those to return, in a dict; no other is read from memory or decoded.
                  None returns all, in a Batch
        """
        ids = whole_numbers("indices", indices, any_shape=True)
        with self._view() as view:
            write_ids = ids.reshape(-1)
            self._check_live(write_ids)
            schema = self._ring.schema
            if schema is None:
                raise SampleError(f"{self._path} is empty: push transitions first")
            names = None if fields is None else self._names_of(schema, fields)
            places = None if names is None else [schema.names.index(name) for name in names]
            columns = self._ring.fetch(write_ids, view, places)
        if ids.ndim != 1:
            columns = [column.reshape(ids.shape + column.shape[1:]) for column in columns]
        if names is not None:
            return dict(zip(names, columns, strict=True))
        return batch_of(columns, schema.extra_names, ids)

    def __iter__(self) -> Iterator[Experience]:
        """Yield the live transitions, oldest first; what is evicted meanwhile is left out."""
        with self._view():
            at, end = self._ring.first, self._ring.count
        while at < end:
            with self._view() as view:
                at = max(at, self._ring.first)
                end = min(end, self._ring.count)  # in a forked child it is what is committed
                if at >= end:
                    return
                rows = self._ring.fetch(np.arange(at, min(at + 256, end)), view)
                kind = with_extra(Experience, self._extra_names)
            yield from map(kind._make, zip(*rows, strict=True))
            at += len(rows[0])

    def __len__(self) -> int:
        with self._view():
            return self._ring.size

    def is_ready(self, n: int) -> bool:
        """Return whether the buffer holds at least n transitions."""
        return len(self) >= whole_number("n", n, at_least=0)

    @property
    def capacity(self) -> int:
        """The number of transitions that the buffer holds when full."""
        return self._capacity

    @property
    def count(self) -> int:
        """The number of transitions ever written, which is the next write id."""
        with self._view():
            return self._ring.count

    @property
    def first(self) -> int:
        """The oldest live write id; where there is none it is `count`."""
        with self._view():
            return self._ring.first

    @property
    def total_mass(self) -> float:
        """The sum of the masses of the live transitions; in a uniform buffer each has 1.0."""
        with self._view():
            return self._sampler.total_mass(self._ring.first, self._ring.count)

    @property
    def path(self) -> Path:
        """The directory of the store."""
        return self._path

    @property
    def schema(self) -> Schema | None:
        """The fields of a transition; None before the first push, unless given."""
        with self._view():
            return self._ring.schema

    # Inside

    def _check_live(self, write_ids: Ints) -> None:
        first, count = self._ring.first, self._ring.count
        dead = write_ids[(write_ids < first) | (write_ids >= count)]
        if dead.size:
            raise NotLiveError(
                f"write id {dead[0]} is not live in {self._path}: "
                f"expected ids in [{first}, {count})"
            )

    def _new_batch(self, batch_size: int, view: Snapshot | None) -> BatchT:
        raise NotImplementedError

    def _begin_draw(self, name: str, n: int) -> int:
        """Return the number of transitions to draw, when there are as many."""
        n = whole_number(name, n, at_least=1)
        if n > self._ring.size:
            raise SampleError(
                f"cannot draw {count_of(n, 'transition')}: {self._path} holds "
                f"{self._ring.size}; wait until is_ready({n})"
            )
        if self._contents.keeps_draws:
            self._touch()
        return n

    def _draw(self, batch_size: int, view: Snapshot | None) -> tuple[Ints, Any, Columns]:
        """Return write ids, what the sampler says of them, and their columns."""
        n, contents = self._begin_draw("batch_size", batch_size), self._contents
        drawn = contents.draw(n, view, skip_damaged=self._skips_damaged)
        contents.advance()
        return drawn

    def _names_of(self, schema: Schema, fields: Iterable[str]) -> list[str]:
        """Return the names of fields that a user asks for, each once."""
        try:
            names = [] if isinstance(fields, str) else [*dict.fromkeys(fields)]
        except Exception:  # an object may raise anything when it is asked for its parts
            names = []
        if not names:
            raise ArgumentError(f"fields must be a list of names (found {fields!r})")
        if unknown := [name for name in names if name not in schema.names]:
            raise SchemaError(
                f"{self._path} has no field {unknown[0]!r}: expected some of "
                f"{', '.join(schema.names)}"
            )
        return names

    @property
    def _extra_names(self) -> tuple[str, ...]:
        return self._ring.schema.extra_names if self._ring.schema else ()
