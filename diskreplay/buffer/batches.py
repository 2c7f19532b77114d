"""Batches: an endless iterator over batches, which may be drawn ahead of their use."""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from diskreplay.aliases import Ints
from diskreplay.buffer.batch_arrays import BatchArrays, copied
from diskreplay.buffer.batch_form import BatchForm
from diskreplay.buffer.guard import Guard
from diskreplay.buffer.prefetch import PrefetchQueue, Ready
from diskreplay.buffer.reader_queue import Ahead, ReaderQueue
from diskreplay.buffer.sizing import check_batches_ahead
from diskreplay.errors import ArgumentError, ClosedError
from diskreplay.forks import process
from diskreplay.store import Snapshot, start_thread

if TYPE_CHECKING:
    from typing_extensions import Self

BatchT = TypeVar("BatchT")
_PATIENCE = 0.05  # seconds
_AGAIN = "call batches() again"
_CLOSED = f"these batches are closed: {_AGAIN}"


class Source(Protocol):
    """The buffer that batches are drawn from."""

    _guard: Guard
    _is_weighted: bool

    @property
    def sample(self) -> Callable[..., Any]:
        """The method that draws a batch."""

    def _new_batch(
        self,
        batch_size: int,
        form: BatchForm,
        number: int,
        snapshot: Snapshot | None,
        *,
        out: Any = None,
    ) -> Any: ...

    def _sample_in(self, form: BatchForm, batch_size: int, out: Any) -> Any: ...

    def _draw_into(
        self, arrays: BatchArrays, form: BatchForm, batch_size: int, number: int
    ) -> Ints: ...


