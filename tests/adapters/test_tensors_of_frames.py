"""Tensors of fields in the log: distinct frames travel, and stacks are put together there."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest
from stacked import columns, frames_in, stored

import diskreplay
from diskreplay import Field, PrioritizedReplayBuffer, ReplayBuffer

torch = pytest.importorskip("torch")
adapter = importlib.import_module("diskreplay.adapters.torch")
PackedBatch = importlib.import_module("diskreplay.adapters.torch.packed_batch").PackedBatch

N, SIZE = 80, 16
WAYS = [(0, 0, False), (0, 0, True), (2, 0, False), (2, 0, True), (2, 1, False), (2, 1, True)]
KINDS = [ReplayBuffer, PrioritizedReplayBuffer]
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
DEVICES = ["cpu", pytest.param("cuda", marks=needs_gpu)]
LAYOUTS: list[dict[str, Any]] = [{"axis": 0}, {"axis": -1}, {"axis": 0, "side": 9}]


def assert_same(found: Any, wanted: Any) -> None:
    """Check that a batch of tensors is the one of arrays, bit for bit."""
    assert type(found) is type(wanted)
    for tensor, array in zip((*found, found.indices), (*wanted, wanted.indices), strict=True):
        if isinstance(array, dict):
            assert_same_parts(tensor, array)
        else:
            assert_same_values(tensor, array)


def assert_same_parts(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        assert_same_values(found[name], array)


def assert_same_values(tensor: Any, array: Any) -> None:
    assert tensor.dtype is torch.from_numpy(array).dtype
    assert tensor.shape == array.shape
    assert tensor.is_contiguous()
    assert tensor.cpu().numpy().tobytes() == array.tobytes()


def kinds_of_frames() -> Any:
    """Return a buffer with frames of two sizes, of several types, and in dictionaries."""
    fields = [
        *(Field(f"{name}.camera", "u1", (48, 48, 3), frame_axis=2)
          for name in ("state", "next_state")),
        *(Field(f"{name}.map", "f8", (30, 2), log=True) for name in ("state", "next_state")),
        Field("flags", "?", (5,), log=True), Field("wide", "u8", (3,), log=True),
        Field("none", "f4", (2, 0), log=True), Field("x", "c8", (3,), log=True),
        Field("action", "i8"), Field("reward", "f4"), Field("done", "f4"),
    ]  # fmt: skip
    buffer = ReplayBuffer(50, schema=diskreplay.Schema(fields), seed=1, commit_interval=1e9)
    rng = np.random.default_rng(1)
    for n in (35, 5):
        cameras = rng.integers(0, 256, (2, n, 48, 48, 3), np.uint8)
        states = [{"camera": cameras[i], "map": rng.random((n, 30, 2))} for i in (0, 1)]
        buffer.extend(
            states[0], np.arange(n), np.arange(n), states[1], np.zeros(n),
            flags=rng.random((n, 5)) < 0.5, wide=rng.integers(0, 2**63, (n, 3), np.uint64),
            none=np.zeros((n, 2, 0), np.float32), x=rng.random((n, 3)).astype(np.complex64),
        )  # fmt: skip
        if n > 5:
            buffer.flush()
    return buffer


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", KINDS)
def test_to_torch_puts_frames_together(kind: Any, layout: dict[str, Any], device: str) -> None:
    with (
        stored(None, N, pending=20, kind=kind, **layout) as buffer,
        stored(None, N, pending=20, kind=kind, **layout) as twin,
        buffer.batches(SIZE, frames=True) as batches,
    ):
        for _ in range(4):
            assert_same(adapter.to_torch(next(batches), device), twin.sample(SIZE))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("prefetch", "readers", "reuse"), WAYS)
def test_batches_of_stacks_are_those_of_sample(
    prefetch: int, readers: int, reuse: bool, layout: dict[str, Any], device: str
) -> None:
    with (
        stored(None, N, pending=20, **layout) as buffer,
        stored(None, N, pending=20, **layout) as twin,
        adapter.TensorBatches(buffer, SIZE, device, prefetch, readers, reuse=reuse) as batches,
    ):
        for turn in range(8):
            batch, wanted = next(batches), twin.sample(SIZE)
            assert_same(batch, wanted)
            assert batch.next_states.device.type == device
            assert batch.indices.device.type == "cpu"
            if turn == 4:
                buffer.flush()
                twin.flush()


@pytest.mark.parametrize("device", DEVICES)
def test_frames_of_several_kinds(device: str) -> None:
    with (
        kinds_of_frames() as buffer,
        kinds_of_frames() as twin,
        adapter.TensorBatches(buffer, SIZE, device, 2, 1) as batches,
    ):
        for _ in range(6):
            assert_same(next(batches), twin.sample(SIZE))


@pytest.mark.parametrize("make", [kinds_of_frames, lambda: stored(None, N, pending=20, axis=-1)])
@pytest.mark.parametrize("readers", [0, 1])
def test_a_packed_batch_is_put_together_from_copies_of_its_pieces(make: Any, readers: int) -> None:
    """As for a GPU: one copy, and one for each further kind, of what is used and no more."""
    packed: dict[int, Any] = {}
    with (
        make() as buffer,
        make() as twin,
        buffer.batches(SIZE, 2, readers, reuse=True, frames=True) as batches,
    ):
        for _ in range(8):
            batch = next(batches)
            found = packed.setdefault(id(frames_in(batch)[0]), PackedBatch.of(batch))
            pieces = found.pieces()
            kinds = {one.frames.ctypes.data: one.frames.nbytes for one in frames_in(batch)}
            assert len(pieces) == len(kinds)
            used = sum(kinds.values()) + sum(one.rows.nbytes for one in frames_in(batch))
            used += sum(one.nbytes for one in batch if isinstance(one, np.ndarray))
            pages = 4096 * (len(frames_in(batch)) + len(batch))
            assert used - batch.indices.nbytes <= sum(map(len, pieces)) <= used + pages
            copies = [piece.clone() for piece in pieces]
            tensors, memory = found.unpacked(batch, copies)
            for copy in copies:
                copy.zero_()  # it is given back when the stacks are put together
            assert_same(tensors, twin.sample(SIZE))
            assert len(memory) == 1 + len(frames_in(batch))
        assert len(packed) <= 3


def test_only_a_batch_in_one_piece_of_memory_is_packed() -> None:
    with stored(None, N) as buffer:
        for batches in (buffer.batches(4, frames=True), buffer.batches(4, 1, frames=True)):
            with batches:
                assert PackedBatch.of(next(batches)) is None
        assert PackedBatch.of(buffer.sample(4)) is None


@pytest.mark.parametrize("size", [32, 256])
def test_the_bytes_that_travel_are_at_most_seven_tenths_of_those_of_pairs(size: int) -> None:
    """Where no two transitions have frames in common: five frames travel in place of eight."""

    def copied_bytes(**layout: Any) -> int:
        with ReplayBuffer(capacity=size, **layout) as buffer:
            for number in range(size):
                buffer.extend(**columns(number * 10, 1))
            buffer.flush()
            # Of the devices that a machine without a GPU has, it is the only one beside the CPU.
            with adapter.TensorBatches(buffer, size, "meta", prefetch=0) as batches:
                for _ in range(3):
                    assert next(batches).states.shape == (size, 4, 40, 40)
                return int(batches.copied_bytes)

    pairs = 3 * size * (2 * 4 * 40 * 40 + 8 + 4 + 4)
    assert copied_bytes() == pairs
    assert 0.62 * pairs < copied_bytes(frame_axis=0) < 0.7 * pairs


def test_nothing_is_copied_on_the_cpu() -> None:
    with stored(None, N) as buffer, adapter.TensorBatches(buffer, SIZE) as batches:
        assert isinstance(next(batches).states, torch.Tensor)
        assert batches.copied_bytes == 0
