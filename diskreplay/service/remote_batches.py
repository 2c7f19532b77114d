"""RemoteBatches: an endless iterator over the batches of a replay on a server."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from diskreplay.buffer import BatchForm, checked_pad
from diskreplay.errors import ArgumentError, ClosedError
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
        self._closed = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        """Return the next batch. Raises the errors of `sample`, and ClosedError after `close`."""
        if self._closed:
            raise ClosedError(_CLOSED)
        batch = self._replay.sample(self._n, **self._form.arguments())
        return batch if self._prepare is None else self._prepare(batch)

    def close(self) -> None:
        """End the drawing ahead; the replay stays open. A second call does nothing."""
        self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
