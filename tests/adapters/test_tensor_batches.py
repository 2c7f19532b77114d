"""TensorBatches: the batches of `batches`, as tensors; the order in which updates take effect."""

from __future__ import annotations

import gc
import importlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from common import columns
from drawn import KINDS, SIZE, N, as_bytes, filled
from refused import writes_refused

from diskreplay import (
    ArgumentError,
    ClosedError,
    PrioritizedReplayBuffer,
    PriorityError,
    RateLimited,
    RateLimitError,
    ReplayBuffer,
    StorageError,
)

torch = pytest.importorskip("torch")
adapter = importlib.import_module("diskreplay.adapters.torch")
TensorBatches = adapter.TensorBatches
Update = importlib.import_module("diskreplay.adapters.torch.uploads").Update

WAYS = [(0, 0, False), (0, 0, True), (2, 0, False), (2, 0, True), (2, 1, False), (2, 1, True)]
HAS_GPU = torch.cuda.is_available()
needs_gpu = pytest.mark.skipif(not HAS_GPU, reason="needs a GPU")
DEVICES = ["cpu", pytest.param("cuda", marks=needs_gpu)]


def tensors_as_bytes(batch: Any) -> bytes:
    return as_bytes([tensor.cpu().numpy() for tensor in batch])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("prefetch", "readers", "reuse"), WAYS)
@pytest.mark.parametrize("kind", KINDS)
def test_batches_are_those_of_sample(
    kind: Any, prefetch: int, readers: int, reuse: bool, device: str
) -> None:
    with (
        filled(kind) as buffer,
        filled(kind) as twin,
        TensorBatches(buffer, SIZE, device, prefetch, readers, reuse=reuse) as batches,
    ):
        buffer.flush()  # readers read what is committed
        for _, batch in zip(range(12), batches, strict=False):
            wanted = twin.sample(SIZE)
            assert type(batch) is type(wanted)
            assert tensors_as_bytes(batch) == as_bytes(wanted)
            assert batch.states.device.type == device
            assert batch.indices.device.type == "cpu"
            assert batch.indices.numpy().tolist() == wanted.indices.tolist()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("prefetch", "readers", "reuse"), [*WAYS[2:5:2], WAYS[0]])
def test_batches_stay_as_they_are(prefetch: int, readers: int, reuse: bool, device: str) -> None:
    """Tensors that are kept do not change, unless it was said that they may be used again."""
    with (
        filled(PrioritizedReplayBuffer) as buffer,
        filled(PrioritizedReplayBuffer) as twin,
        TensorBatches(buffer, SIZE, device, prefetch, readers, reuse=reuse) as batches,
    ):
        buffer.flush()
        kept = [next(batches) for _ in range(10)]
        assert list(map(tensors_as_bytes, kept)) == [as_bytes(twin.sample(SIZE)) for _ in kept]


@pytest.mark.parametrize("readers", [0, 1])
def test_tensors_that_are_used_again_are_those_of_few_batches(readers: int) -> None:
    with (
        filled(PrioritizedReplayBuffer) as buffer,
        TensorBatches(buffer, SIZE, None, 2, readers, reuse=True) as batches,
    ):
        buffer.flush()
        addresses = {next(batches).states.data_ptr() for _ in range(30)}
        assert len(addresses) <= 3


def test_a_batch_takes_the_tensor_that_the_network_makes_of_it() -> None:
    with (
        filled(PrioritizedReplayBuffer) as buffer,
        TensorBatches(buffer, SIZE) as batches,
    ):
        batch = next(batches)
        errors = (batch.states.sum(-1) * torch.ones(1, requires_grad=True)).abs()
        batches.update_priorities(batch.indices, errors)
        found = buffer.priorities(batch.indices)
        np.testing.assert_array_equal(found, errors.detach().numpy())


def test_updates_from_the_cpu_take_effect_at_once() -> None:
    with (
        filled(PrioritizedReplayBuffer) as buffer,
        TensorBatches(buffer, SIZE, prefetch=0) as batches,
    ):
        assert batches.update_priorities([3], [70.0]) is None
        assert buffer.priorities([3]).tolist() == [70.0]
        with pytest.raises(PriorityError, match=r"NaN|nan"):
            batches.update_priorities([3], torch.tensor([torch.nan]))


