"""Upload: copies batches to a GPU, and priorities back, while the CPU goes on."""

from __future__ import annotations

import contextlib
import os
import weakref
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch

from diskreplay.adapters.torch.packed_batch import PackedBatch
from diskreplay.adapters.torch.tensors import arrays_in, tensors_by, with_ids_on_cpu


class SourcedIds(NamedTuple):
    """Write ids and the sources that they are of, for `update_priorities` of a mixture."""

    indices: Any
    sources: Any


class Update(NamedTuple):
    """Priorities that are copied to the CPU, complete at an event.

    ids:  write ids, or SourcedIds
    """

    ids: Any
    priorities: Any
    event: Any
    is_old: bool = False


class Copied(NamedTuple):
    """A batch that is copied to a GPU, complete at an event.

    memory:  the tensors that hold all others of the batch
    nbytes:  the bytes that are copied
    """

    batch: Any
    event: Any
    memory: list[Any]
    device: torch.device
    nbytes: int

    def for_current_stream(self) -> Any:
        """Return the batch, for use on the current stream, which waits for it."""
        stream = torch.cuda.current_stream(self.device)
        stream.wait_event(self.event)
        for tensor in self.memory:
            tensor.record_stream(stream)  # or it could be given away too early
        return self.batch


class _Slot(NamedTuple):
    """The memory of a batch that is used again, and the event of its copy."""

    packed: PackedBatch
    event: Any


class Upload:
    """Copies batches to a GPU, on a stream of its own, from memory that is pinned when first seen.

    Pinned memory is memory that the GPU can read by itself, while the CPU goes on. A batch that is
    used again goes in one copy: six small ones took 0.2 ms of the caller's time.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._nbytes = 0  # of the batch whose copy begins
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

    def __call__(self, batch: Any) -> Copied:
        """Begin to copy a batch."""
        slot, self._nbytes = self._slot_of(batch), 0
        with torch.cuda.stream(self._stream):
            if slot is None:
                copied = with_ids_on_cpu(batch, tensors_by(self._copy))
                memory = [tensor for tensor in arrays_in(copied) if tensor.is_cuda]
                event = torch.cuda.Event()
            else:
                event, copies = slot.event, list(map(self._copy, slot.packed.pieces()))
                copied, memory = slot.packed.unpacked(batch, copies)
            event.record(self._stream)
        return Copied(copied, event, memory, self._device, self._nbytes)

    def copy_back(self, ids: Any, priorities: Any) -> Update:
        """Begin to copy an update to the CPU; the one before it must be applied.

        ids:         write ids, or SourcedIds
        priorities:  a tensor on a GPU
        """
        device = priorities.device

        def begin(name: str, value: Any) -> Any:
            if getattr(value, "is_cuda", False) is True:
                value = value.to(device)  # or the event would not tell of its copy
            return self._copy_back(name, value)

        if isinstance(ids, SourcedIds):
            ids = SourcedIds(begin("indices", ids.indices), begin("sources", ids.sources))
        else:
            ids = begin("indices", ids)
        values = self._copy_back("priorities", priorities)
        self._back_event.record(torch.cuda.current_stream(device))
        return Update(ids, values, self._back_event)

    def close(self) -> None:
        """Wait for the copies, and give the memory back."""
        self._unpin()
        self._slots.clear()

    def _copy(self, tensor: torch.Tensor) -> torch.Tensor:
        self._nbytes += tensor.nbytes
        return tensor.to(self._device, non_blocking=True)

    def _slot_of(self, batch: Any) -> _Slot | None:
        """Return the memory of a batch that is used again; None for one of fresh arrays."""
        first = next(arrays_in(batch))
        found = self._slots.get(id(first))
        if found is None and (packed := PackedBatch.of(batch)) is not None:
            if self._can_pin:
                self._pin(packed.memory)
            found = self._slots[id(first)] = _Slot(packed, torch.cuda.Event())
        return found

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
