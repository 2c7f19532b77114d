"""to_jax: batches as arrays of JAX."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest
from common import columns, run_python
from drawn import KINDS, SIZE, filled
from stacked import columns as columns_of_stacks

import diskreplay
from diskreplay import ArgumentError, ReplayBuffer

jax = pytest.importorskip("jax")
to_jax = importlib.import_module("diskreplay.adapters.jax").to_jax


@pytest.mark.parametrize("device", [None, "cpu"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_keeps_its_type_and_its_write_ids(kind: Any, device: str | None) -> None:
    batch = filled(kind).sample(SIZE)
    found = to_jax(batch, device and jax.devices(device)[0])
    assert type(found) is type(batch)
    assert found.indices is batch.indices
    for name, array in batch._asdict().items():
        if name != "indices":
            assert isinstance(getattr(found, name), jax.Array), name
            np.testing.assert_array_equal(getattr(found, name), array)
    assert vars(found).keys() == vars(batch).keys()
    if kind is not ReplayBuffer:
        assert filled(kind).update_priorities(found.indices, found.rewards) == SIZE


@pytest.mark.parametrize("readers", [0, 1])
def test_arrays_that_are_used_again_are_copied(readers: int) -> None:
    with (
        filled(ReplayBuffer) as buffer,
        filled(ReplayBuffer) as twin,
    ):
        buffer.flush()  # readers read what is committed
        with buffer.batches(SIZE, 2, readers, reuse=True, prepare=to_jax) as batches:
            kept = [next(batches) for _ in range(6)]
        for found in kept:
            wanted = twin.sample(SIZE)
            np.testing.assert_array_equal(found.states, wanted.states)
            np.testing.assert_array_equal(found.rewards, wanted.rewards)


@pytest.mark.parametrize("axis", [0, -1])
def test_frames_are_put_together(axis: int) -> None:
    with ReplayBuffer(capacity=40, seed=0, frame_axis=axis) as buffer:
        buffer.extend(**columns_of_stacks(0, 30, axis))
        buffer.flush()
        with buffer.batches(8, frames=True) as batches:
            batch = next(batches)
        found, wanted = to_jax(batch), buffer.get(batch.indices)
        np.testing.assert_array_equal(found.states, wanted.states)
        np.testing.assert_array_equal(found.next_states, wanted.next_states)


def test_nested_and_varying_values_stay_nested() -> None:
    schema = {"tokens": ("int32", (None,)), "text": str}
    with ReplayBuffer(capacity=10, schema=schema) as buffer:
        for i in range(4):
            state = {"a": np.full(3, i, np.uint8), "b": (float(i), [i, i])}
            buffer.push(state, 0, 1.0, state, False, tokens=[i] * i, text=f"t{i}")
        found = to_jax(buffer.get(range(4)))
        padded = to_jax(buffer.get(range(4), pad=True))
    assert found.states["a"].dtype == np.uint8
    assert found.states["b"][1].tolist() == [[i, i] for i in range(4)]
    assert [tokens.tolist() for tokens in found.tokens] == [[i] * i for i in range(4)]
    assert found.text == ["t0", "t1", "t2", "t3"]
    assert padded.tokens.shape == padded.tokens_mask.shape == (4, 3)


def test_batches_go_through_compiled_functions() -> None:
    with ReplayBuffer(capacity=100, seed=1) as buffer:
        buffer.extend(**columns(0, 50))
        step = jax.jit(lambda batch: batch.rewards.sum())
        for batch in (buffer.sample(8), buffer.sample(8, n_step=2)):
            assert step(to_jax(batch)) == pytest.approx(batch.rewards.sum(), rel=1e-5)
        sequences = to_jax(buffer.sample_sequences(3, 4))
        assert isinstance(sequences, diskreplay.SequenceBatch)
        assert isinstance(sequences.indices, np.ndarray)


def test_anything_else_is_refused() -> None:
    with pytest.raises(ArgumentError, match=r"expected a batch, as sample\(\) returns it"):
        to_jax(np.zeros(3))


def test_without_jax_the_error_says_how_to_install_it() -> None:
    code = """
        import sys
        sys.modules["jax"] = None
        import diskreplay.adapters.jax
    """
    result = run_python(code, check=False)
    assert 'not installed: pip install "diskreplay[jax]"' in result.stderr
