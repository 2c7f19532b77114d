"""Tensors of PyTorch: to_torch for one batch, and TensorBatches, an iterator that feeds a GPU."""

from __future__ import annotations

import contextlib
import mmap
import os
import weakref
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

import diskreplay

try:
    import torch
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    raise ModuleNotFoundError(
        "diskreplay.adapters.torch needs torch, which is not installed: "
        'pip install "diskreplay[torch]"',
        name="torch",
    ) from None

if TYPE_CHECKING:
    from typing_extensions import Self


def to_torch(batch: diskreplay.Batch | diskreplay.PrioritizedBatch, device: Any = None) -> Any:
    """Return a batch with tensors in place of its arrays: a named tuple of the same type.

    The `indices` of a uniform batch become a tensor, too. On the CPU tensors and arrays share their
    memory; an array that is read-only is copied, since nothing keeps a tensor from being written
    to. To another device the arrays are copied, and what runs there next sees whole tensors; only
    of arrays in pinned memory may the copy go on after the call, so do not change them before.
    Raises ArgumentError for anything but a batch, and for a device that PyTorch does not have here.

    >>> buffer = diskreplay.ReplayBuffer(capacity=10)
    >>> buffer.push([0.0, 0.5], 1, 1.0, [1.0, 0.5], False)
    0
    >>> batch = to_torch(buffer.sample(1))
    >>> batch.states, batch.indices
    (tensor([[0.0000, 0.5000]]), tensor([0]))

    device:  as of `torch.Tensor.to`; None is the CPU
    """
    if not isinstance(batch, diskreplay.Batch | diskreplay.PrioritizedBatch):
        raise diskreplay.ArgumentError(
            "expected a batch, as sample(), batches() or get() without fields= return it "
            f"(found {type(batch).__name__})"
        )

    target = None if device is None else _device_of(device)

    def tensor_of(array: Any) -> torch.Tensor:
        tensor = torch.from_numpy(array if array.flags.writeable else array.copy())
        return tensor if target is None else tensor.to(target, non_blocking=True)

    return with_each(batch, tensor_of)


def with_each(batch: Any, convert: Callable[[Any], Any]) -> Any:
    """Return a batch with each element converted, and `indices` where it is an attribute."""
    made = batch._make(map(convert, batch))
    vars(made).update({name: convert(value) for name, value in vars(batch).items()})
    return made


