"""DrawingBuffer: the methods of both kinds of buffers that draw transitions."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Generic, TypeVar

from diskreplay.aliases import Columns, Floats, Ints
from diskreplay.buffer.batch import Draw
from diskreplay.buffer.batch_arrays import (
    BatchArrays,
    Weights,
    batch_of,
    frame_arrays,
    reused_arrays,
)
from diskreplay.buffer.batch_form import BatchForm, checked_n_step
from diskreplay.buffer.batch_values import batch_values, checked_pad
from diskreplay.buffer.batches import Batches, BatchT
from diskreplay.buffer.n_step_rows import NStepRows
from diskreplay.buffer.reading_buffer import ReadingBuffer
from diskreplay.buffer.sequence_batches import check_sequence_names, sequence_batch
from diskreplay.buffer.sizing import check_memory_of
from diskreplay.episodes import Chains, Sequences, are_first
from diskreplay.errors import ArgumentError, DamageError, SampleError
from diskreplay.store import Snapshot
from diskreplay.validation import MAX_COUNT, true_or_false, whole_number
from diskreplay.wording import count_of, shown

_MAX_READERS = 256  # each is a Python process, of some 20 MB and 60 ms to start


ResultT = TypeVar("ResultT")


class DrawingBuffer(ReadingBuffer, Generic[BatchT]):
    """An open buffer: the methods that read transitions, and those that draw them."""

    def sample(
        self,
        batch_size: int,
        *,
        out: BatchT | None = None,
        pad: bool = False,
        n_step: int = 1,
        gamma: float = 0.99,
    ) -> BatchT:
        """Draw a batch."""
        n_steps = checked_n_step(n_step, gamma, self.capacity)
        form = BatchForm(pad=checked_pad(pad, out=out), n_step=n_steps)
        return self._sample_in(form, batch_size, out)

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
        n_step: int = 1,
        gamma: float = 0.99,
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
        n_step, gamma:  as of `sample`
        """
        n = whole_number("batch_size", batch_size, at_least=1, at_most=MAX_COUNT)
        ready = whole_number("prefetch", prefetch, at_least=0, at_most=MAX_COUNT)
        n_readers = whole_number("readers", readers, at_least=0, at_most=_MAX_READERS)
        is_reused = true_or_false("reuse", reuse)
        form = BatchForm(
            frames=true_or_false("frames", frames),
            pad=checked_pad(pad, reuse=is_reused),
            n_step=checked_n_step(n_step, gamma, self.capacity),
        )
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
            return Batches(self, n, ready, n_readers, is_reused, prepare, form)

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

    # Inside

    @property
    def _draws(self) -> int:
        """The number of the next draw."""
        with self._guard.reading():
            return self._guard.replica.draws

    def _take_back(self, n: int, number: int) -> None:
        """Count the last n draws no more, unless others came after them.

        number:  of the draw after them
        """
        with self._guard.reading():
            replica = self._guard.replica
            if replica.draws != number or replica.counts is not None:
                return
            if replica.draws_are_kept:
                self._guard.begin_change()
            replica.draws -= n
            if replica.draws_are_kept:
                self._guard.end_change()

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
        form: BatchForm,
        number: int,
        snapshot: Snapshot | None,
        *,
        beta: float | None = None,
        out: BatchT | None = None,
    ) -> BatchT:
        """Return the batch of a draw, in the arrays of `out` if it is given.

        beta:  the exponent of the weights, if the batch has some; None takes the annealed one
        """
        n = self._checked_size("batch_size", batch_size)
        schema: Any = self._guard.replica.rows.schema  # as there are transitions
        form = form.allowed_by(schema)
        if form.n_step is not None:
            what, way_out = f"{n} returns of n_step={form.n_step.steps}", "choose smaller numbers"
            check_memory_of(schema, n, what, way_out, form.n_step)
        arrays: BatchArrays | None = None
        if form.frames:
            arrays = frame_arrays(out, schema, n, form, are_weighted=self._is_weighted)
        elif out is not None:
            arrays = reused_arrays(out, schema, n, form, are_weighted=self._is_weighted)
        into = None if arrays is None else arrays.columns
        write_ids, probabilities, chains, columns = self._drawn(n, number, form, snapshot, into)
        weights, discounts = self._weights(probabilities, number, beta), None
        if form.n_step is not None and chains is not None:
            discounts = form.n_step.discounts(chains.lengths)
        if arrays is None or out is None:
            values, masks = batch_values(schema, columns, write_ids.shape, pad=form.pad)
            out = batch_of(schema, values, write_ids, weights, discounts, masks)
        else:
            arrays.fill(write_ids, weights, discounts)
        if weights is not None:
            vars(out)["largest_weight"] = self._largest_weight(probabilities, number, beta)
        return out

    def _drawn(
        self,
        n: int,
        number: int,
        form: BatchForm,
        snapshot: Snapshot | None,
        into: Columns | None,
    ) -> tuple[Ints, Floats, Chains | None, Columns]:
        """Return the write ids of a draw, the probability and the chain of each, and the rows.

        Where damaged records are skipped, the draw is repeated on its stream without them.

        into:  columns to write the rows into and to return
        """
        replica = self._guard.replica
        rows, committed = replica.rows, replica.committed
        live, generator = self._live, replica.stream.of_draw(number)
        while True:
            write_ids, probabilities = replica.sampler.draw(n, live, generator)
            chains = self._chains(write_ids, form)
            try:
                if chains is not None:
                    columns = NStepRows(rows, form).fetch(chains, committed, snapshot, into)
                elif form.frames and into is not None:
                    columns = rows.fetch_frames(write_ids, committed, snapshot, into)
                else:
                    columns = rows.fetch(write_ids, committed, snapshot, out=into)
                return write_ids, probabilities, chains, columns
            except DamageError:
                wanted = write_ids if chains is None else chains.write_ids.reshape(-1)
                if not self._left_out(wanted, snapshot):
                    raise

    def _sample_sequences(
        self, n: int, length: int, *, pad: bool, across: bool, beta: float | None = None
    ) -> Any:
        steps = whole_number("length", length, at_least=1)
        if steps > self.capacity:
            raise ArgumentError(
                f"length={steps} is more transitions than the buffer holds (its capacity is "
                f"{self.capacity}): choose a smaller one"
            )
        is_whole = not true_or_false("pad", pad)
        sequences = Sequences(steps, is_whole, true_or_false("across", across))
        with self._guard.reading() as snapshot:
            return self._counted(partial(self._new_sequences, n, sequences, beta), snapshot)

    def _new_sequences(
        self,
        n: int,
        sequences: Sequences,
        beta: float | None,
        number: int,
        snapshot: Snapshot | None,
    ) -> Any:
        """Return the sequences of a draw."""
        n = self._checked_size("n", n)
        replica = self._guard.replica
        schema: Any = replica.rows.schema  # as there are transitions
        check_sequence_names(schema)
        check_memory_of(schema, n * sequences.length, f"{n} sequences of {sequences.length}")
        live, links, generator = self._live, replica.links, replica.stream.of_draw(number)
        starts = partial(replica.sampler.draw, live=live, generator=generator)
        while True:
            write_ids, probabilities = sequences.draw(
                n, starts, links, live, generator, replica.damaged
            )
            there = write_ids[write_ids >= 0]
            try:
                columns = replica.fetch(there, snapshot)
                break
            except DamageError:
                if not self._left_out(there, snapshot):
                    raise
        weights = self._weights(probabilities, number, beta)
        firsts = are_first(links, write_ids, live)
        batch = sequence_batch(schema, columns, write_ids, firsts, weights)
        if weights is not None:
            vars(batch)["largest_weight"] = self._largest_weight(probabilities, number, beta)
        return batch

    def _chains(self, write_ids: Ints, form: BatchForm) -> Chains | None:
        """Return the transitions whose rewards are summed; None where a row is of one."""
        if form.n_step is None:
            return None
        replica = self._guard.replica
        steps, damaged = form.n_step.steps, replica.damaged
        return Chains.of(replica.links, write_ids, steps, self._live, damaged)

    def _left_out(self, write_ids: Ints, snapshot: Snapshot | None) -> bool:
        """Leave out damaged records, if the user wants it; return whether another draw may do.

        Not if all of them were left out before: draws that meet them again might never end.
        """
        skips = self._options.on_damage == "skip"
        return skips and self._guard.replica.leave_out_damaged(write_ids, snapshot)

    def _counted(
        self, draw: Callable[[int, Snapshot | None], ResultT], snapshot: Snapshot | None
    ) -> ResultT:
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

    def _sample_in(self, form: BatchForm, batch_size: int, out: BatchT | None) -> BatchT:
        """Draw a batch as `sample` does, in any form."""
        with self._guard.reading() as snapshot:
            return self._counted(partial(self._new_batch, batch_size, form, out=out), snapshot)

    def _draw_into(
        self, arrays: BatchArrays, form: BatchForm, batch_size: int, number: int
    ) -> Ints:
        """Write a draw into arrays, but for the rows that are committed; return their places."""
        n = self._checked_size("batch_size", batch_size)
        replica = self._guard.replica
        write_ids, probabilities = replica.draw_ids(n, number)
        weights, chains = self._weights(probabilities, number, None), self._chains(write_ids, form)
        if form.n_step is None or chains is None or arrays.chains is None:
            arrays.fill(write_ids, weights)
            return replica.rows.take_uncommitted(arrays.columns, write_ids, replica.committed)
        arrays.fill(write_ids, weights, form.n_step.discounts(chains.lengths))
        arrays.chains.write_ids[...], arrays.chains.lengths[...] = chains
        rows = NStepRows(replica.rows, form)
        return rows.take_uncommitted(arrays.columns, chains, replica.committed)

    _is_weighted = False  # True where batches have importance weights

    def _weights(self, probabilities: Floats, number: int, beta: float | None) -> Weights | None:
        """Return the importance weights of a draw; None where batches have none."""
        return None

    def _largest_weight(self, probabilities: Floats, number: int, beta: float | None) -> float:
        """Return the number that the weights of a draw were divided by."""
        return 1.0
