"""Batches: an endless iterator over batches; a thread may draw them ahead of their use."""

from __future__ import annotations

import contextlib
import threading
import weakref
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from diskreplay.buffer.guard import Guard
from diskreplay.buffer.prefetch import PrefetchQueue
from diskreplay.errors import ArgumentError, ClosedError
from diskreplay.forks import process
from diskreplay.store import Snapshot, start_thread

if TYPE_CHECKING:
    from typing_extensions import Self

BatchT = TypeVar("BatchT")
_PATIENCE = 0.05  # seconds
_AGAIN = "call batches() again"


class Source(Protocol):
    """The buffer that batches are drawn from."""

    _guard: Guard

    def sample(self, batch_size: int) -> Any:
        """Draw a batch."""

    def _new_batch(self, batch_size: int, number: int, snapshot: Snapshot | None) -> Any: ...


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

    def __init__(self, buffer: Source, batch_size: int, prefetch: int) -> None:
        self._queue: PrefetchQueue | None = None
        self._closed = False
        self._buffer = buffer
        self._batch_size = batch_size
        self._process = process()
        if prefetch:
            self._queue = buffer._guard.replica.prefetch_queues.open(prefetch)

    def __iter__(self) -> Self:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Return the arguments of a copy; raise ArgumentError where a thread draws ahead."""
        if self._queue is not None:
            raise ArgumentError(
                "batches that are drawn ahead can be neither pickled nor copied: pickle the "
                "buffer, and call batches() on it in the other process"
            )
        return type(self), (self._buffer, self._batch_size, 0)

    def __next__(self) -> BatchT:
        """Return the next batch. Raises the errors of `sample`, and ClosedError after `close`."""
        if self._closed:
            raise ClosedError(f"these batches are closed: {_AGAIN}")
        queue, guard = self._queue, self._buffer._guard
        if queue is None:
            return self._sample()
        if self._process is not process():
            raise ClosedError(
                "these batches are drawn ahead in the process that this one was forked from: "
                f"{_AGAIN} in the child"
            )
        guard.refuse_nesting()
        self._start(queue)
        while True:
            queue.wait_for_batch()
            with guard.lock:
                guard.check_open()
                batch: BatchT | None = queue.find(guard.replica.draws)
                if batch is not None:
                    guard.count_draw()
                    queue.drop_first()
                    return batch
                if queue.is_stopped:
                    raise ClosedError(f"these batches are closed: {_AGAIN}")
                if not queue.is_stuck:  # another call took the batch, or dropped it
                    continue
            try:
                return self._sample()
            finally:
                queue.set_stuck(False)

    def close(self) -> None:
        """End the thread and drop its batches; the buffer stays open.

        The next draw of the buffer gives the batch that would have come next here. A second call
        does nothing.
        """
        if not self._closed:
            self._buffer._guard.refuse_nesting()
            if self._queue is not None and self._process is process():
                self._queue.stop()
                self._queue.join()
            self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __del__(self) -> None:
        # The collector may call this on any thread, at any line, also on a thread that the drawing
        # thread waits for. So this does not wait.
        if not getattr(self, "_closed", True) and self._queue and self._process is process():
            self._queue.stop()

    def _sample(self) -> BatchT:
        batch: BatchT = self._buffer.sample(self._batch_size)
        return batch

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
            queue.add(number, buffer._new_batch(batch_size, number, snapshot))
        return
    # The user's own draw raises the error, if it still occurs then.
    queue.set_stuck(True)
