"""to_torch: batches as tensors of PyTorch."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest
from common import columns

import diskreplay
from diskreplay import ArgumentError, PrioritizedReplayBuffer, ReplayBuffer

torch = pytest.importorskip("torch")
to_torch = importlib.import_module("diskreplay.adapters.torch").to_torch

KINDS = [ReplayBuffer, PrioritizedReplayBuffer]


def filled(kind: Any, **extra: Any) -> Any:
    buffer = kind(capacity=20, seed=0)
    buffer.extend(**columns(0, 10), **extra)
    return buffer


def assert_same(found: Any, batch: Any) -> None:
    """Check that a batch of tensors has the type, the dtypes and the numbers of one of arrays."""
    assert type(found) is type(batch)
    assert vars(found).keys() == vars(batch).keys()
    for tensor, array in zip((*found, found.indices), (*batch, batch.indices), strict=True):
        assert str(tensor.dtype) == f"torch.{array.dtype}"
        np.testing.assert_array_equal(tensor.numpy(), array)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("extra", [{}, {"mask": np.eye(10, dtype=bool), "x": np.arange(10)}])
def test_a_batch_keeps_its_type_and_its_write_ids(kind: Any, extra: dict[str, Any]) -> None:
    buffer = filled(kind, **extra)
    with buffer.batches(4, prefetch=1) as batches:
        ahead = next(batches)
    for batch in (buffer.sample(4), buffer.get([[3, 1]]), buffer.get(2), ahead):
        for found in (to_torch(batch), to_torch(batch, "cpu")):
            assert_same(found, batch)
            assert isinstance(found, diskreplay.Batch | diskreplay.PrioritizedBatch)
            changed = found._replace(rewards=found.rewards + 1)
            assert torch.equal(changed.indices, found.indices)
            assert torch.equal(changed.rewards, torch.from_numpy(np.asarray(batch.rewards + 1)))
    made_anew = to_torch(type(batch)._make(batch))  # as by tree functions
    assert ("indices" in made_anew._fields) == hasattr(made_anew, "indices")


@pytest.mark.parametrize("kind", KINDS)
def test_tensors_on_the_cpu_share_the_memory_of_the_arrays(kind: Any) -> None:
    batch = filled(kind).sample(4)
    found = to_torch(batch, "cpu")
    for tensor, array in zip((*found, found.indices), (*batch, batch.indices), strict=True):
        assert tensor.data_ptr() == array.ctypes.data
    found.rewards[0] = 7.0
    assert batch.rewards[0] == 7.0


def test_arrays_that_are_read_only_are_copied() -> None:
    batch = filled(PrioritizedReplayBuffer).sample(4)
    batch.states.flags.writeable = False
    before = batch.states.copy()
    found = to_torch(batch)  # without the warning of PyTorch, which would be an error here
    assert_same(found, batch)
    found.states[:] = 7.0
    np.testing.assert_array_equal(batch.states, before)
    assert found.rewards.data_ptr() == batch.rewards.ctypes.data


def test_a_device_that_is_none_is_named() -> None:
    batch = filled(ReplayBuffer).sample(4)
    for device in ("gpu", "cuda:99", object()):
        with pytest.raises(ArgumentError, match=r"device=.*: leave device= away for the CPU"):
            to_torch(batch, device)


def test_every_dtype_of_fields_becomes_a_tensor() -> None:
    dtypes = sorted(diskreplay.schema.field.TYPES)
    buffer = ReplayBuffer(capacity=4, schema={f"of_{dtype}": (dtype, (2,)) for dtype in dtypes})
    buffer.push([0.0], 0, 0.0, [0.0], False, **{f"of_{dtype}": [1, 0] for dtype in dtypes})
    batch = buffer.sample(1)
    found = to_torch(batch)
    assert_same(found, batch)
    assert found.of_b1.dtype is torch.bool
    assert found.of_u8.dtype is torch.uint64


def test_a_device_gets_tensors_of_the_same_shapes() -> None:
    batch = filled(ReplayBuffer).sample(4)
    # Of the devices that a machine without a GPU has, "meta" is the only one beside the CPU.
    found = to_torch(batch, device="meta")
    for tensor, array in zip((*found, found.indices), (*batch, batch.indices), strict=True):
        assert tensor.device.type == "meta"
        assert tensor.shape == array.shape


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("kind", KINDS)
def test_a_gpu_gets_the_numbers(kind: Any) -> None:
    batch = filled(kind).sample(4)
    found = to_torch(batch, "cuda")
    for tensor, array in zip((*found, found.indices), (*batch, batch.indices), strict=True):
        assert tensor.device.type == "cuda"
        np.testing.assert_array_equal(tensor.cpu().numpy(), array)


def test_only_a_batch_is_taken() -> None:
    buffer = filled(ReplayBuffer)
    for bad in (buffer.get([0], fields=["state"]), buffer.draw(2), next(iter(buffer)), None):
        with pytest.raises(ArgumentError, match=r"expected a batch, .*\(found "):
            to_torch(bad)
