"""to_torch: the arrays of a batch as tensors of PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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


def to_torch(batch: diskreplay.Batch | diskreplay.PrioritizedBatch, device: Any = None) -> Any:
    """Return a batch with tensors in place of its arrays: a named tuple of the same type.

    The `indices` of a uniform batch become a tensor, too. On the CPU tensors and arrays share their
    memory. To another device the arrays are copied, and what runs there next sees whole tensors;
    only of arrays in pinned memory may the copy go on after the call, so do not change them before.
    Raises ArgumentError for anything but a batch.

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

    def tensor_of(array: Any) -> torch.Tensor:
        tensor = torch.from_numpy(array)
        return tensor if device is None else tensor.to(device, non_blocking=True)

    return with_each(batch, tensor_of)


def with_each(batch: Any, convert: Callable[[Any], Any]) -> Any:
    """Return a batch with each element converted, and `indices` where it is an attribute."""
    made = batch._make(map(convert, batch))
    vars(made).update({name: convert(value) for name, value in vars(batch).items()})
    return made
