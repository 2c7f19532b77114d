"""Batches with values that vary in size as tensors of PyTorch."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest

from diskreplay import ArgumentError, ReplayBuffer

torch = pytest.importorskip("torch")
adapter = importlib.import_module("diskreplay.adapters.torch")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
DEVICES = ["cpu", pytest.param("cuda", marks=needs_gpu)]


def filled() -> Any:
    parts = {"points": ("float32", (None, 3)), "goal": str}
    buffer = ReplayBuffer(30, seed=0, schema={"state": parts, "tokens": ("int32", (None,))})
    for i in range(30):
        state = {"points": np.full((i % 4, 3), i), "goal": f"goal {i}"}
        buffer.push(state, i, 1.0, state, False, tokens=np.full(i % 5, i))
    return buffer


def check(batch: Any, device: str) -> None:
    """Compare tensors in lists with the rows that they were made of."""
    for place, i in enumerate(batch.indices.tolist()):
        assert batch.tokens[place].tolist() == [i] * (i % 5)
        assert batch.states["points"][place].tolist() == [[i] * 3] * (i % 4)
        assert batch.next_states["goal"][place] == f"goal {i}"
    assert {tensor.device.type for tensor in batch.tokens} == {device}


def check_padded(batch: Any, device: str) -> None:
    """Compare padded tensors with the rows that they were made of."""
    assert batch.tokens.device.type == batch.states_mask["points"].device.type == device
    for place, i in enumerate(batch.indices.tolist()):
        assert batch.tokens[place][batch.tokens_mask[place]].tolist() == [i] * (i % 5)
        found = batch.states["points"][place][batch.states_mask["points"][place]]
        assert found.tolist() == [[i] * 3] * (i % 4)


@pytest.mark.parametrize("device", DEVICES)
def test_values_that_vary_become_lists_of_tensors_or_padded_ones(device: str) -> None:
    buffer = filled()
    check(adapter.to_torch(buffer.sample(9), device), device)
    check_padded(adapter.to_torch(buffer.sample(9, pad=True), device), device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("prefetch", "reuse"), [(0, False), (0, True), (2, False), (2, True)])
def test_batches_of_tensors_are_those_of_sample(device: str, prefetch: int, reuse: bool) -> None:
    buffer = filled()
    with adapter.TensorBatches(buffer, 8, device, prefetch, reuse=reuse) as batches:
        for _ in range(6):
            check(next(batches), device)
    with adapter.TensorBatches(buffer, 8, device, prefetch, pad=True) as batches:
        for _ in range(6):
            check_padded(next(batches), device)
    with pytest.raises(ArgumentError, match="pad=True makes arrays of a new shape"):
        adapter.TensorBatches(buffer, 8, device, prefetch, reuse=True, pad=True)
