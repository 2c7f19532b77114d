"""n-step returns: the classic edge cases, each by name, and every way to draw a batch."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import common
import numpy as np
import pytest
from episode_twin import EpisodeTwin, Step, check_n_step, columns
from others import Other
from stores import spoil

import diskreplay
from diskreplay import (
    ArgumentError,
    DamageError,
    PrioritizedReplayBuffer,
    ReplayBuffer,
    SampleError,
    SchemaError,
)

GAMMA = 0.9
KINDS = [ReplayBuffer, PrioritizedReplayBuffer]


def pushed(buffer: Any, steps: list[Step]) -> Any:
    for step in steps:
        buffer.push(**step.row())
    return buffer


def rewards(*numbers: int) -> np.float32:
    """Return the discounted sum of the rewards of some steps."""
    return np.float32(sum(GAMMA**i * Step(n, 0).reward for i, n in enumerate(numbers)))


def one(buffer: Any, number: int, n: int) -> Any:
    """Return the n-step return of one write id."""
    batch = buffer.sample(len(buffer), n_step=n, gamma=GAMMA)
    [at] = np.flatnonzero(batch.indices == number).tolist()
    return type(batch)._make(column[at] for column in batch)


def test_over_a_termination() -> None:
    twin = EpisodeTwin(10)
    steps = [twin.push(0, done=i == 2) for i in range(6)]
    with pushed(ReplayBuffer(10), steps) as buffer:
        found = one(buffer, 1, 5)
        assert found.rewards == rewards(1, 2)
        assert (found.dones, found.truncated) == (1.0, 0.0)
        assert found.discounts == np.float32(GAMMA**2)


def test_over_a_truncation_it_bootstraps_from_the_true_last_observation() -> None:
    twin = EpisodeTwin(10)
    steps = [twin.push(0, truncated=i == 2) for i in range(6)]
    with pushed(ReplayBuffer(10), steps) as buffer:
        found = one(buffer, 0, 5)
        assert found.rewards == rewards(0, 1, 2)
        assert (found.dones, found.truncated) == (0.0, 1.0)
        assert found.next_states.tolist() == steps[2].next_state.tolist()
        assert found.next_states.tolist() != steps[3].state.tolist()


def test_the_newest_transition() -> None:
    twin = EpisodeTwin(10)
    with pushed(ReplayBuffer(10), [twin.push(0) for _ in range(4)]) as buffer:
        for number, m in ((3, 1), (2, 2), (1, 3), (0, 3)):
            assert one(buffer, number, 3).discounts == np.float32(GAMMA**m)
        pushed(buffer, [twin.push(0)])
        assert one(buffer, 3, 3).discounts == np.float32(GAMMA**2)


def test_truncated_at_the_seam_of_the_ring() -> None:
    # Write id 7 is in the last slot, and ends an episode; 8 is in slot 0, and begins one.
    twin = EpisodeTwin(8)
    steps = [twin.push(0, truncated=i == 7) for i in range(11)]
    with pushed(ReplayBuffer(8), steps) as buffer:
        assert one(buffer, 6, 5).rewards == rewards(6, 7)
        assert one(buffer, 7, 5).next_states.tolist() == steps[7].next_state.tolist()
        assert one(buffer, 8, 5).rewards == rewards(8, 9, 10)


@pytest.mark.parametrize("capacity", [5, 6, 7], ids=["one less", "equal", "one more"])
def test_a_capacity_like_the_length_of_the_episode(capacity: int) -> None:
    twin = EpisodeTwin(capacity)
    with ReplayBuffer(capacity) as buffer:
        for _ in range(4):
            for i in range(6):
                pushed(buffer, [twin.push(0, done=i == 5)])
                n = min(capacity, 4)
                check_n_step(twin, buffer.sample(len(buffer), n_step=n, gamma=GAMMA), n, GAMMA)


def test_an_episode_longer_than_the_buffer() -> None:
    twin = EpisodeTwin(5)
    with pushed(ReplayBuffer(5), [twin.push(0) for _ in range(23)]) as buffer:
        found = one(buffer, 18, 5)
        assert found.rewards == rewards(18, 19, 20, 21, 22)
        check_n_step(twin, buffer.sample(5, n_step=3, gamma=GAMMA), 3, GAMMA)


def test_two_writers_interleaved(tmp_path: Path) -> None:
    twin = EpisodeTwin(40)
    settings = {"access": "shared", "seed": 1, "commit_interval": 1e9}
    with Other(tmp_path / "b") as other, ReplayBuffer(40, path=tmp_path / "b", **settings) as own:
        # Both have an env of the number 0: the twin knows them as two.
        other.open(40, kind="ReplayBuffer", access="shared")
        for turn in range(6):
            steps = [twin.push(0, done=turn == 3 and i == 1) for i in range(3)]
            own.extend(**columns(steps))
            own.flush()
            theirs = [twin.push(1, truncated=turn == 2 and i == 0) for i in range(2)]
            given = {**columns(theirs), "env": [0, 0]}
            other.extend_given(**given)
            other.flush()
        check_n_step(twin, own.sample(30, n_step=4, gamma=GAMMA), 4, GAMMA)


def filled(kind: Any, path: Path | None = None, **settings: Any) -> tuple[Any, EpisodeTwin]:
    """Return a buffer after more than a lap, with three envs, and its twin."""
    twin = EpisodeTwin(60)
    steps = [twin.push(i % 3, done=i % 17 == 3, truncated=i % 13 == 5) for i in range(95)]
    buffer = kind(60, path=path, **{"seed": 3, "commit_interval": 1e9, **settings})
    buffer.extend(**columns(steps[:80]))
    buffer.flush()
    buffer.extend(**columns(steps[80:]))
    return buffer, twin


def as_bytes(batch: Any) -> bytes:
    return batch.indices.tobytes() + b"".join(column.tobytes() for column in batch)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("prefetch", "readers", "reuse"),
    [(0, 0, False), (0, 0, True), (3, 0, False), (3, 0, True), (2, 2, False), (2, 1, True)],
)
def test_batches_are_those_of_sample(
    kind: Any, prefetch: int, readers: int, reuse: bool, tmp_path: Path
) -> None:
    buffer, twin = filled(kind, tmp_path / "a", window_bytes=0)
    other, _ = filled(kind, tmp_path / "b", window_bytes=0)
    arguments = {"reuse": reuse, "n_step": 3, "gamma": GAMMA}
    with buffer, other, buffer.batches(9, prefetch, readers, **arguments) as batches:
        for _ in range(20):
            batch = next(batches)
            check_n_step(twin, batch, 3, GAMMA)
            assert as_bytes(batch) == as_bytes(other.sample(9, n_step=3, gamma=GAMMA))


@pytest.mark.parametrize("kind", KINDS)
def test_the_ids_and_weights_are_those_of_single_steps(kind: Any) -> None:
    first, _ = filled(kind)
    second, _ = filled(kind)
    with first, second:
        for _ in range(5):
            n_step, plain = first.sample(9, n_step=4), second.sample(9)
            assert n_step.indices.tolist() == plain.indices.tolist()
            if kind is PrioritizedReplayBuffer:
                assert n_step.weights.tolist() == plain.weights.tolist()
        assert first.draw(3).indices.tolist() == second.draw(3).indices.tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_the_arrays_of_a_batch_are_used_again(kind: Any) -> None:
    buffer, twin = filled(kind)
    with buffer:
        batch = buffer.sample(9, n_step=3, gamma=GAMMA)
        memory = [column.ctypes.data for column in batch]
        for _ in range(3):
            assert buffer.sample(9, n_step=3, gamma=GAMMA, out=batch) is batch
            check_n_step(twin, batch, 3, GAMMA)
        assert [column.ctypes.data for column in batch] == memory
        with pytest.raises(ArgumentError, match="out must be an earlier batch of this buffer"):
            buffer.sample(9, n_step=3, out=buffer.sample(9))
        with pytest.raises(ArgumentError, match="out must be an earlier batch of this buffer"):
            buffer.sample(9, out=batch)
        twice = batch._replace(discounts=batch.rewards)
        with pytest.raises(ArgumentError, match=r"out.discounts must have memory of its own"):
            buffer.sample(9, n_step=3, out=twice)
        with pytest.raises(ArgumentError, match=r"out.discounts must be a writeable"):
            buffer.sample(9, n_step=3, out=batch._replace(discounts=np.zeros(9)))


@pytest.mark.parametrize("window_bytes", [0, 1 << 20])
def test_the_log_gives_the_same_bits(window_bytes: int, tmp_path: Path) -> None:
    settings = {"window_bytes": window_bytes}
    with contextlib.ExitStack() as stack:
        record, log = (
            stack.enter_context(filled(ReplayBuffer, observations=where, **settings)[0])
            for where in ("record", "log")
        )
        for _ in range(10):
            assert as_bytes(record.sample(20, n_step=3)) == as_bytes(log.sample(20, n_step=3))


def test_rewards_that_are_no_floats_give_floats() -> None:
    with ReplayBuffer(10, schema={"reward": "int64"}) as buffer:
        for _ in range(3):
            buffer.push([0.0], 0, 2, [1.0], False, env=0)
        batch = buffer.sample(3, n_step=2, gamma=0.5)
        assert batch.rewards.dtype == np.float32
        assert sorted(batch.rewards.tolist()) == [2.0, 3.0, 3.0]
        assert buffer.sample(3, n_step=2, gamma=0.5, out=batch) is batch
        assert buffer.sample(3).rewards.dtype == np.int64


@pytest.mark.parametrize("shape", [(), (3,)])
def test_complex_rewards_give_complex_sums(shape: tuple[int, ...]) -> None:
    schema = {"reward": ("complex64", shape)}
    with ReplayBuffer(10, schema=schema) as buffer:
        for _ in range(3):
            buffer.push([0.0], 0, np.full(shape, 2 + 4j), [1.0], False, env=0)
        batch = buffer.sample(3, n_step=3, gamma=0.5)
        expected = {0: 3.5 + 7j, 1: 3 + 6j, 2: 2 + 4j}
        for write_id, found in zip(batch.indices.tolist(), batch.rewards, strict=True):
            assert (found == expected[write_id]).all()
        assert buffer.sample(3, n_step=3, gamma=0.5, out=batch).rewards.dtype == np.complex64


def test_gamma_of_0_and_1() -> None:
    twin = EpisodeTwin(10)
    with pushed(ReplayBuffer(10), [twin.push(0) for _ in range(6)]) as buffer:
        for gamma in (0, 1, 0.0, 1.0):
            check_n_step(twin, buffer.sample(6, n_step=3, gamma=gamma), 3, gamma)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_step": 0}, "n_step must be a whole number of at least 1 (found 0)"),
        ({"n_step": 2.5}, "n_step must be a whole number of at least 1 (found 2.5)"),
        (
            {"n_step": 11},
            "n_step=11 is more transitions than the buffer holds",
        ),
        ({"n_step": 2, "gamma": 1.1}, "gamma must be a number in [0, 1] (found 1.1)"),
        ({"gamma": -0.1}, "gamma must be a number in [0, 1] (found -0.1)"),
        ({"n_step": 2, "gamma": np.array([0.9, 0.9])}, "gamma must be a number in [0, 1]"),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_bad_arguments(kind: Any, arguments: Any, message: str) -> None:
    twin = EpisodeTwin(10)
    with pushed(kind(10), [twin.push(0)]) as buffer:
        for call in (buffer.sample, buffer.batches):
            with pytest.raises(ArgumentError) as error:
                call(1, **arguments)
            assert message in str(error.value)
        draws = buffer._guard.replica.draws
        with pytest.raises(SampleError):
            buffer.sample(2, n_step=2)
        assert buffer._guard.replica.draws == draws


def test_more_than_the_memory_is_refused() -> None:
    capacity, n = 10**7, 5000
    with ReplayBuffer(capacity) as buffer:
        zeros = np.zeros(n)
        buffer.extend(zeros[:, None], zeros, zeros, zeros[:, None], zeros, env=0)
        with pytest.raises(ArgumentError, match=r"n_step=10000000 in .*: choose smaller numbers"):
            buffer.sample(n, n_step=capacity)
        with pytest.raises(ArgumentError, match="choose a smaller prefetch"):
            buffer.batches(n, prefetch=1, n_step=capacity)


def test_a_field_of_the_name_discounts_is_refused() -> None:
    with ReplayBuffer(10) as buffer:
        buffer.push([0.0], 0, 1.0, [1.0], False, discounts=2.0)
        assert buffer.sample(1).discounts.tolist() == [2.0]
        with pytest.raises(SchemaError, match="n_step adds the element 'discounts'"):
            buffer.sample(1, n_step=2)


def test_masks_come_before_discounts() -> None:
    with ReplayBuffer(10, schema={"tokens": ("int64", (None,))}) as buffer:
        for i in range(4):
            buffer.push([0.0], 0, 1.0, [1.0], False, tokens=np.arange(i), env=0)
        batch = buffer.sample(4, n_step=2, pad=True)
        assert batch._fields[-3:] == ("tokens", "tokens_mask", "discounts")
        assert batch.tokens_mask.sum(axis=1).tolist() == batch.indices.tolist()


def test_a_chain_ends_before_a_damaged_record(tmp_path: Path) -> None:
    with ReplayBuffer(20, path=tmp_path / "b") as buffer:
        buffer.extend(**common.columns(0, 20), env=0)  # episodes of five steps
    spoil(tmp_path / "b", [7])
    for n in (1, 3):
        with (
            diskreplay.open(tmp_path / "b", window_bytes=0) as buffer,
            pytest.raises(DamageError, match="write id 7 in slot 7 is damaged"),
        ):
            buffer.sample(20, n_step=n)
    with diskreplay.open(tmp_path / "b", window_bytes=0, on_damage="skip") as buffer:
        for _ in range(30):
            buffer.sample(5, n_step=3)
        assert buffer.stats()["damaged"] == 1
        batch = buffer.sample(19, n_step=3, gamma=1.0)
        found = dict(zip(batch.indices.tolist(), (8 * batch.rewards).tolist(), strict=True))
        assert (found[4], found[5], found[6], found[8]) == (4.0, 5.0 + 6.0, 6.0, 8.0 + 9.0)
        assert 7 not in found


def test_a_sum_of_rewards_beyond_float32_is_infinite() -> None:
    with ReplayBuffer(10) as buffer:
        zeros = np.zeros((3, 1))
        buffer.extend(zeros, [0] * 3, [3e38] * 3, zeros, [False] * 3, env=0)
        batch = buffer.sample(3, n_step=2, gamma=1.0)
        assert sorted(batch.rewards.tolist()) == [np.float32(3e38), np.inf, np.inf]
        with buffer.batches(3, 1, 1, n_step=2, gamma=1.0) as batches:
            assert np.isinf(next(batches).rewards).sum() == 2
