"""ReadingBuffer: the methods of both kinds of buffers that draw and read transitions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Generic, overload

import numpy as np
from numpy.typing import ArrayLike

from diskreplay.aliases import Floats, Ints
from diskreplay.buffer.assembly import Options
from diskreplay.buffer.batch import Batch, Draw, Experience, with_extra
from diskreplay.buffer.batch_arrays import (
    BatchArrays,
    Weights,
    batch_of,
    frame_arrays,
    reused_arrays,
)
from diskreplay.buffer.batch_values import (
    batch_values,
    check_mask_name,
    checked_pad,
    mask_of,
    some_values,
)
from diskreplay.buffer.batches import Batches, BatchT
from diskreplay.buffer.guard import Guard
from diskreplay.errors import ArgumentError, DamageError, NotLiveError, SampleError, SchemaError
from diskreplay.live_range import LiveRange
from diskreplay.schema import Schema, leaves, mapped
from diskreplay.store import Snapshot
from diskreplay.validation import MAX_COUNT, true_or_false, whole_number, whole_numbers
from diskreplay.wording import count_of, shown

_MAX_READERS = 256  # each is a Python process, of some 20 MB and 60 ms to start
_ROWS_READ = 256  # in one step of an iteration


class ReadingBuffer(Generic[BatchT]):
    """An open buffer: the methods that draw and read."""

    _guard: Guard
    _options: Options

    def sample(self, batch_size: int, *, out: BatchT | None = None, pad: bool = False) -> BatchT:
        """Draw a batch."""
        draw = partial(self._new_batch, batch_size, out=out, pad=checked_pad(pad, out=out))
        with self._guard.reading() as snapshot:
            return self._counted(draw, snapshot)

    def batches(
        self,
        batch_size: int,
        prefetch: int = 0,
        readers: int = 0,
        *,
        reuse: bool = False,
        prepare: Callable[[Any], Any] | None = None,
        frames: bool = False,
        pad: bool = False,
    ) -> Batches[BatchT]:
        """Return an endless iterator over batches as of `sample`; use it in a `with` block.

        With prefetch=0 each batch is drawn when it is requested. With prefetch=n a thread keeps up
        to n batches ready, in memory: the same batches in the same order, as long as nothing is
        pushed or updated. A batch that was drawn ahead keeps the contents, priorities, weights and
        beta of the moment of its draw, so a push or an update takes effect at most n batches later.
        A batch counts when it is returned, so that a resumed run gets the batches that the killed
        run would have got. `clear` and `load` drop the batches drawn before. The iterator raises
        the errors of `sample`, and ClosedError when the buffer is closed. Raises ArgumentError for
        a prefetch that would take more memory than the machine has.

        With readers, processes read the rows instead of the thread: for large rows, such as images,
        and several cores, since no thread then competes with the training loop for the
        interpreter. Rows of a few kB, or rows in the window, are read as fast without. The call
        that returns a batch draws the one that comes `prefetch` batches later, so pushes and
        updates take effect exactly that much later. Batches lie in shared memory, `prefetch + 1` of
        them; `stats()["memory_bytes"]` counts it. A reader that dies is replaced, and the batches
        are the same. Raises StorageError where readers cannot run.

        >>> buffer = PrioritizedReplayBuffer(capacity=100)
        >>> ids = buffer.extend([[0.0]] * 9, [0] * 9, [1.0] * 9, [[0.0]] * 9, [False] * 9)
        >>> with buffer.batches(4, prefetch=2) as batches:
        ...     for step, batch in zip(range(10), batches):
        ...         applied = buffer.update_priorities(batch.indices, [0.5] * 4)
        >>> buffer.frame
        10

        prefetch:  the number of batches that are drawn ahead
        readers:   the number of processes that read the rows, 0 for the thread; they need a
                   prefetch of at least 1; at most 256
        reuse:     whether the arrays of a batch, `indices` too, are used again once the next batch
                   is requested: spares the time for fresh memory, and with readers a copy
        prepare:   a function whose result is returned instead of the batch. It is called in the
                   request of a batch, with that batch and all others that are ready, in order and
                   each once, so it may begin a copy to a device while an earlier batch is in use.
                   Its error is raised where its batch would be returned, and the next request tries
                   again with the same batch, which the failed call must not have changed. It must
                   not call the buffer
        frames:    whether fields in the log come as Frames, the distinct frames of the batch, in
                   place of whole arrays: for a copy to a device, where they are put together.
                   Where values vary in size they stay whole
        pad:       as of `sample`; not together with reuse
        """
        n = whole_number("batch_size", batch_size, at_least=1, at_most=MAX_COUNT)
        ready = whole_number("prefetch", prefetch, at_least=0, at_most=MAX_COUNT)
        n_readers = whole_number("readers", readers, at_least=0, at_most=_MAX_READERS)
        is_reused = true_or_false("reuse", reuse)
        has_frames = true_or_false("frames", frames)
        is_padded = checked_pad(pad, reuse=is_reused)
        if prepare is not None and not callable(prepare):
            raise ArgumentError(
                f"prepare must be a function that takes a batch, or None (found {shown(prepare)})"
            )
        if n_readers and not ready:
            raise ArgumentError(
                f"readers={n_readers} needs prefetch of at least 1 (found prefetch=0): the readers "
                "read the batches that are drawn ahead"
            )
        self._guard.refuse_nesting()
        with self._guard.lock:
            self._guard.check_open()
            options = is_reused, prepare, has_frames, is_padded
            return Batches(self, n, ready, n_readers, *options)

    def draw(self, n: int) -> Draw:
        """Draw transitions as `sample` does, and return their write ids instead of the transitions.

        The call counts as a draw: the write ids are those of the batch that `sample(n)` would have
        returned, the next call draws another batch, beta advances, and the next commit saves both.
        No record is read, so on_damage="skip" leaves out only the damaged records that an earlier
        `sample` has met. Raises SampleError as `sample` does.

        >>> buffer = ReplayBuffer(capacity=100)
        >>> ids = buffer.extend([[0.0]] * 8, [0] * 8, [1.0] * 8, [[0.0]] * 8, [False] * 8)
        >>> indices, probabilities = buffer.draw(4)
        >>> probabilities.tolist(), buffer.get(indices, fields=["reward"])["reward"].tolist()
        ([0.125, 0.125, 0.125, 0.125], [1.0, 1.0, 1.0, 1.0])

        Returns a Draw: `indices`, int64 (n,), and `probabilities`, float64 (n,).
        """
        with self._guard.reading():
            n = self._checked_size("n", n)
            replica = self._guard.replica
            drawn = replica.draw_ids(n, replica.draws)
            self._guard.count_draw()
            return Draw(*drawn)

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

    def __len__(self) -> int:
        with self._guard.reading():
            return self._live.size

    def is_ready(self, n: int) -> bool:
        """Return whether the buffer holds at least n transitions.

        >>> ReplayBuffer(capacity=10).is_ready(1)
        False
        """
        return len(self) >= whole_number("n", n, at_least=0)

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

    def _checked_size(self, name: str, n: int) -> int:
        """Return a number of transitions to draw as an int; raise SampleError for too many."""
        n = whole_number(name, n, at_least=1)
        size = self._live.size
        if n > size:
            raise SampleError(
                f"cannot draw {count_of(n, 'transition')}: {self.path} holds "
                f"{size}; wait until is_ready({n})"
            )
        return n

    def _new_batch(
        self,
        batch_size: int,
        number: int,
        snapshot: Snapshot | None,
        *,
        beta: float | None = None,
        out: BatchT | None = None,
        frames: bool = False,
        pad: bool = False,
    ) -> BatchT:
        """Return the batch of a draw, in the arrays of `out` if it is given.

        beta:    the exponent of the weights, if the batch has some; None takes the annealed one
        frames:  whether fields in the log come as Frames, as in `out`
        """
        n = self._checked_size("batch_size", batch_size)
        replica = self._guard.replica
        schema: Any = replica.rows.schema  # as there are transitions
        arrays, frames = None, frames and schema.has_frames
        if frames:
            arrays = frame_arrays(out, schema, n, are_weighted=self._is_weighted)
        elif out is not None:
            arrays = reused_arrays(out, schema, n, are_weighted=self._is_weighted)
        write_ids, probabilities, columns = replica.draw(
            n,
            number,
            snapshot,
            skip_damaged=self._options.on_damage == "skip",
            out=None if arrays is None else arrays.columns,
            frames=frames,
        )
        weights = self._weights(probabilities, number, beta)
        if arrays is None or out is None:
            values, masks = batch_values(schema, columns, write_ids.shape, pad=pad)
            out = batch_of(schema, values, write_ids, weights, masks)
        else:
            arrays.fill(write_ids, weights)
        if weights is not None:
            vars(out)["largest_weight"] = self._largest_weight(probabilities, number, beta)
        return out

    def _counted(
        self, draw: Callable[[int, Snapshot | None], BatchT], snapshot: Snapshot | None
    ) -> BatchT:
        """Return the batch of the next draw, and count it.

        A draw that meets a damaged record counts, too, or each later call would meet it again.
        """
        replica = self._guard.replica
        try:
            batch = draw(replica.draws, snapshot)
        except DamageError:
            self._guard.skip_draw()
            raise
        self._guard.count_draw()
        return batch

    def _sample_frames(self, batch_size: int, out: BatchT | None, *, pad: bool) -> BatchT:
        """Draw a batch as `sample` does, with Frames."""
        with self._guard.reading() as snapshot:
            draw = partial(self._new_batch, batch_size, out=out, frames=True, pad=pad)
            return self._counted(draw, snapshot)

    def _draw_into(self, arrays: BatchArrays, batch_size: int, number: int) -> Ints:
        """Write a draw into arrays, but for the rows that are committed; return their places."""
        n = self._checked_size("batch_size", batch_size)
        replica = self._guard.replica
        write_ids, probabilities = replica.draw_ids(n, number)
        arrays.fill(write_ids, self._weights(probabilities, number, None))
        return replica.rows.take_uncommitted(arrays.columns, write_ids, replica.committed)

    _is_weighted = False  # True where batches have importance weights

    def _weights(self, probabilities: Floats, number: int, beta: float | None) -> Weights | None:
        """Return the importance weights of a draw; None where batches have none."""
        return None

    def _largest_weight(self, probabilities: Floats, number: int, beta: float | None) -> float:
        """Return the number that the weights of a draw were divided by."""
        return 1.0

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
