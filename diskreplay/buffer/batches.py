"""Batches: an endless iterator of batches, which a thread may draw ahead of their use."""

from __future__ import annotations

import contextlib
import threading
import weakref
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from diskreplay.buffer.guard import Guard
from diskreplay.buffer.prefetch import Lane
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
    """The batches of `sample`, again and again, as the `batches` method of a buffer returns them.

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
        self._lane: Lane | None = None
        self._closed = False
        self._buffer = buffer
        self._batch_size = batch_size
        self._process = process()
        if prefetch:
            self._lane = buffer._guard.replica.lanes.open(prefetch)

    def __iter__(self) -> Self:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle and copy as batches of the same size, but none that a thread draws ahead."""
        if self._lane is not None:
            raise ArgumentError(
                "batches that are drawn ahead can be neither pickled nor copied: call batches() "
                "again, where another process needs some on the buffer that is pickled"
            )
        return type(self), (self._buffer, self._batch_size, 0)

    def __next__(self) -> BatchT:
        """Return the next batch. Raises what `sample` raises, and ClosedError after `close`."""
        if self._closed:
            raise ClosedError(f"these batches are closed: {_AGAIN}")
        lane, guard = self._lane, self._buffer._guard
        if lane is None:
            return self._sample()
        if self._process is not process():
            raise ClosedError(
                "these batches are drawn ahead in the process that this one was forked from: "
                f"{_AGAIN} in the child"
            )
        guard.refuse_nesting()
        self._start(lane)
        while True:
            lane.wait_for_batch()
            with guard.lock:
                guard.check_open()
                batch: BatchT | None = lane.find(guard.replica.draws)
                if batch is not None:
                    guard.count_draw()
                    lane.drop_first()
                    return batch
                if lane.is_stopped:
                    raise ClosedError(f"these batches are closed: {_AGAIN}")
                if not lane.is_stuck:  # others took it, or it was dropped
                    continue
            try:
                return self._sample()
            finally:
                lane.set_stuck(False)

    def close(self) -> None:
        """End the thread. Batches that were not asked for count for nothing.

        The next batch of the buffer is the one that would have come next here. Twice is once; the
        buffer stays open.
        """
        if not self._closed:
            self._buffer._guard.refuse_nesting()
            if self._lane is not None and self._process is process():
                self._lane.stop()
                self._lane.join()
            self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __del__(self) -> None:
        # The collector may call this on any thread, at any line, also where another one waits for
        # it. So nobody is waited for here.
        if not getattr(self, "_closed", True) and self._lane and self._process is process():
            self._lane.stop()

    def _sample(self) -> BatchT:
        batch: BatchT = self._buffer.sample(self._batch_size)
        return batch

    def _start(self, lane: Lane) -> None:
        if lane.thread is None:
            thread = threading.Thread(
                target=_draw_ahead,
                args=(lane, weakref.ref(self._buffer), self._batch_size),
                name="diskreplay",
                daemon=True,
            )
            lane.thread = start_thread(thread)  # not before it can be joined


def _draw_ahead(lane: Lane, buffer_of: weakref.ref[Source], batch_size: int) -> None:
    """Draw batches as long as there is room. Holds the buffer only while it draws."""
    while lane.wait_for_room():
        buffer = buffer_of()
        if buffer is None:
            return
        guard = buffer._guard
        # Not to wait for ever: a thread that closes the buffer waits for this one with the lock.
        if guard.lock.acquire(timeout=_PATIENCE):
            try:
                if lane.has_room and not guard.closed:
                    _draw_one(lane, buffer, batch_size)
            finally:
                guard.lock.release()
        del buffer, guard


def _draw_one(lane: Lane, buffer: Source, batch_size: int) -> None:
    replica = buffer._guard.replica
    with contextlib.suppress(Exception):
        with replica.view() as snapshot:
            number = lane.next_number(replica.draws)
            lane.add(number, buffer._new_batch(batch_size, number, snapshot))
        return
    # The user's own draw meets the error, if it is still there by then.
    lane.set_stuck(True)
