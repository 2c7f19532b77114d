"""MixedBatches: an endless iterator over the batches of a mixture, which may be drawn ahead.

A thread draws by calling `sample`, so a batch counts when it is drawn. The batches of one buffer
count when they are returned, which takes the inside of the buffer; a mixture uses its public names.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from diskreplay.bell import Bell
from diskreplay.buffer import check_batches_ahead
from diskreplay.errors import ArgumentError, ClosedError, StorageError
from diskreplay.forks import process

if TYPE_CHECKING:
    from typing_extensions import Self

_CLOSED = "these batches are closed: call batches() again"


class Drawable(Protocol):
    """The mixture that batches are drawn from."""

    def sample(self, *arguments: Any, **options: Any) -> Any:
        """Draw a batch."""

    @property
    def schema(self) -> Any:
        """The fields of a transition; None before they are known."""


@dataclass
class Ready:
    """A batch that was drawn ahead, and the result of preparing it, in a tuple, once it is."""

    batch: Any
    prepared: tuple[Any] | None = None


class DrawnAhead:
    """At most `room` batches that are ready, in order, and batches whose arrays are free."""

    def __init__(self, room: int) -> None:
        self.ready: deque[Ready] = deque()
        self.free: deque[Any] = deque()
        self.is_stopped = False
        self.is_stuck = False  # a draw failed, and is left to the user
        self.for_thread, self.for_user = Bell(), Bell()
        self._room = room

    def has_room(self) -> bool:
        """Return whether another batch may be drawn ahead."""
        return not self.is_stuck and len(self.ready) < self._room

    def stop(self) -> None:
        """Tell the thread to end."""
        self.is_stopped = True
        self.for_thread.ring()
        self.for_user.ring()


class MixedBatches:
    """The endless iterator over batches that `Mixture.batches` returns."""

    def __init__(
        self,
        mixture: Drawable,
        batch_size: int,
        prefetch: int,
        *,
        reuse: bool,
        prepare: Callable[[Any], Any] | None,
        options: dict[str, Any],
    ) -> None:
        self._mixture = mixture
        self._batch_size, self._prefetch = batch_size, prefetch
        self._reuse, self._prepare, self._options = reuse, prepare, options
        self._lent: Any = None  # the batch that the user has
        self._ahead = DrawnAhead(prefetch) if prefetch else None
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()  # of the calls of next()
        self._closed = False
        self._process = process()
        self._memory_is_checked = not prefetch
        self._check_memory()

    def __iter__(self) -> Self:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Raise ArgumentError: the place in a stream belongs to one process."""
        raise ArgumentError(
            "the batches of a mixture can be neither pickled nor copied: pickle the mixture, and "
            "call batches() on it in the other process"
        )

    def __next__(self) -> Any:
        """Return the next batch. Raises the errors of `sample`, and ClosedError after `close`."""
        if self._closed:
            raise ClosedError(_CLOSED)
        ahead = self._ahead
        if ahead is None:
            out = self._lent if self._reuse else None
            self._lent = self._mixture.sample(self._batch_size, out=out, **self._options)
            return self._prepared_by_user(self._lent)
        if self._process is not process():
            raise ClosedError(
                "these batches are drawn ahead in the process that this one was forked from: call "
                "batches() again in the child"
            )
        self._check_memory()
        with self._lock:
            self._start(ahead)
            ahead.for_user.wait_until(lambda: ahead.ready or ahead.is_stuck or ahead.is_stopped)
            if ahead.is_stopped:
                raise ClosedError(_CLOSED)
            if not ahead.ready:  # the draw here raises the error, if it still occurs
                batch = self._mixture.sample(self._batch_size, **self._options)
                ahead.ready.append(Ready(batch))
                ahead.is_stuck = False
            found = self._prepared(ahead.ready[0])
            for other in list(ahead.ready) if self._prepare is not None else ():
                with contextlib.suppress(Exception):  # raised when that batch is requested
                    self._prepared(other)
            if self._reuse and self._lent is not None:
                ahead.free.append(self._lent)
            self._lent = ahead.ready.popleft().batch
            ahead.for_thread.ring()
            return found

    def close(self) -> None:
        """End the thread; the mixture stays open. A second call does nothing."""
        self._closed = True
        if self._ahead is not None and self._process is process():
            self._ahead.stop()
            if self._thread is not None and self._thread is not threading.current_thread():
                self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __del__(self) -> None:
        # The collector may call this on the drawing thread, so this does not wait for that.
        ahead = getattr(self, "_ahead", None)
        if ahead is not None and self._process is process():
            ahead.stop()

    def _prepared(self, ready: Ready) -> Any:
        """Return a batch, prepared once."""
        if ready.prepared is None:
            ready.prepared = (self._prepared_by_user(ready.batch),)
        return ready.prepared[0]

    def _prepared_by_user(self, batch: Any) -> Any:
        return batch if self._prepare is None else self._prepare(batch)

    def _check_memory(self) -> None:
        """Raise ArgumentError for batches that cannot be drawn ahead, once there is a schema."""
        if not self._memory_is_checked and (schema := self._mixture.schema) is not None:
            check_batches_ahead(schema, self._batch_size, self._prefetch)
            self._memory_is_checked = True

    def _start(self, ahead: DrawnAhead) -> None:
        if self._thread is None:
            arguments = ahead, weakref.ref(self._mixture), self._batch_size, self._options
            thread = threading.Thread(
                target=_draw_ahead, args=arguments, name="diskreplay mixture", daemon=True
            )
            try:
                thread.start()
            except RuntimeError as error:
                raise StorageError(
                    f"a thread cannot be started: {error}: leave prefetch= away"
                ) from None
            self._thread = thread


def _draw_ahead(
    ahead: DrawnAhead, mixture_of: weakref.ref[Drawable], batch_size: int, options: dict[str, Any]
) -> None:
    """Draw batches while there is room; keep the mixture alive only during a draw."""
    while True:
        ahead.for_thread.wait_until(lambda: ahead.is_stopped or ahead.has_room())
        mixture = mixture_of()
        if ahead.is_stopped or mixture is None:
            return
        out = ahead.free.popleft() if ahead.free else None
        try:
            ahead.ready.append(Ready(mixture.sample(batch_size, out=out, **options)))
        except Exception:
            ahead.is_stuck = True
        del mixture
        ahead.for_user.ring()