@needs_gpu
def test_updates_from_a_gpu_take_effect_one_batch_later() -> None:
    def on_gpu(value: float) -> Any:
        return torch.tensor([value], device="cuda")

    with filled(PrioritizedReplayBuffer) as buffer:
        batches = TensorBatches(buffer, SIZE, "cuda")
        batches.update_priorities([3], on_gpu(70.0))
        assert buffer.priorities([3]).tolist() != [70.0]
        next(batches)
        assert buffer.priorities([3]).tolist() != [70.0]
        next(batches)
        assert buffer.priorities([3]).tolist() == [70.0]
        batches.update_priorities([3], on_gpu(80.0))
        batches.update_priorities([3], on_gpu(90.0))
        assert buffer.priorities([3]).tolist() == [80.0]
        batches.flush()
        assert buffer.priorities([3]).tolist() == [90.0]
        batches.update_priorities([3], on_gpu(100.0))
        batches.close()
        assert buffer.priorities([3]).tolist() == [100.0]


def test_closed_batches_are_refused_and_the_buffer_stays_open() -> None:
    with filled(PrioritizedReplayBuffer) as buffer:
        with TensorBatches(buffer, SIZE, readers=1) as batches:
            next(batches)
        with pytest.raises(ClosedError, match="these batches are closed"):
            next(batches)
        batches.close()
        assert len(buffer) == N
        buffer.extend(**columns(N, 5))


@pytest.mark.skipif(HAS_GPU, reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_named() -> None:
    with (
        filled(PrioritizedReplayBuffer) as buffer,
        pytest.raises(ArgumentError, match=r"device='cuda' needs a GPU"),
    ):
        TensorBatches(buffer, SIZE, "cuda")


@pytest.mark.parametrize("device", ["gpu", "", "cuda:99", -1, [], object()])
def test_a_device_that_is_none_is_named(device: Any) -> None:
    with (
        filled(PrioritizedReplayBuffer) as buffer,
        pytest.raises(ArgumentError, match=r"device=.*: leave device= away for the CPU"),
    ):
        TensorBatches(buffer, SIZE, device)


def test_other_things_than_buffers_are_refused() -> None:
    for other in ([1], None, PrioritizedReplayBuffer):
        with pytest.raises(ArgumentError, match=r"expected a ReplayB.* or a client \(found "):
            TensorBatches(other, SIZE)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("prefetch", "readers", "reuse"), WAYS)
def test_batches_of_a_limited_buffer_wait(
    prefetch: int, readers: int, reuse: bool, device: str
) -> None:
    limits = {"min_size": N, "samples_per_insert": SIZE, "tolerance": SIZE, "timeout": 0}
    with (
        RateLimited(filled(PrioritizedReplayBuffer), **limits) as buffer,
        filled(PrioritizedReplayBuffer) as twin,
        TensorBatches(buffer, SIZE, device, prefetch, readers, reuse=reuse) as batches,
    ):
        batch = next(batches)
        assert tensors_as_bytes(batch) == as_bytes(twin.sample(SIZE))
        batches.update_priorities(batch.indices, np.full(SIZE, 5.0))
        assert set(buffer.priorities(batch.indices).tolist()) == {5.0}
        with pytest.raises(RateLimitError, match="no sample was allowed"):
            next(batches)
        buffer.extend(**columns(N, 1))
        assert next(batches).rewards.shape == (SIZE,)


@pytest.mark.parametrize("limits", [None, {"min_size": 1}])
def test_priorities_of_a_uniform_buffer_are_refused(limits: Any) -> None:
    uniform = filled(ReplayBuffer)
    with (
        uniform if limits is None else RateLimited(uniform, **limits) as buffer,
        TensorBatches(buffer, SIZE) as batches,
    ):
        batch = next(batches)
        with pytest.raises(ArgumentError, match=r"needs a PrioritizedReplayBuffer \(found a Repl"):
            batches.update_priorities(batch.indices, batch.rewards)


@pytest.mark.parametrize("device", DEVICES)
def test_closed_batches_take_no_priorities(device: str) -> None:
    """On a GPU they would be copied, and never be applied."""
    with filled(PrioritizedReplayBuffer) as buffer:
        before = buffer.priorities([3]).tolist()
        with TensorBatches(buffer, SIZE, device) as batches:
            next(batches)
        with pytest.raises(ClosedError, match="closed: call update_priorities of the buffer"):
            batches.update_priorities([3], torch.tensor([70.0], device=device))
        assert buffer.priorities([3]).tolist() == before


