"""RemoteBatches: an endless iterator over the batches of a replay on a server."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from diskreplay.buffer import BatchForm, check_batches_ahead, checked_pad
from diskreplay.errors import ArgumentError, ClosedError
from diskreplay.forks import process
from diskreplay.service.drawn_ahead import DrawnAhead, Ready
from diskreplay.validation import MAX_COUNT, true_or_false, whole_number
from diskreplay.wording import shown

if TYPE_CHECKING:
    from typing_extensions import Self

_CLOSED = "these batches are closed: call batches() again"


class RemoteBatches:
    """The endless iterator over batches that the `batches` method of a client returns."""

    def __init__(
        self,
        replay: Any,
        batch_size: int,
        prefetch: int,
        readers: int,
        *,
        reuse: bool,
        prepare: Callable[[Any], Any] | None,
        frames: bool,
        pad: bool,
        n_step: Any,
    ) -> None:
        self._replay = replay
        self._n = whole_number("batch_size", batch_size, at_least=1, at_most=MAX_COUNT)
        ready = whole_number("prefetch", prefetch, at_least=0, at_most=MAX_COUNT)
        n_readers = whole_number("readers", readers, at_least=0, at_most=256)
        is_reused = true_or_false("reuse", reuse)
        self._form = BatchForm(
            frames=true_or_false("frames", frames),
            pad=checked_pad(pad, reuse=is_reused),
            n_step=n_step,
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
        self._prepare = prepare
        self._prefetch = ready
        self._closed = False
        self._process = process()
        self._lock = threading.Lock()  # of the calls of next()
        self._memory_is_checked = not ready
        self._check_memory()
        self._ahead: DrawnAhead | None = None
        if ready:
            self._ahead = DrawnAhead(replay._connection, self._n, ready, self._options())

    def __iter__(self) -> Self:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Raise ArgumentError: the place in a stream belongs to one process."""
        raise ArgumentError(
            "the batches of a client can be neither pickled nor copied: pickle the client, and "
            "call batches() on it in the other process"
        )

    def __next__(self) -> Any:
        """Return the next batch. Raises the errors of `sample`, and ClosedError after `close`."""
        self._replay._connection.check_open()
        if self._closed:
            raise ClosedError(_CLOSED)
        ahead = self._ahead
        if ahead is None:
            return self._prepared_by_user(self._drawn())
        self._check_memory()
        with self._lock:
            ahead.begin()  # it rings: an interrupted call may have taken a batch without ringing
            ahead.for_user.wait_until(lambda: ahead.ready or ahead.is_stuck or ahead.is_stopped)
            if ahead.is_stopped:
                raise ClosedError(_CLOSED)
            ready = list(ahead.ready)
            if not ready:
                try:
                    return self._prepared_by_user(self._drawn())
                finally:
                    ahead.is_stuck = False
                    ahead.for_thread.ring()
            found = self._prepared(ready[0])
            for other in ready[1:] if self._prepare is not None else ():
                # An error belongs to the other batch: it is raised when that is requested.
                with contextlib.suppress(Exception):
                    self._prepared(other)
            with ahead.lock:
                if ahead.ready and ahead.ready[0] is ready[0]:  # not dropped meanwhile
                    ahead.ready.popleft()
            ahead.for_thread.ring()
            return found

    def drop(self) -> None:
        """Drop the batches that were drawn ahead."""
        if self._ahead is not None:
            self._ahead.drop()

    def close(self) -> None:
        """End the drawing ahead; the replay stays open. A second call does nothing.

        The server gets back the draws of batches that were not returned here.
        """
        self._closed = True
        if self._ahead is not None and self._process is process():
            self._ahead.stop()
            self._ahead.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __del__(self) -> None:
        # The collector may call this on any thread, so this does not wait.
        ahead = getattr(self, "_ahead", None)
        if ahead is not None and self._process is process():
            ahead.stop()

    def _options(self) -> dict[str, Any]:
        frames = {"frames": True} if self._form.frames else {}
        return {**self._form.arguments(), **frames}

    def _drawn(self) -> Any:
        """Return the batch of a draw that is made now."""
        if self._form.frames:
            return self._replay._call("sample", self._n, **self._options())
        return self._replay.sample(self._n, **self._options())

    def _prepared(self, ready: Ready) -> Any:
        """Return a batch, prepared once."""
        if ready.prepared is None:
            ready.prepared = (self._prepared_by_user(ready.batch),)
        return ready.prepared[0]

    def _prepared_by_user(self, batch: Any) -> Any:
        return batch if self._prepare is None else self._prepare(batch)

    def _check_memory(self) -> None:
        """Raise ArgumentError for batches that cannot be drawn ahead, once there is a schema."""
        if not self._memory_is_checked and (schema := self._replay.schema) is not None:
            check_batches_ahead(schema, self._n, self._prefetch, self._form.n_step)
            self._memory_is_checked = True
