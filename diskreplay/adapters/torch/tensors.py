"""The arrays of a batch as tensors, one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

import diskreplay

_BATCHES = (
    diskreplay.Batch,
    diskreplay.PrioritizedBatch,
    diskreplay.SequenceBatch,
    diskreplay.PrioritizedSequenceBatch,
)
_WIDE = (torch.int64, torch.int32, torch.int16)


def to_torch(
    batch: diskreplay.Batch
    | diskreplay.PrioritizedBatch
    | diskreplay.SequenceBatch
    | diskreplay.PrioritizedSequenceBatch,
    device: Any = None,
) -> Any:
    """Return a batch with tensors in place of its arrays: a named tuple of the same type.

    Elements that are dictionaries, tuples or lists of arrays become such of tensors. Frames are put
    together, on the device, to the values that they stand for.

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
    if not isinstance(batch, _BATCHES):
        raise diskreplay.ArgumentError(
            "expected a batch, as sample(), sample_sequences(), batches() or get() without fields= "
            f"return it (found {type(batch).__name__})"
        )

    target = None if device is None else device_of(device)

    def move(tensor: torch.Tensor) -> torch.Tensor:
        return tensor if target is None else tensor.to(target, non_blocking=True)

    return with_each(batch, tensors_by(move))


def tensors_by(move: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Any], torch.Tensor]:
    """Return a function that makes a tensor of an array or of Frames, which `move` brings there.

    Frames with one memory are moved once.
    """
    frames_there: dict[int, torch.Tensor] = {}

    def tensor_of(value: Any) -> torch.Tensor:
        if isinstance(value, diskreplay.Frames):
            frames = bytes_of_frames(value)
            address = frames.ctypes.data
            if address not in frames_there:
                frames_there[address] = move(torch.from_numpy(frames))
            return put_together(value, frames_there[address], move(torch.from_numpy(value.rows)))
        return move(torch.from_numpy(value if value.flags.writeable else value.copy()))

    return tensor_of


def bytes_of_frames(value: diskreplay.Frames) -> Any:
    """Return the frames of a batch as an array of bytes, (m, frame_bytes)."""
    frames = value.frames
    return frames.reshape(len(frames), -1).view(np.uint8)


def put_together(
    value: diskreplay.Frames, frames: torch.Tensor, rows: torch.Tensor
) -> torch.Tensor:
    """Return the values of Frames, whose bytes and rows are on a device, as a tensor there."""
    shape = (*rows.shape, *value.frames.shape[1:])
    dtype = torch.from_numpy(np.empty(0, value.frames.dtype)).dtype
    if frames.numel():
        # Bytes are gathered eight at a time. PyTorch cannot gather numbers of each type.
        wide = next((one for one in _WIDE if frames.shape[1] % one.itemsize == 0), torch.uint8)
        found = frames.view(wide).index_select(0, rows.reshape(-1)).view(torch.uint8)
        found = found.view(dtype).view(shape)
    else:
        found = torch.empty(shape, dtype=dtype, device=frames.device)
    return found.movedim(1, 1 + value.axis).contiguous() if value.axis else found


def with_each(batch: Any, convert: Callable[[Any], Any]) -> Any:
    """Return a batch with each array converted, also `indices` where it is an attribute."""
    made = batch._make(nested(value, convert) for value in batch)
    vars(made).update(vars(batch))
    if "indices" in vars(batch):
        made.indices = convert(batch.indices)
    return made


def nested(value: Any, convert: Callable[[Any], Any]) -> Any:
    """Return an element of a batch with arrays converted, also in dictionaries, tuples and lists.

    Texts and bytes stay as they are.
    """
    if isinstance(value, dict):
        return {key: nested(part, convert) for key, part in value.items()}
    if isinstance(value, tuple):
        return tuple(nested(part, convert) for part in value)
    if isinstance(value, list):
        return [nested(part, convert) for part in value]
    return value if isinstance(value, str | bytes) else convert(value)


def arrays_in(value: Any) -> Iterator[Any]:
    """Yield the arrays or tensors of a batch, or of an element of one."""
    if isinstance(value, dict | tuple | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from arrays_in(part)
    elif not isinstance(value, str | bytes):
        yield value


def with_ids_on_cpu(batch: Any, convert: Callable[[Any], Any]) -> Any:
    """Return a batch with each array converted but `indices`, which stay on the CPU, as a copy."""
    indices = batch.indices

    def converted(array: Any) -> Any:
        return torch.from_numpy(np.array(array)) if array is indices else convert(array)

    return with_each(batch, converted)


def device_of(device: Any) -> torch.device:
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