def test_batches_go_to_other_devices_without_their_write_ids() -> None:
    with (
        filled(PrioritizedReplayBuffer) as buffer,
        TensorBatches(buffer, SIZE, "meta") as batches,
    ):
        batch = next(batches)
        assert [tensor.device.type for tensor in batch] == [*["meta"] * 6, "cpu"]


def test_an_update_that_could_not_be_applied_is_applied_by_the_next_call(tmp_path: Path) -> None:
    """The event stands for a GPU's: the priorities are on the CPU when it is over."""
    interrupts = [KeyboardInterrupt]

    def synchronize() -> None:
        if interrupts:
            raise interrupts.pop()

    event = SimpleNamespace(synchronize=synchronize)
    with PrioritizedReplayBuffer(N, path=tmp_path / "b", commit_interval=0) as buffer:
        buffer.extend(**columns(0, N))
        batches = TensorBatches(buffer, SIZE, prefetch=0)
        batches._pending = Update(np.array([3]), torch.tensor([70.0]), event)
        with pytest.raises(KeyboardInterrupt):
            batches.flush()
        with writes_refused(), pytest.raises(StorageError):
            batches.flush()
        assert buffer.priorities([3]).tolist() != [70.0]
        batches.flush()
        assert buffer.priorities([3]).tolist() == [70.0]
        batches._pending = Update(np.array([3]), torch.tensor([torch.nan]), event)
        with pytest.raises(PriorityError):
            batches.flush()
        batches.close()  # a priority that nobody can apply is raised once


@needs_gpu
def test_write_ids_may_be_changed_after_an_update_from_a_gpu() -> None:
    with (
        filled(PrioritizedReplayBuffer) as buffer,
        TensorBatches(buffer, SIZE, "cuda") as batches,
    ):
        for ids in (np.array([3]), torch.tensor([3]), torch.tensor([3], device="cuda")):
            batches.update_priorities(ids, torch.tensor([70.0], device="cuda"))
            ids[0] = 5
            batches.flush()
            assert buffer.priorities([3]).tolist() == [70.0]
            assert buffer.priorities([5]).tolist() != [70.0]
            batches.update_priorities([3], [1.0])


@needs_gpu
@pytest.mark.parametrize("readers", [0, 1])
def test_batches_that_are_dropped_leave_no_page_pinned(readers: int) -> None:
    """Or the copies of other arrays at the same address would be those of the old pages."""
    with filled(PrioritizedReplayBuffer) as buffer, filled(PrioritizedReplayBuffer) as twin:
        buffer.flush()
        for _ in range(10):
            batches = TensorBatches(buffer, SIZE, "cuda", 2, readers)
            for _ in range(4):
                assert tensors_as_bytes(next(batches)) == as_bytes(twin.sample(SIZE))
            pinned = batches._upload._pinned
            assert pinned
            del batches
            gc.collect()
            assert not pinned


@needs_gpu
def test_memory_that_cannot_be_pinned_is_copied_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = torch.cuda.cudart()

    def register(address: int, size: int, flags: int) -> Any:
        return real.cudaHostRegister(address, size, 1 << 20)  # flags that there are not

    with (
        filled(PrioritizedReplayBuffer) as buffer,
        filled(PrioritizedReplayBuffer) as twin,
        TensorBatches(buffer, SIZE, "cuda") as batches,
    ):
        monkeypatch.setattr(
            torch.cuda,
            "cudart",
            lambda: SimpleNamespace(
                cudaHostRegister=register, cudaHostUnregister=real.cudaHostUnregister
            ),
        )
        for _ in range(4):
            assert tensors_as_bytes(next(batches)) == as_bytes(twin.sample(SIZE))
        assert not batches._upload._pinned
        assert torch.ones(3, device="cuda").add_(1).tolist() == [2.0] * 3


@needs_gpu
def test_a_device_without_a_number_is_the_current_one() -> None:
    with filled(PrioritizedReplayBuffer) as buffer, TensorBatches(buffer, SIZE, "cuda") as batches:
        assert batches._device == torch.device("cuda", torch.cuda.current_device())
