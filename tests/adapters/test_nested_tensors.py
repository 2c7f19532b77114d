"""Nested batches as tensors of PyTorch: of one batch, and ahead of their use."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest
from nested_rows import assert_same, columns, each, numbers_of, row

import diskreplay
from diskreplay import PrioritizedReplayBuffer, ReplayBuffer

torch = pytest.importorskip("torch")
adapter = importlib.import_module("diskreplay.adapters.torch")

KINDS = [ReplayBuffer, PrioritizedReplayBuffer]
WAYS = [(0, 0, False), (0, 0, True), (2, 0, False), (2, 0, True), (2, 1, False), (2, 1, True)]
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
DEVICES = ["cpu", pytest.param("cuda", marks=needs_gpu)]
INFO = {"box": (np.arange(20), np.zeros((20, 3), bool))}


def filled(kind: Any) -> Any:
    buffer = kind(capacity=30, seed=0)
    buffer.extend(**columns(0, 20), info=INFO)
    buffer.flush()
    return buffer


def tensor_of(value: Any) -> Any:
    return torch.from_numpy(np.array(value))


def on_cpu(batch: Any) -> tuple[Any, ...]:
    """Return the elements of a batch as arrays, after checking that all are tensors."""

    def array(tensor: Any) -> Any:
        assert isinstance(tensor, torch.Tensor)
        return tensor.cpu().numpy()

    return tuple(each(value, array) for value in batch)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_nested_batch_becomes_nested_tensors(kind: Any, device: str) -> None:
    for batch in (filled(kind).sample(6), filled(kind).get([3, 1])):
        found = adapter.to_torch(batch, device)
        assert type(found) is type(batch)
        assert_same(on_cpu(found), tuple(batch))
        assert found.states["robot"]["arm"].dtype is torch.float32
        assert found.states["camera"].device.type == device
        assert found.indices.tolist() == batch.indices.tolist()
    if device == "cpu":
        assert found.states["goal"][1].data_ptr() == batch.states["goal"][1].ctypes.data


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("prefetch", "readers", "reuse"), WAYS)
@pytest.mark.parametrize("kind", KINDS)
def test_nested_batches_are_those_of_sample(
    kind: Any, prefetch: int, readers: int, reuse: bool, device: str
) -> None:
    with (
        filled(kind) as buffer,
        filled(kind) as twin,
        adapter.TensorBatches(buffer, 6, device, prefetch, readers, reuse=reuse) as batches,
    ):
        for _, batch in zip(range(8), batches, strict=False):
            wanted = twin.sample(6)
            assert type(batch) is type(wanted)
            assert_same(on_cpu(batch), tuple(wanted))
            assert numbers_of(wanted).tolist() == batch.indices.tolist()
            assert batch.states["goal"][1].device.type == device
            assert batch.info["box"][1].dtype is torch.bool
            assert batch.indices.device.type == "cpu"


def test_nested_batches_go_to_other_devices() -> None:
    with filled(ReplayBuffer) as buffer, adapter.TensorBatches(buffer, 4, "meta") as batches:
        batch = next(batches)
        assert batch.states["camera"].device.type == "meta"
        assert batch.indices.device.type == "cpu"


def test_tensors_are_stored_as_nested_values() -> None:
    buffer = ReplayBuffer(capacity=30)
    for number in range(3):
        buffer.push(**{n: each(v, tensor_of) for n, v in row(number).items()})
    buffer.extend(**{n: each(v, tensor_of) for n, v in columns(3, 4).items()})
    assert numbers_of(buffer.get(range(7))).tolist() == list(range(7))
    assert isinstance(buffer.sample(2), diskreplay.Batch)
