"""TensorBatches: an endless iterator over batches of tensors, on any device."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

import diskreplay
from diskreplay.adapters.torch.tensors import device_of, tensors_by, to_torch, with_ids_on_cpu
from diskreplay.adapters.torch.uploads import Copied, SourcedIds, Update, Upload

if TYPE_CHECKING:
    from typing_extensions import Self


_SOURCES = (
    diskreplay.ReplayBuffer,
    diskreplay.PrioritizedReplayBuffer,
    diskreplay.Mixture,
    diskreplay.RateLimited,
)


def _is_client(buffer: Any) -> bool:
    """Return whether it is what `diskreplay.connect` returns, whose module may not be installed."""
    module = sys.modules.get("diskreplay.service.client")
    return module is not None and isinstance(buffer, module.RemoteReplay)


class Moved(NamedTuple):
    """A batch on a device, and how many bytes were copied there."""

    batch: Any
    nbytes: int


class TensorBatches:
    """An endless iterator over batches of tensors; use it in a `with` block.

    The batches are those of `buffer.batches(batch_size, prefetch, readers)`, in order, as named
    tuples of the same type. `indices` are on the CPU, for `update_priorities`. To a GPU the arrays
    go from pinned memory, on a stream of their own, while the batches before are in use; the stream
    that is current in `next` waits for its own batch alone. Of fields in the log the distinct
    frames of a batch are copied, and the stacks put together on the device.

    >>> buffer = diskreplay.PrioritizedReplayBuffer(capacity=100)
    >>> for i in range(50):
    ...     write_id = buffer.push([float(i)], 0, 1.0, [i + 1.0], False)
    >>> with TensorBatches(buffer, batch_size=32, prefetch=2) as batches:
    ...     for step, batch in zip(range(3), batches):
    ...         td_errors = batch.rewards - batch.states.mean()
    ...         batches.update_priorities(batch.indices, td_errors.abs())
    >>> batch.states.shape, batch.indices.dtype
    (torch.Size([32, 1]), torch.int64)

    buffer:      a ReplayBuffer, a PrioritizedReplayBuffer, a client of `diskreplay.connect`, a
                 RateLimited of one, which makes `next` wait, or a Mixture, whose batches have
                 `sources` as one more tensor
    batch_size:  number of transitions in a batch
    device:      of the tensors, as of `torch.device`; None is the CPU
    prefetch:    number of batches that are drawn ahead, see `buffer.batches`
    readers:     number of processes that read their rows; 0 is a thread. A mixture has none
    reuse:       whether the tensors of a batch on the CPU, `indices` too, are used again once the
                 next batch is requested; those on a device are always fresh
    pad:         whether arrays with lengths that vary come as one tensor, with a mask, as of
                 `buffer.sample`; otherwise they are lists of tensors
    n_step, gamma:
                 n-step returns, as of `buffer.sample`: `discounts` is one more element
    """

    def __init__(
        self,
        buffer: diskreplay.ReplayBuffer
        | diskreplay.PrioritizedReplayBuffer
        | diskreplay.Mixture
        | diskreplay.RateLimited[Any],
        batch_size: int,
        device: Any = None,
        prefetch: int = 2,
        readers: int = 0,
        *,
        reuse: bool = False,
        pad: bool = False,
        n_step: int = 1,
        gamma: float = 0.99,
    ) -> None:
        self._pending: Update | None = None
        self._upload: Upload | None = None
        self._given: Copied | None = None
        if not isinstance(buffer, _SOURCES) and not _is_client(buffer):
            raise diskreplay.ArgumentError(
                "expected a ReplayBuffer, a PrioritizedReplayBuffer, a Mixture, a RateLimited or a "
                f"client (found {type(buffer).__name__})"
            )
        self._is_closed = False
        self._copied_bytes = 0
        self._buffer: Any = buffer
        self._device = device_of(device)
        prepare: Callable[[Any], Any] = to_torch
        if self._device.type == "cuda":
            prepare = self._upload = Upload(self._device)
        elif self._device.type != "cpu":
            prepare = self._moved
        self._batches: Any = buffer.batches(
            batch_size,
            prefetch,
            readers,
            reuse=reuse or (self._device.type != "cpu" and not pad),
            pad=pad,
            n_step=n_step,
            gamma=gamma,
            prepare=prepare,
            frames=self._device.type != "cpu",
        )

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        """Return the next batch. Raises the errors of `buffer.sample`, and ClosedError at last."""
        self._apply_old()
        if self._given is not None:
            self._given.event.synchronize()  # its memory is used again from here on
        found = next(self._batches)
        if self._device.type == "cpu":
            return found
        self._copied_bytes += found.nbytes
        if self._upload is None:
            return found.batch
        self._given = found
        return found.for_current_stream()

    def update_priorities(self, indices: Any, priorities: Any) -> None:
        """Set priorities, as `buffer.update_priorities` does, without waiting for a GPU.

        Priorities on a GPU are copied when the work that computes them is done. They take effect in
        the next call of this method, or else in the request of the batch after the next one: one
        batch later than those from the CPU. So a run is the same whenever the GPU is done. Their
        errors, as of a NaN, are raised there, too. Raises ClosedError after `close`, when nothing
        would apply such priorities any more, and ArgumentError for a uniform buffer.

        indices:     int64 (n,), write ids of a batch; of a mixture the batch itself, whose sources
                     say where they are from
        priorities:  float (n,), the absolute TD errors, on any device
        """
        if self._is_closed:
            raise diskreplay.ClosedError(
                "these batches are closed: call update_priorities of the buffer"
            )
        if not hasattr(self._buffer, "update_priorities"):
            raise diskreplay.ArgumentError(
                "update_priorities needs a PrioritizedReplayBuffer (found a ReplayBuffer, which "
                "draws uniformly)"
            )
        self.flush()
        if self._upload is None or getattr(priorities, "is_cuda", False) is not True:
            self._buffer.update_priorities(indices, priorities)
        else:
            if hasattr(indices, "sources"):
                indices = SourcedIds(indices.indices, indices.sources)
            self._pending = self._upload.copy_back(indices, priorities)

    def flush(self) -> None:
        """Apply the update whose priorities are still on their way; then `buffer` has them all."""
        pending = self._pending
        if pending is None:
            return
        pending.event.synchronize()
        try:
            self._buffer.update_priorities(pending.ids, pending.priorities)
        except diskreplay.StorageError:
            raise  # nothing was changed: the next call tries again, as after an interrupt
        except Exception:
            self._pending = None
            raise
        self._pending = None

    @property
    def copied_bytes(self) -> int:
        """The bytes that were copied to the device for the batches returned so far.

        Of a field in the log these are its distinct frames. On the CPU nothing is copied.
        """
        return self._copied_bytes

    def close(self) -> None:
        """Apply the last update and stop drawing ahead; the buffer stays open."""
        self._is_closed = True
        try:
            self.flush()
        finally:
            self._batches.close()
            self._given = None
            if self._upload is not None:
                self._upload.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _moved(self, batch: Any) -> Moved:
        """Return a batch on a device that is no GPU of CUDA; its arrays may be used again then."""
        nbytes = []

        def move(tensor: torch.Tensor) -> torch.Tensor:
            nbytes.append(tensor.nbytes)
            return tensor.to(self._device)

        moved = with_ids_on_cpu(batch, tensors_by(move))
        return Moved(moved, sum(nbytes))

    def _apply_old(self) -> None:
        """Apply an update that no later one has applied since the last batch but one."""
        if self._pending is not None:
            if self._pending.is_old:
                self.flush()
            else:
                self._pending = self._pending._replace(is_old=True)
