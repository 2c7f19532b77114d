"""Batches with Frames: the distinct frames of stacks, from the window, the log and readers."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from common import run_python
from nested_rows import assert_same
from stacked import STACK, columns, content, frames_in, stored, whole
from stores import change
from stores import stored as value_of

import diskreplay
from diskreplay import DamageError, Field, Frames, ReplayBuffer

N, SIZE = 80, 16
WAYS = [(0, 0, False), (0, 0, True), (2, 0, False), (2, 0, True), (2, 1, False), (2, 1, True)]


def put_together(found: Frames) -> Any:
    """Return the values as any library of arrays would make them."""
    values = found.frames[found.rows]
    return values if found.axis is None else np.moveaxis(values, 1, 1 + found.axis)


@pytest.mark.parametrize("pending", [0, 30, N])
@pytest.mark.parametrize(
    "settings", [{"axis": 0}, {"axis": -1, "window_bytes": 0}, {"axis": 0, "side": 8}]
)
@pytest.mark.parametrize(("prefetch", "readers", "reuse"), WAYS)
def test_stacks_put_together_are_those_of_sample(
    prefetch: int, readers: int, reuse: bool, settings: dict[str, Any], pending: int
) -> None:
    """Also where rows are not committed, and where they are small, so that the window has them."""
    with (
        stored(None, N, pending=pending, **settings) as buffer,
        stored(None, N, pending=pending, **settings) as twin,
        buffer.batches(SIZE, prefetch, readers, reuse=reuse, frames=True) as batches,
    ):
        for _ in range(6):
            batch, wanted = next(batches), twin.sample(SIZE)
            assert type(batch) is type(wanted)
            assert content(batch) == content(wanted)
            for found, value in ((batch.states, wanted.states), (batch[3], wanted[3])):
                assert (found.whole().dtype, found.whole().shape) == (value.dtype, value.shape)
                np.testing.assert_array_equal(put_together(found), value)
                assert str(found.rows.dtype) == "int32"


def test_each_frame_of_a_batch_is_there_once() -> None:
    with stored(None, N) as buffer, buffer.batches(N, reuse=True, frames=True) as batches:
        for _ in range(8):
            batch = next(batches)
            steps = set(batch.indices.tolist())
            distinct = {step + place for step in steps for place in range(STACK + 1)}
            found = batch.states.frames
            assert found.ctypes.data == batch.next_states.frames.ctypes.data
            assert np.unique(found[: len(distinct)], axis=0).shape == (len(distinct), 40, 40)
            assert not found[len(distinct) :].any()
            assert len(found) % (N // 4) == 0 or len(found) == 2 * STACK * N
            assert len(found) < len(distinct) + N // 4
            used = {*batch.states.rows.ravel().tolist(), *batch.next_states.rows.ravel().tolist()}
            assert used == set(range(len(distinct)))
            assert repr(batch.states) == (
                f"Frames(frames=uint8[{len(found)}, 40, 40], rows=int32[{N}, {STACK}], axis=0)"
            )


def test_rows_that_are_not_committed_have_the_frames_of_a_next_state_once() -> None:
    with (
        stored(None, N, pending=N, kind=ReplayBuffer) as buffer,
        buffer.batches(SIZE, frames=True) as batches,
    ):
        assert len(next(batches).states.frames) == SIZE * (STACK + 1)


@pytest.mark.parametrize("size", [32, 256])
def test_a_batch_of_frames_has_at_most_seven_tenths_of_the_bytes_of_pairs(size: int) -> None:
    """Five frames of eight, where no two transitions of a batch have frames in common."""
    with ReplayBuffer(capacity=2 * size, frame_axis=0) as buffer:
        for number in range(size):
            buffer.extend(**columns(number * 10, 1))
        buffer.flush()
        with buffer.batches(size, frames=True) as batches:
            batch = next(batches)
        states = batch.states, batch.next_states
        taken = states[0].frames.nbytes + sum(found.rows.nbytes for found in states)
        assert 0.62 < taken / sum(value.whole().nbytes for value in states) < 0.7


def test_batches_that_are_not_used_again_stay_as_they_are() -> None:
    for prefetch, readers in ((0, 0), (2, 0), (2, 1)):
        with (
            stored(None, N) as buffer,
            stored(None, N) as twin,
            buffer.batches(SIZE, prefetch, readers, frames=True) as batches,
        ):
            kept = [next(batches) for _ in range(8)]
            assert list(map(content, kept)) == [content(twin.sample(SIZE)) for _ in kept]
            assert kept[0].states.frames.ctypes.data == kept[0].next_states.frames.ctypes.data
            assert content(copy.deepcopy(kept[0])) == content(kept[0])


@pytest.mark.parametrize(("prefetch", "readers"), [(0, 0), (2, 0), (2, 1)])
def test_nested_fields_of_several_kinds(prefetch: int, readers: int) -> None:
    """Frames of bytes, whole observations of floats, compressed ones, and a part in the record."""
    image = {"dtype": "u1", "shape": (48, 48, 3), "frame_axis": -1}
    fields = [
        *(Field(f"{name}.camera", **image) for name in ("state", "next_state")),
        *(Field(f"{name}.map", "f8", (30, 2), log=True) for name in ("state", "next_state")),
        *(Field(f"{name}.speed", "f4") for name in ("state", "next_state")),
        Field("flags", "?", (9, 0), log=True), Field("mask", "?", (5,), log=True),
    ]  # fmt: skip
    fields += [Field("action", "i8"), Field("reward", "f4"), Field("done", "f4")]
    rng = np.random.default_rng(1)

    def state() -> dict[str, Any]:
        cameras = rng.integers(0, 256, (40, 48, 48, 3), np.uint8)
        return {"camera": cameras, "map": rng.random((40, 30, 2)), "speed": rng.random(40)}

    given = {
        "states": state(), "actions": np.arange(40), "rewards": np.arange(40),
        "next_states": state(), "dones": np.zeros(40), "flags": np.zeros((40, 9, 0), bool),
        "mask": rng.random((40, 5)) < 0.5,
    }  # fmt: skip
    with (
        ReplayBuffer(capacity=50, schema=diskreplay.Schema(fields), seed=1) as buffer,
        buffer.batches(8, prefetch, readers, reuse=True, frames=True) as batches,
    ):
        buffer.extend(**given)
        for turn in range(6):
            batch = next(batches)
            assert len(frames_in(batch)) == 6
            assert_same(tuple(whole(batch)), tuple(buffer.get(batch.indices)))
            assert batch.states["camera"].rows.shape == (8, 3)
            assert batch.mask.rows.shape == (8,)
            if turn == 2:
                buffer.flush()


def test_a_buffer_without_a_log_gives_arrays() -> None:
    with ReplayBuffer(capacity=20) as buffer, buffer.batches(4, 2, 1, frames=True) as batches:
        buffer.extend(**columns(0, 10))
        batch = next(batches)
        assert type(batch.states) is np.ndarray
        assert content(batch) == content(buffer.get(batch.indices))


@pytest.mark.parametrize(("prefetch", "readers"), [(0, 0), (2, 0), (2, 1)])
def test_damaged_frames_are_reported_or_left_out(
    prefetch: int, readers: int, tmp_path: Path
) -> None:
    stored(tmp_path / "b", N).close()

    def damage(value: bytes) -> bytes:
        return value[:-9] + bytes([value[-9] ^ 1]) + value[-8:]

    change(tmp_path / "b", "observations", 2, damage(value_of(tmp_path / "b", "observations", 2)))
    with (
        diskreplay.open(tmp_path / "b") as buffer,
        buffer.batches(N, prefetch, readers, frames=True) as batches,
        pytest.raises(DamageError, match=r"write id \d+ in slot \d+ is damaged: .*observation"),
    ):
        next(batches)
    with (
        diskreplay.open(tmp_path / "b", on_damage="skip") as buffer,
        buffer.batches(SIZE, prefetch, readers, frames=True) as batches,
    ):
        given = columns(0, N)
        for _ in range(20):
            batch = next(batches)
            np.testing.assert_array_equal(batch.states.whole(), given["states"][batch.indices])
        assert buffer.stats()["damaged"]


def test_damage_of_what_the_window_has_is_not_met(tmp_path: Path) -> None:
    """As `sample` does not meet it: the rows that were pushed last are in memory."""
    with stored(tmp_path / "b", N, window_bytes=0) as buffer:
        run_python(
            """
            import sys
            from pathlib import Path
            from stores import change
            change(Path(sys.argv[1]), "observations", 0, b"damage")
        """,
            tmp_path / "b",
        )
        with buffer.batches(N, frames=True) as batches:
            batch = next(batches)
        given = columns(0, N)
        np.testing.assert_array_equal(batch.states.whole(), given["states"][batch.indices])


def test_a_copy_of_the_iterator_gives_frames_too() -> None:
    with stored(None, N) as buffer, stored(None, N) as twin:
        batches = copy.copy(buffer.batches(SIZE, frames=True))
        batch = next(batches)
        assert frames_in(batch)
        assert content(batch) == content(twin.sample(SIZE))


def test_the_memory_of_frames_is_counted() -> None:
    with (
        stored(None, N) as buffer,
        buffer.batches(SIZE, 2, 1, frames=True) as frames,
        buffer.batches(SIZE, 2, reuse=True, frames=True) as reused,
    ):
        before = buffer.stats()["memory_bytes"]
        next(frames), next(reused)
        taken = buffer.stats()["memory_bytes"] - before
        assert taken >= 2 * 3 * SIZE * buffer.schema.payload_bytes