class TensorBatches:
    """An endless iterator over batches of tensors; use it in a `with` block.

    The batches are those of `buffer.batches(batch_size, prefetch, readers)`, in order, as named
    tuples of the same type. `indices` are on the CPU, for `update_priorities`. To a GPU the arrays
    go from pinned memory, on a stream of their own, while the batches before are in use; the stream
    that is current in `next` waits for its own batch alone.

    >>> buffer = diskreplay.PrioritizedReplayBuffer(capacity=100)
    >>> for i in range(50):
    ...     write_id = buffer.push([float(i)], 0, 1.0, [i + 1.0], False)
    >>> with TensorBatches(buffer, batch_size=32, prefetch=2) as batches:
    ...     for step, batch in zip(range(3), batches):
    ...         td_errors = batch.rewards - batch.states.mean()
    ...         batches.update_priorities(batch.indices, td_errors.abs())
    >>> batch.states.shape, batch.indices.dtype
    (torch.Size([32, 1]), torch.int64)

    buffer:      a ReplayBuffer or a PrioritizedReplayBuffer
    batch_size:  number of transitions in a batch
    device:      of the tensors, as of `torch.device`; None is the CPU
    prefetch:    number of batches that are drawn ahead, see `buffer.batches`
    readers:     number of processes that read their rows; 0 is a thread
    reuse:       whether the tensors of a batch on the CPU, `indices` too, are used again once the
                 next batch is requested; those on a device are always fresh
    """

    def __init__(
        self,
        buffer: diskreplay.ReplayBuffer | diskreplay.PrioritizedReplayBuffer,
        batch_size: int,
        device: Any = None,
        prefetch: int = 2,
        readers: int = 0,
        *,
        reuse: bool = False,
    ) -> None:
        self._pending: _Update | None = None
        self._upload: _Upload | None = None
        self._given: _Copied | None = None
        if not isinstance(buffer, diskreplay.ReplayBuffer | diskreplay.PrioritizedReplayBuffer):
            raise diskreplay.ArgumentError(
                "expected a ReplayBuffer or a PrioritizedReplayBuffer (found "
                f"{type(buffer).__name__})"
            )
        self._is_closed = False
        self._buffer: Any = buffer
        self._device = _device_of(device)
        prepare: Callable[[Any], Any] = to_torch
        if self._device.type == "cuda":
            prepare = self._upload = _Upload(self._device)
        elif self._device.type != "cpu":
            prepare = self._moved
        self._batches: Any = buffer.batches(
            batch_size,
            prefetch,
            readers,
            reuse=reuse or self._device.type != "cpu",
            prepare=prepare,
        )

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        """Return the next batch. Raises the errors of `buffer.sample`, and ClosedError at last."""
        self._apply_old()
        if self._given is not None:
            self._given.event.synchronize()  # its memory is used again from here on
        found = next(self._batches)
        if self._upload is None:
            return found
        self._given = found
        return found.for_current_stream()

    def update_priorities(self, indices: Any, priorities: Any) -> None:
        """Set priorities by write id, as `buffer.update_priorities`, without waiting for a GPU.

        Priorities on a GPU are copied when the work that computes them is done. They take effect in
        the next call of this method, or else in the request of the batch after the next one: one
        batch later than those from the CPU. So a run is the same whenever the GPU is done. Their
        errors, as of a NaN, are raised there, too. Raises ClosedError after `close`, when nothing
        would apply such priorities any more, and ArgumentError for a uniform buffer.

        indices:     int64 (n,), write ids of a batch
        priorities:  float (n,), the absolute TD errors, on any device
        """
        if self._is_closed:
            raise diskreplay.ClosedError(
                "these batches are closed: call update_priorities of the buffer"
            )
        if not isinstance(self._buffer, diskreplay.PrioritizedReplayBuffer):
            raise diskreplay.ArgumentError(
                "update_priorities needs a PrioritizedReplayBuffer (found a ReplayBuffer, which "
                "draws uniformly)"
            )
        self.flush()
        if self._upload is None or getattr(priorities, "is_cuda", False) is not True:
            self._buffer.update_priorities(indices, priorities)
        else:
            if getattr(indices, "is_cuda", False) is True:
                indices = indices.to(priorities.device)  # or the event would not tell of its copy
            self._pending = self._upload.copy_back(indices, priorities)

    def flush(self) -> None:
        """Apply the update whose priorities are still on their way; then `buffer` has them all."""
        pending = self._pending
        if pending is None:
            return
        pending.event.synchronize()
        try:
            self._buffer.update_priorities(pending.indices, pending.priorities)
        except diskreplay.StorageError:
            raise  # nothing was changed: the next call tries again, as after an interrupt
        except Exception:
            self._pending = None
            raise
        self._pending = None

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

    def _moved(self, batch: Any) -> Any:
        """Return a batch on a device that is no GPU of CUDA; its arrays may be used again then."""
        return _with_names(batch, lambda array: torch.from_numpy(array).to(self._device))

    def _apply_old(self) -> None:
        """Apply an update that no later one has applied since the last batch but one."""
        if self._pending is not None:
            if self._pending.is_old:
                self.flush()
            else:
                self._pending = self._pending._replace(is_old=True)


class _Update(NamedTuple):
    """Priorities that are copied to the CPU, complete at an event."""

    indices: Any
    priorities: Any
    event: Any
    is_old: bool = False


class _Copied(NamedTuple):
    """A batch that is copied to a GPU, complete at an event.

    memory:  the tensors that hold all others of the batch
    """

    batch: Any
    event: Any
    memory: list[Any]
    device: torch.device

    def for_current_stream(self) -> Any:
        """Return the batch, for use on the current stream, which waits for it."""
        stream = torch.cuda.current_stream(self.device)
        stream.wait_event(self.event)
        for tensor in self.memory:
            tensor.record_stream(stream)  # or it could be given away too early
        return self.batch


class _Slot(NamedTuple):
    """The memory of a batch that is used again, in one piece, and where its arrays are in it."""

    memory: Any
    parts: dict[int, tuple[slice, torch.dtype, tuple[int, ...]]]  # by id of the array
    arrays: list[Any]  # keeps their ids
    event: Any