class Batches(Generic[BatchT]):
    """The endless iterator over batches that the `batches` method of a buffer returns.

    >>> buffer = ReplayBuffer(capacity=100)
    >>> ids = buffer.extend(np.zeros((50, 2)), [0] * 50, [1.0] * 50, np.zeros((50, 2)), [0] * 50)
    >>> with buffer.batches(32, prefetch=2) as batches:
    ...     for step, batch in enumerate(batches):
    ...         if step == 9:
    ...             break
    >>> batch.states.shape
    (32, 2)
    """

    def __init__(
        self,
        buffer: Source,
        batch_size: int,
        prefetch: int,
        readers: int,
        reuse: bool,
        prepare: Callable[[Any], Any] | None,
        form: BatchForm,
    ) -> None:
        self._drawn_ahead: PrefetchQueue | None = None
        self._read_ahead: ReaderQueue | None = None
        self._closed = False
        self._buffer = buffer
        self._batch_size = batch_size
        self._prefetch = prefetch
        self._readers = readers
        self._reuse = reuse
        self._prepare = prepare
        self._form = form
        self._last: BatchT | None = None  # the batch of prefetch=0 whose arrays are used again
        self._process = process()
        self._memory_is_checked = not prefetch
        self._check_memory()
        if prefetch and not readers:
            self._drawn_ahead = PrefetchQueue(prefetch, form, reuse=reuse)
            buffer._guard.replica.prefetch_queues.add(self._drawn_ahead)

    def __iter__(self) -> Self:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Return the arguments of a copy; raise ArgumentError where batches are drawn ahead."""
        if self._prefetch:
            raise ArgumentError(
                "batches that are drawn ahead can be neither pickled nor copied: pickle the "
                "buffer, and call batches() on it in the other process"
            )
        settings = self._reuse, self._prepare, self._form
        return type(self), (self._buffer, self._batch_size, 0, 0, *settings)

    def __next__(self) -> BatchT:
        """Return the next batch. Raises the errors of `sample`, and ClosedError after `close`."""
        if self._closed:
            raise ClosedError(_CLOSED)
        queue = self._drawn_ahead
        if not self._prefetch:
            return self._sample()
        if self._process is not process():
            raise ClosedError(
                "these batches are drawn ahead in the process that this one was forked from: "
                f"{_AGAIN} in the child"
            )
        self._buffer._guard.refuse_nesting()
        if not self._memory_is_checked:
            self._check_memory()
        return self._next_read() if queue is None else self._next_drawn(queue)

    def _check_memory(self) -> None:
        """Raise ArgumentError for batches that cannot be drawn ahead, once there is a schema."""
        schema = self._buffer._guard.replica.rows.schema
        if schema is not None and not self._memory_is_checked:
            if schema.varying and self._readers:
                raise ArgumentError(
                    f"readers={self._readers} read rows of one size into shared memory, and field "
                    f"{schema.names[schema.varying[0]]!r} varies in size: leave readers= away, so "
                    "that a thread reads them"
                )
            n_step = self._form.n_step
            check_batches_ahead(schema, self._batch_size, self._prefetch, n_step)
            self._memory_is_checked = True

    def _next_drawn(self, queue: PrefetchQueue) -> BatchT:
        """Return the next batch of the thread."""
        guard = self._buffer._guard
        self._start(queue)
        while True:
            queue.wait_for_batch()
            with guard.lock:
                guard.check_open()
                ready = queue.find(guard.replica.draws)
                if ready is not None and not self._is_current(ready):
                    queue.drop()
                    continue
                if ready is not None:
                    return self._given(ready, queue)
                if queue.is_stopped:
                    raise ClosedError(_CLOSED)
                if not queue.is_stuck:  # another call took the batch, or dropped it
                    continue
            try:
                return self._sample()
            finally:
                queue.set_stuck(False)

    def _next_read(self) -> BatchT:
        """Return the next batch of the readers."""
        guard = self._buffer._guard
        with guard.lock:
            guard.check_open()
            if self._closed:  # by another thread, while this one waited for the lock
                raise ClosedError(_CLOSED)
            with guard.replica.view():
                queue = self._reader_queue()
                if queue is not None:
                    queue.fill(guard.replica.draws, self._draw_into)
            ahead = queue.wait_for_first() if queue is not None else None
            if ahead is not None and queue is not None:
                if self._is_current(ahead):
                    return self._given(ahead, queue)
                queue.drop()
        return self._sample()

    def _is_current(self, ready: Ready | Ahead) -> bool:
        """Return whether no other call has drawn under the number of a batch, or an earlier one.

        That matters to a sampler that counts draws: other calls may have taken those of the batch.
        """
        return self._buffer._guard.replica.is_current(ready.number, ready.batch.indices)

    def _given(self, ready: Ready | Ahead, queue: PrefetchQueue | ReaderQueue) -> BatchT:
        """Return a batch that is ready, and count it; prepare all that are ready."""
        given = self._prepared(ready)
        if self._prepare is not None:
            for other in queue.ready:
                # An error belongs to the other batch: it is raised when that is requested.
                with contextlib.suppress(Exception):
                    self._prepared(other)
        self._buffer._guard.count_draw()  # at last: an interrupt of `prepare` loses no batch
        queue.give()
        return given

    def _prepared(self, ready: Ready | Ahead) -> BatchT:
        """Return the batch of a draw, prepared once, or a copy of it where nothing is reused."""
        if ready.prepared is None:
            batch = ready.batch
            if self._readers and not self._reuse:
                batch = copied(batch)
            ready.prepared = (self._prepared_by_user(batch),)
        prepared: BatchT = ready.prepared[0]
        return prepared

    def _prepared_by_user(self, batch: Any) -> Any:
        if self._prepare is None:
            return batch
        with self._buffer._guard.preparing():
            return self._prepare(batch)

    def close(self) -> None:
        """End the thread or the readers, and drop their batches; the buffer stays open.

        The next draw of the buffer gives the batch that would have come next here. A second call
        does nothing.
        """
        if not self._closed:
            guard = self._buffer._guard
            guard.refuse_nesting()
            if self._process is process():
                if self._drawn_ahead is not None:
                    self._drawn_ahead.stop()
                    self._drawn_ahead.join()
                if self._readers:
                    with guard.lock:  # another thread may be in `next`
                        if self._read_ahead is not None:
                            self._read_ahead.stop()
                            self._read_ahead.join()
                        self._closed = True
            self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __del__(self) -> None:
        # The collector may call this on any thread, at any line, also on a thread that the drawing
        # thread waits for. So this does not wait.
        if not getattr(self, "_closed", True) and self._process is process():
            if self._drawn_ahead is not None:
                self._drawn_ahead.stop()
            if self._read_ahead is not None:
                self._read_ahead.stop_anywhere()

    def _sample(self) -> BatchT:
        """Return the batch of the next draw, drawn now."""
        if self._form.frames:
            batch = self._buffer._sample_in(self._form, self._batch_size, self._last)
        else:
            more = self._form.arguments()  # no others: a subclass may know none of them
            batch = self._buffer.sample(self._batch_size, out=self._last, **more)
        if self._reuse and not self._prefetch:
            self._last = batch
        prepared: BatchT = self._prepared_by_user(batch)
        return prepared

    def _reader_queue(self) -> ReaderQueue | None:
        """Return the queue of the readers; None as long as there is no schema."""
        guard = self._buffer._guard
        if self._read_ahead is None and (schema := guard.replica.rows.schema) is not None:
            self._read_ahead = ReaderQueue(
                guard.replica.store,
                schema,
                self._batch_size,
                self._prefetch,
                self._readers,
                self._form,
                are_weighted=self._buffer._is_weighted,
            )
        if self._read_ahead is not None:
            guard.replica.prefetch_queues.add(self._read_ahead)  # an interrupt may have come before
        return self._read_ahead

    def _draw_into(self, arrays: BatchArrays, number: int) -> Ints:
        return self._buffer._draw_into(arrays, self._form, self._batch_size, number)

    def _start(self, queue: PrefetchQueue) -> None:
        if queue.thread is None:
            thread = threading.Thread(
                target=_draw_ahead,
                args=(queue, weakref.ref(self._buffer), self._batch_size),
                name="diskreplay",
                daemon=True,
            )
            queue.thread = start_thread(thread)  # set once the thread can be joined


def _draw_ahead(queue: PrefetchQueue, buffer_of: weakref.ref[Source], batch_size: int) -> None:
    """Draw batches while there is room; keep the buffer alive only during a draw."""
    while queue.wait_for_room():
        buffer = buffer_of()
        if buffer is None:
            return
        guard = buffer._guard
        # A timeout, since `close` waits for this thread and holds the lock.
        if guard.lock.acquire(timeout=_PATIENCE):
            try:
                if queue.has_room and not guard.closed:
                    _draw_one(queue, buffer, batch_size)
            finally:
                guard.lock.release()
        del buffer, guard


def _draw_one(queue: PrefetchQueue, buffer: Source, batch_size: int) -> None:
    replica = buffer._guard.replica
    with contextlib.suppress(Exception):
        with replica.view() as snapshot:
            number = queue.next_number(replica.draws)
            schema = replica.rows.schema
            out = None
            if schema is not None:
                out = queue.arrays_for_next(schema, batch_size, are_weighted=buffer._is_weighted)
            batch = buffer._new_batch(batch_size, queue.form, number, snapshot, out=out)
            queue.add(number, batch)
        return
    # The user's own draw raises the error, if it still occurs then.
    queue.set_stuck(True)
