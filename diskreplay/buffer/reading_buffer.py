"""ReadingBuffer: the methods of both kinds of buffers that read transitions by write id."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import ArrayLike

from diskreplay.aliases import Ints
from diskreplay.buffer.assembly import Options
from diskreplay.buffer.batch import Batch, Experience, with_extra
from diskreplay.buffer.batch_arrays import batch_of
from diskreplay.buffer.batch_values import (
    batch_values,
    check_mask_name,
    checked_pad,
    mask_of,
    some_values,
)
from diskreplay.buffer.guard import Guard
from diskreplay.buffer.sizing import check_memory_of
from diskreplay.episodes import beginnings, episode_from, has_next, parts_of
from diskreplay.errors import ArgumentError, NotLiveError, SampleError, SchemaError
from diskreplay.live_range import LiveRange
from diskreplay.schema import Schema, leaves, mapped
from diskreplay.store import Snapshot
from diskreplay.validation import true_or_false, whole_number, whole_numbers
from diskreplay.wording import count_of, shown

_ROWS_READ = 256  # in one step of an iteration
_ENDS = ("done", "truncated")


class ReadingBuffer:
    """An open buffer: the methods that read transitions by write id."""

    _guard: Guard
    _options: Options

    @overload
    def get(self, indices: ArrayLike, fields: None = None, *, pad: bool = False) -> Batch: ...

    @overload
    def get(
        self, indices: ArrayLike, fields: Iterable[str], *, pad: bool = False
    ) -> dict[str, Any]: ...

    def get(
        self, indices: ArrayLike, fields: Iterable[str] | None = None, *, pad: bool = False
    ) -> Batch | dict[str, Any]:
        """Return transitions by write id, in the order given.

        Raises NotLiveError, naming the first, when a write id was evicted, cleared or never given,
        and SchemaError for an unknown field.

        >>> buffer = ReplayBuffer(capacity=100)
        >>> ids = buffer.extend([[0.0]] * 8, [0] * 8, range(8), [[0.0]] * 8, [False] * 8)
        >>> buffer.get([[0, 1], [2, 3]], fields=["reward"])
        {'reward': array([[0., 1.],
               [2., 3.]], dtype=float32)}

        indices:  int of any shape, write ids as `push`, `extend` or `sample` returned them; each
                  array has this shape before that of its field
        fields:   names of the fields to return, in a dict; other fields are neither read from
                  memory nor decoded. The name of a nested field returns all of its parts, nested,
                  and that of a part, as "state.camera", the part. None returns all fields, in a
                  Batch
        pad:      as of `sample`; in a dict the mask of `tokens` is `tokens_mask`
        """
        is_padded = checked_pad(pad)
        ids = whole_numbers("indices", indices, any_shape=True)
        with self._guard.reading() as snapshot:
            write_ids = ids.reshape(-1)
            self._check_live(write_ids)
            schema = self._guard.replica.rows.schema
            if schema is None:
                raise SampleError(f"{self.path} is empty: push transitions first")
            wanted = None if fields is None else self._structures_of(schema, fields)
            places = None if wanted is None else [*dict.fromkeys(leaves(wanted))]
            columns = self._guard.replica.fetch(write_ids, snapshot, places)
        if wanted is None or places is None:
            values, masks = batch_values(schema, columns, ids.shape, pad=is_padded)
            batch: Batch = batch_of(schema, values, ids, masks=masks)
            return batch
        values, own = some_values(schema, places, columns, ids.shape, pad=is_padded)
        found: dict[str, Any] = mapped(wanted, dict(zip(places, values, strict=True)).get)
        for name, structure in wanted.items() if own else ():
            if not own.keys().isdisjoint(leaves(structure)):
                check_mask_name(f"{name}_mask", wanted)
                found[f"{name}_mask"] = mask_of(schema, own, name)
        return found

    def runs_of(self, indices: ArrayLike) -> Ints:
        """Return the number of the run that wrote each transition, int64 of the shape of `indices`.

        The runs of a store are its openings for writing, numbered from 0, as in `stats()["runs"]`.
        It is -1 where several processes wrote in turns, since nothing tells who wrote which
        transition between the first and the last of each. Cost: O(n log runs), and it reads the
        descriptions of the runs. Raises NotLiveError as `get` does.

        >>> for run in range(2):
        ...     with ReplayBuffer(capacity=100, path="runs/a") as buffer:
        ...         write_id = buffer.push([0.0], 0, 1.0, [1.0], False)
        ...         buffer.runs_of([write_id]).tolist()
        [0]
        [1]

        indices:  int of any shape, write ids
        """
        ids = whole_numbers("indices", indices, any_shape=True)
        with self._guard.reading() as view:
            self._check_live(ids.reshape(-1))
            replica = self._guard.replica
            with contextlib.nullcontext(view) if view else replica.store.snapshot() as snapshot:
                return replica.run_ranges(snapshot).numbers(ids)

    def __iter__(self) -> Iterator[Experience]:
        """Yield the live transitions, oldest first; those evicted meanwhile are left out."""
        with self._guard.reading():
            live = self._live
            at, end = live.first, live.count
        while at < end:
            with self._guard.reading() as snapshot:
                at = max(at, self._live.first)
                end = min(
                    end, self._live.count
                )  # smaller in a forked child, which sees committed rows only
                if at >= end:
                    return
                ids = np.arange(at, min(at + _ROWS_READ, end))
                rows = self._guard.replica.fetch(ids, snapshot)
                schema: Any = self._guard.replica.rows.schema  # as there are transitions
            kind = with_extra(Experience, schema.extra_names)
            columns, _ = batch_values(schema, rows, ids.shape)
            values = zip(*columns, strict=True)
            yield from map(kind._make, values if schema.is_flat else map(schema.nested, values))
            at += len(rows[0])

    def episodes(self, newest_first: bool = False) -> Iterator[Batch]:
        """Return an iterator over the whole episodes, in the order of their first transitions.

        An episode is whole if none of its transitions was evicted, and if it has ended: with `done`
        or `truncated`, or because another one of the same env follows. Each comes as a Batch, all
        of its transitions in order; those evicted before they are reached are left out. Memory: one
        episode. Raises ArgumentError for one that is larger than the memory of the machine.

        >>> buffer = ReplayBuffer(capacity=100)
        >>> for i in range(7):
        ...     write_id = buffer.push([float(i)], 0, 1.0, [i + 1.0], done=i in (2, 5))
        >>> [batch.indices.tolist() for batch in buffer.episodes(newest_first=True)]
        [[3, 4, 5], [0, 1, 2]]

        newest_first:  whether the last one to begin comes first
        """
        backwards = true_or_false("newest_first", newest_first)
        with self._guard.reading():
            parts = parts_of(self._live.first, self._live.count, newest_first=backwards)
        return self._episodes(parts, backwards)

    def _episodes(self, parts: Iterator[tuple[int, int]], backwards: bool) -> Iterator[Batch]:
        for first, end in parts:
            with self._guard.reading():
                begin = beginnings(self._guard.replica.links, self._live, first, end)
            for write_id in begin[::-1].tolist() if backwards else begin.tolist():
                with self._guard.reading() as snapshot:
                    episode = self._episode(write_id, snapshot)
                if episode is not None:
                    yield episode

    def _episode(self, write_id: int, snapshot: Snapshot | None) -> Batch | None:
        """Return the episode that begins with a write id, None where it is not whole or evicted."""
        replica, live = self._guard.replica, self._live
        if not beginnings(replica.links, live, write_id, write_id + 1).size:
            return None
        schema: Any = replica.rows.schema  # as there are transitions
        ids = episode_from(replica.links, write_id, live)
        if not has_next(replica.links, int(ids[-1]), live):
            ends = [place for place, name in enumerate(schema.names) if name in _ENDS]
            if not any(column.all() for column in replica.fetch(ids[-1:], snapshot, ends)):
                return None
        check_memory_of(schema, ids.size, f"an episode of {count_of(ids.size, 'transition')}")
        values, _ = batch_values(schema, replica.fetch(ids, snapshot), ids.shape)
        found: Batch = batch_of(schema, values, ids)
        return found

    def __len__(self) -> int:
        with self._guard.reading():
            return self._live.size

    def is_ready(self, n: int) -> bool:
        """Return whether a batch of n can be drawn: there are n transitions, and enough to draw.

        A sampler may draw from some alone, and damaged transitions that were left out count no
        more. Of AtMost, batches that were drawn ahead have taken their draws.

        >>> ReplayBuffer(capacity=10).is_ready(1)
        False
        """
        n = whole_number("n", n, at_least=0)
        with self._guard.reading():
            live, replica = self._live, self._guard.replica
            if not n or n > live.size:
                return not n
            if self._options.sampler is None and not replica.damaged:
                return True  # asked between pushes, masses would be added up each time
            mass = replica.sampler.total_mass(live)
            return mass > 0.0 if replica.sampler.replaces else mass >= n

    @property
    def capacity(self) -> int:
        """The number of transitions that the buffer holds when full."""
        return self._options.capacity

    @property
    def count(self) -> int:
        """The number of transitions ever written, which is the next write id."""
        with self._guard.reading():
            return self._live.count

    @property
    def first(self) -> int:
        """The oldest live write id; `count` in an empty buffer."""
        with self._guard.reading():
            return self._live.first

    @property
    def total_mass(self) -> float:
        """The sum of the masses of the live transitions; in a uniform buffer each has 1.0."""
        with self._guard.reading():
            return self._guard.replica.sampler.total_mass(self._live)

    @property
    def path(self) -> Path:
        """The directory of the store."""
        return self._guard.path

    @property
    def schema(self) -> Schema | None:
        """The fields of a transition; None before the first push, unless given."""
        with self._guard.reading():
            return self._guard.replica.rows.schema

    # Inside

    @property
    def _live(self) -> LiveRange:
        return self._guard.replica.live

    def _check_live(self, write_ids: Ints) -> None:
        live = self._live
        dead = write_ids[~live.holds(write_ids)]
        if dead.size:
            raise NotLiveError(
                f"write id {dead[0]} is not live in {self.path}: "
                f"expected ids in [{live.first}, {live.count})"
            )

    def _structures_of(self, schema: Schema, fields: Iterable[str]) -> dict[str, Any]:
        """Return the structures of the fields and parts that a user named, by these names."""
        try:
            names = [] if isinstance(fields, str) else [*dict.fromkeys(fields)]
        except Exception:  # an object may raise anything when it is iterated
            names = []
        if not names:
            raise ArgumentError(f"fields must be a list of names (found {shown(fields)})")
        found = {name: schema.structure(name) for name in names}
        if unknown := [name for name in names if found[name] is None]:
            raise SchemaError(
                f"{self.path} has no field {shown(unknown[0])}: expected some of "
                f"{', '.join(schema.names)}"
            )
        return found