class _Upload:
    """Copies batches to a GPU, on a stream of its own, from memory that is pinned when first seen.

    Pinned memory is memory that the GPU can read by itself, while the CPU goes on. A batch that is
    used again goes in one copy: six small ones took 0.2 ms of the caller's time.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)
        self._slots: dict[int, _Slot] = {}  # by id of the first array
        self._back: dict[Any, Any] = {}  # pinned memory for priorities, by shape and type
        self._back_event = torch.cuda.Event()
        self._pinned: dict[int, Any] = {}  # arrays by address
        self._can_pin = True
        # Pages that are unmapped while they are pinned would be read by the copies of other arrays
        # that come to lie at the same address.
        self._unpin = partial(_unpin, self._pinned, self._stream, os.getpid())
        # The end of the process unpins them, too.
        weakref.finalize(self, self._unpin).atexit = False

    def __call__(self, batch: Any) -> _Copied:
        """Begin to copy a batch."""
        slot = self._slot_of(batch)
        with torch.cuda.stream(self._stream):
            if slot is None:
                copied = _with_names(batch, self._copy)
                memory = [tensor for tensor in copied if tensor.is_cuda]
                event = torch.cuda.Event()
            else:
                whole = slot.memory.to(self._device, non_blocking=True)
                memory, event, parts = [whole], slot.event, slot.parts

                def part(array: Any) -> torch.Tensor:
                    where, dtype, shape = parts[id(array)]
                    return whole[where].view(dtype).view(shape)

                copied = _with_names(batch, part)
            event.record(self._stream)
        return _Copied(copied, event, memory, self._device)

    def copy_back(self, indices: Any, priorities: Any) -> _Update:
        """Begin to copy an update to the CPU; the one before it must be applied."""
        ids = self._copy_back("indices", indices)
        values = self._copy_back("priorities", priorities)
        self._back_event.record(torch.cuda.current_stream(priorities.device))
        return _Update(ids, values, self._back_event)

    def close(self) -> None:
        """Wait for the copies, and give the memory back."""
        self._unpin()
        self._slots.clear()

    def _copy(self, array: Any) -> torch.Tensor:
        return torch.from_numpy(array).to(self._device, non_blocking=True)

    def _slot_of(self, batch: Any) -> _Slot | None:
        """Return the memory of a batch that is used again; None for one of fresh arrays."""
        found = self._slots.get(id(batch[0]))
        if found is not None:
            return found
        arrays = [array for array in batch if array is not batch.indices]
        base = arrays[0].base
        if type(base) is not mmap.mmap or any(array.base is not base for array in arrays):
            return None
        whole = np.frombuffer(base, np.uint8)
        begins = [array.ctypes.data - whole.ctypes.data for array in arrays]
        first = min(begins)
        end = max(at + array.nbytes for at, array in zip(begins, arrays, strict=True))
        memory = whole[first:end]
        parts = {
            id(array): (
                slice(at - first, at - first + array.nbytes),
                torch.from_numpy(array).dtype,
                array.shape,
            )
            for at, array in zip(begins, arrays, strict=True)
        }
        if self._can_pin:
            self._pin(memory)
        slot = _Slot(torch.from_numpy(memory), parts, arrays, torch.cuda.Event())
        self._slots[id(arrays[0])] = slot
        return slot

    def _pin(self, array: Any) -> None:
        """Pin the memory of an array, unless that was refused: then the copies are slower."""
        address = array.ctypes.data
        if address not in self._pinned:
            self._pinned[address] = array  # before it is pinned: an interrupt may come in between
            if int(torch.cuda.cudart().cudaHostRegister(address, array.nbytes, 0)) != 0:
                _forget_error(self._device)
                del self._pinned[address]
                self._can_pin = False

    def _copy_back(self, name: str, value: Any) -> Any:
        """Copy an array or a tensor; of a tensor on a GPU begin to, to pinned memory."""
        if not isinstance(value, torch.Tensor):
            return value.copy() if isinstance(value, np.ndarray) else value
        if not value.is_cuda:
            return value.detach().numpy().copy()
        key = name, value.shape, value.dtype
        if key not in self._back:
            self._back = {other: kept for other, kept in self._back.items() if other[0] != name}
            self._back[key] = torch.empty(value.shape, dtype=value.dtype, pin_memory=True)
        return self._back[key].copy_(value.detach(), non_blocking=True)


def _unpin(pinned: dict[int, Any], stream: Any, process: int) -> None:
    """Wait for the copies of a stream, and unpin arrays; safe to repeat."""
    if os.getpid() != process:
        return  # in a forked child CUDA cannot be used, and the memory is pinned by the parent
    with torch.cuda.device(stream.device):
        stream.synchronize()
        for address in list(pinned):
            if int(torch.cuda.cudart().cudaHostUnregister(address)) != 0:
                _forget_error(stream.device)  # it was unpinned by a call that was interrupted
            del pinned[address]


def _forget_error(device: torch.device) -> None:
    """Forget the last error of CUDA: the next kernel of the user would be said to have failed."""
    with contextlib.suppress(RuntimeError):
        torch.zeros(1, device=device).add_(1)


def _device_of(device: Any) -> torch.device:
    """Return a device of PyTorch; raise ArgumentError for one that is not there."""
    reason = "needs a GPU, and PyTorch finds none here"
    try:
        found = torch.device("cpu" if device is None else device)
        if found.type != "cuda" or torch.cuda.is_available():
            # Or the first batch would meet an error. It has a number: "cuda" is the device that is
            # current now, while another may be in a later call, or on another thread.
            return torch.empty(0, device=found).device
    except Exception as error:  # each kind of device raises its own
        first_line, _, _ = str(error).partition("\n")
        reason = f"is no device of PyTorch here ({first_line:.300})"
    raise diskreplay.ArgumentError(
        f"device={device!r:.100} {reason}: leave device= away for the CPU, or see "
        "torch.cuda.is_available()"
    )


def _with_names(batch: Any, convert: Callable[[Any], Any]) -> Any:
    """Return a batch with each array converted but `indices`, which stay on the CPU, as a copy."""
    indices = batch.indices

    def converted(array: Any) -> Any:
        return torch.from_numpy(np.array(array)) if array is indices else convert(array)

    return with_each(batch, converted)
