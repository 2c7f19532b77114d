"""Batches: an endless iterator of batches, which a thread may draw ahead of their use."""

from __future__ import annotations

import contextlib
import threading
import weakref
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from diskreplay.buffer.prefetch import Lane
from diskreplay.errors import ArgumentError, ClosedError
from diskreplay.forks import process
from diskreplay.store import started

if TYPE_CHECKING:
    from typing_extensions import Self

BatchT = TypeVar("BatchT")
_PATIENCE = 0.05  # seconds


class Source(Protocol):
    """What batches need of a buffer."""

    _lock: Any
    _closed: bool
    _contents: Any

    def sample(self, batch_size: int) -> Any:
        """Draw a batch."""

    def _new_batch(self, batch_size: int, view: Any) -> Any: ...

    def _refuse_nesting(self) -> None: ...

    def _check_open(self) -> None: ...

    def _touch(self) -> None: ...

    def _settle(self) -> None: ...

    def _take_back_dropped(self) -> None: ...


class Batches(Generic[BatchT]):
    """What `sample` returns, again and again, as the `batches` method of a buffer gives it.

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
            self._lane = buffer._contents.ahead.open(prefetch)

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
            raise ClosedError("these batches are closed: call batches() again")
        if self._lane is None:
            return self._sample()
        if self._process is not process():
            raise ClosedError(
                "these batches are drawn ahead in the process that this one was forked from: "
                "call batches() again in the child"
            )
        self._buffer._refuse_nesting()
        self._start(self._lane)
        while True:
            self._lane.wait_for_batch()
            with self._buffer._lock:
                self._buffer._check_open()
                if self._lane.ready:
                    return self._given(self._lane)
                if self._lane.is_stopped:
                    raise ClosedError("these batches are closed: call batches() again")
                if not self._lane.is_stuck:  # others took it, or it was taken back
                    continue
            try:
                return self._sample()
            finally:
                self._lane.stick(False)

    def close(self) -> None:
        """End the thread, and give back the draws of the batches that were not asked for.

        The next batch of the buffer is then the one that would have come next here, if nobody else
        has drawn meanwhile. Twice is once; the buffer stays open.
        """
        if not self._closed:
            self._buffer._refuse_nesting()
            if lane := self._stop():
                with self._buffer._lock:
                    self._give_back(lane)
            self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __del__(self) -> None:
        # The collector may call this on any thread, at any line, also where another one waits for
        # it. So nobody is waited for here; the buffer's next call gives the draws back.
        if not getattr(self, "_closed", True) and self._lane and self._process is process():
            self._lane.stop()
            self._buffer._contents.ahead.dropped.append(self._lane)

    # Inside

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
            lane.thread = started(thread)  # not before it can be joined

    def _given(self, lane: Lane) -> BatchT:
        """Give the oldest batch away, which changes what a commit says of the random stream."""
        buffer = self._buffer
        if buffer._contents.keeps_draws:
            buffer._touch()
        batch: BatchT = lane.take().batch
        buffer._settle()
        return batch

    def _stop(self) -> Lane | None:
        """End the thread; return the lane, where there is one and it is this process's."""
        lane = self._lane if self._process is process() else None
        if lane is not None:
            lane.stop()
            lane.join()
        return lane

    def _give_back(self, lane: Lane) -> None:
        if not self._buffer._closed:
            self._buffer._contents.ahead.dropped.append(lane)
            self._buffer._take_back_dropped()
            self._buffer._settle()


def _draw_ahead(lane: Lane, buffer_of: weakref.ref[Source], batch_size: int) -> None:
    """Draw batches as long as there is room. Holds the buffer only while it draws."""
    while lane.wait_for_room():
        buffer = buffer_of()
        if buffer is None:
            return
        # Not to wait for ever: who closes waits for this thread, and holds the lock.
        if buffer._lock.acquire(timeout=_PATIENCE):
            try:
                if lane.has_room and not buffer._closed:
                    _draw_one(lane, buffer, batch_size)
            finally:
                buffer._lock.release()
        del buffer


def _draw_one(lane: Lane, buffer: Source, batch_size: int) -> None:
    contents = buffer._contents
    with contextlib.suppress(Exception):
        with contents.view() as view:
            contents.draw_ahead(lane, lambda: buffer._new_batch(batch_size, view))
        return
    # The user's own draw meets the error, if it is still there by then.
    lane.stick(True)
