"""TensorBatches of a mixture: its batches as tensors, and priorities that go home."""

from __future__ import annotations

import importlib
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from drawn import SIZE, as_bytes
from mixed import prioritized, uniform

from diskreplay import ArgumentError, Batch, ClosedError, Mixture, PriorityError

torch = pytest.importorskip("torch")
adapter = importlib.import_module("diskreplay.adapters.torch")
TensorBatches = adapter.TensorBatches
uploads = importlib.import_module("diskreplay.adapters.torch.uploads")

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
DEVICES = ["cpu", pytest.param("cuda", marks=needs_gpu)]


def mixed(kind: Any = prioritized, **settings: Any) -> Mixture:
    buffers = {"a": uniform(0, 60, **settings), "b": kind(1, 60, **settings)}
    return Mixture(buffers, {"a": 1, "b": 2}, seed=1)


def tensors_as_bytes(batch: Any) -> bytes:
    return as_bytes([tensor.cpu().numpy() for tensor in batch])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("n_step", [1, 3])
@pytest.mark.parametrize(("prefetch", "reuse"), [(0, False), (0, True), (2, False), (2, True)])
@pytest.mark.parametrize("kind", [uniform, prioritized])
def test_batches_are_those_of_the_mixture(
    kind: Any, prefetch: int, reuse: bool, n_step: int, device: str
) -> None:
    mixture, twin = mixed(kind), mixed(kind)
    settings: Any = {"reuse": reuse, "n_step": n_step, "gamma": 0.5}
    with TensorBatches(mixture, SIZE, device, prefetch, **settings) as batches:
        for _, batch in zip(range(12), batches, strict=False):
            wanted = twin.sample(SIZE, n_step=n_step, gamma=0.5)
            assert type(batch) is type(wanted)
            assert batch._fields[-1] == "sources"
            assert tensors_as_bytes(batch) == as_bytes(wanted)
            assert (batch.sources.dtype, batch.sources.device.type) == (torch.int64, device)
            assert batch.indices.device.type == "cpu"
            assert batch.indices.tolist() == wanted.indices.tolist()
            of_b = batch.states[batch.sources == 1]  # a mask of rows
            assert of_b.cpu().tolist() == wanted.states[wanted.sources == 1].tolist()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("prefetch", [0, 2])
def test_kept_tensors_stay_as_they_are(prefetch: int, device: str) -> None:
    mixture, twin = mixed(), mixed()
    with TensorBatches(mixture, SIZE, device, prefetch) as batches:
        kept = [next(batches) for _ in range(10)]
        ids = [batch.indices.tolist() for batch in kept]
    wanted = [twin.sample(SIZE) for _ in kept]
    assert list(map(tensors_as_bytes, kept)) == list(map(as_bytes, wanted))
    assert ids == [batch.indices.tolist() for batch in wanted]


@pytest.mark.parametrize("on", DEVICES)
@pytest.mark.parametrize("device", DEVICES)
def test_priorities_go_home(device: str, on: str) -> None:
    mixture = mixed()
    b = mixture["b"]
    with TensorBatches(mixture, SIZE, device, prefetch=0) as batches:
        for turn in range(4):
            batch = next(batches)
            wanted = b.priorities(range(60))
            new = 10.0 * turn + np.arange(SIZE)
            for i in np.flatnonzero(batch.sources.cpu() == 1):
                wanted[batch.indices[i]] = new[i]  # the last of duplicates wins
            batches.update_priorities(batch, torch.tensor(new, device=on))
            batches.flush()
            assert b.priorities(range(60)).tolist() == wanted.tolist()
        with pytest.raises(PriorityError):
            batches.update_priorities(batch, torch.full((SIZE,), -1.0))
        with pytest.raises(ArgumentError, match="takes a batch of this mixture, whose `sources`"):
            batches.update_priorities(batch.indices, torch.ones(SIZE))
    with pytest.raises(ClosedError, match="closed: call update_priorities of the buffer"):
        batches.update_priorities(batch, torch.ones(SIZE))
    assert len(mixture) == 120


def test_an_update_on_its_way_goes_home() -> None:
    """The event stands for a GPU's: the copies are on the CPU when it is over."""
    mixture = mixed()
    batches = TensorBatches(mixture, SIZE, prefetch=0)
    ids = uploads.SourcedIds(torch.tensor([3, 3]), torch.tensor([0, 1]))
    event = SimpleNamespace(synchronize=list)
    batches._pending = uploads.Update(ids, torch.tensor([70.0, 80.0]), event)
    next(batches)
    assert mixture["b"].priorities([3]).tolist() != [80.0]
    next(batches)
    assert mixture["b"].priorities([3]).tolist() == [80.0]


def test_batches_go_to_other_devices_with_their_sources() -> None:
    with TensorBatches(mixed(), SIZE, "meta") as batches:
        batch = next(batches)
        assert [tensor.device.type for tensor in batch] == [*["meta"] * 6, "cpu", "meta"]


def test_fields_in_the_log_come_whole() -> None:
    def of(place: int) -> Any:
        return uniform(place, 60, observations="log")

    mixture, twin = (Mixture({"a": of(0), "b": of(1)}, seed=1) for _ in range(2))
    with TensorBatches(mixture, SIZE) as batches:
        for _, batch in zip(range(3), batches, strict=False):
            wanted = twin.sample(SIZE)
            assert isinstance(batch, Batch)
            assert tensors_as_bytes(batch) == as_bytes(wanted)


def test_sequences_of_a_mixture_become_tensors() -> None:
    batch = mixed().sample_sequences(6, 4)
    found = adapter.to_torch(batch)
    assert type(found) is type(batch)
    assert tensors_as_bytes(found) == as_bytes(batch)
    assert found.sources.dtype == torch.int64
    mixture = mixed()
    mixture.sample_sequences(6, 4)
    assert mixture.update_priorities(found, torch.arange(6.0)) == 4


def test_readers_are_refused() -> None:
    with pytest.raises(ArgumentError, match=r"a mixture has no reader processes .*readers=2"):
        TensorBatches(mixed(), SIZE, readers=2)
