"""TensorBatches over a client are those over the buffer."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
from drawn import KINDS, SIZE, as_bytes, filled

from diskreplay import PrioritizedReplayBuffer, RateLimited

torch = pytest.importorskip("torch")
pytest.importorskip("pyarrow.flight")
pytest.importorskip("prometheus_client")
served = importlib.import_module("served").served
TensorBatches = importlib.import_module("diskreplay.adapters.torch").TensorBatches


def tensors_as_bytes(batch: Any) -> bytes:
    return as_bytes([tensor.numpy() for tensor in batch])


@pytest.mark.parametrize("n_step", [1, 3])
@pytest.mark.parametrize("prefetch", [0, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_batches_are_those_of_the_served_buffer(kind: Any, prefetch: int, n_step: int) -> None:
    with (
        filled(kind) as twin,
        served(filled(kind)) as replay,
        TensorBatches(replay, SIZE, prefetch=prefetch, n_step=n_step) as batches,
    ):
        for _, batch in zip(range(8), batches, strict=False):
            wanted = twin.sample(SIZE, n_step=n_step)
            assert type(batch) is type(wanted)
            assert tensors_as_bytes(batch) == as_bytes(wanted)
            assert batch.indices.numpy().tolist() == wanted.indices.tolist()


def test_priorities_go_home() -> None:
    with (
        served(filled(PrioritizedReplayBuffer)) as replay,
        TensorBatches(replay, SIZE, prefetch=0) as batches,
    ):
        indices = next(batches).indices
        batches.update_priorities(indices, torch.full((SIZE,), 7.5))
        next(batches)
        assert (replay.priorities(indices.numpy()) == 7.5).all()


def test_a_limited_client_is_a_source() -> None:
    with (
        served(filled(PrioritizedReplayBuffer)) as replay,
        RateLimited(replay, min_size=1) as limited,
        TensorBatches(limited, SIZE, prefetch=2) as batches,
    ):
        assert next(batches).states.shape[0] == SIZE
