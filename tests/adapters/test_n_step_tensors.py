"""n-step returns and sequences as tensors."""

from __future__ import annotations

import numpy as np
import pytest
from episode_twin import EpisodeTwin, check_n_step, columns

from diskreplay import PrioritizedReplayBuffer, ReplayBuffer

torch = pytest.importorskip("torch")


@pytest.mark.parametrize("kind", [ReplayBuffer, PrioritizedReplayBuffer])
@pytest.mark.parametrize("reuse", [False, True])
def test_batches_of_tensors_are_those_of_arrays(kind: type, reuse: bool) -> None:
    from diskreplay.adapters.torch import TensorBatches

    twin = EpisodeTwin(40)
    steps = [twin.push(i % 2, truncated=i % 9 == 8) for i in range(60)]
    with kind(40, seed=1) as buffer:
        buffer.extend(**columns(steps))
        with TensorBatches(buffer, 16, n_step=3, gamma=0.9, reuse=reuse) as batches:
            for _ in range(4):
                batch = next(batches)
                assert isinstance(batch.discounts, torch.Tensor)
                arrays = batch._make(np.asarray(tensor) for tensor in batch)
                if kind is ReplayBuffer:
                    vars(arrays)["indices"] = np.asarray(batch.indices)
                check_n_step(twin, arrays, 3, 0.9)


def test_bad_arguments_are_those_of_the_buffer() -> None:
    from diskreplay.adapters.torch import TensorBatches

    with ReplayBuffer(40) as buffer, pytest.raises(ValueError, match="n_step must be a whole"):
        TensorBatches(buffer, 16, n_step=0)


@pytest.mark.parametrize("kind", [ReplayBuffer, PrioritizedReplayBuffer])
def test_sequences_become_tensors(kind: type) -> None:
    from diskreplay.adapters.torch import to_torch

    twin = EpisodeTwin(40)
    with kind(40, seed=1) as buffer:
        buffer.extend(**columns([twin.push(0, truncated=i % 9 == 8) for i in range(30)]))
        batch = buffer.sample_sequences(5, 4)
        tensors = to_torch(batch)
        assert type(tensors) is type(batch)
        assert tensors.mask.dtype == torch.bool
        for tensor, array in zip(tensors, batch, strict=True):
            np.testing.assert_array_equal(np.asarray(tensor), array)
