"""What is so of a buffer alone; what every Replay does is in tests/contract."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from common import columns, numbers_of, row

import diskreplay
from diskreplay import PrioritizedReplayBuffer, ReplayBuffer

KINDS = [ReplayBuffer, PrioritizedReplayBuffer]


@pytest.mark.parametrize("kind", KINDS)
def test_the_usage_known_from_memory_works(kind: Any) -> None:
    rng = np.random.default_rng(0)
    buffer = kind(1000, seed=42)
    for i in range(100):
        write_id = buffer.push(
            state=rng.standard_normal(60),
            action=int(rng.integers(4)),
            reward=float(rng.standard_normal()),
            next_state=rng.standard_normal(60),
            done=i % 10 == 9,
        )
        assert write_id == i
    states, actions, rewards, next_states, dones, *more = batch = buffer.sample(32)
    assert states.shape == next_states.shape == (32, 60)
    assert actions.shape == rewards.shape == dones.shape == (32,)
    assert list(batch._fields[5:]) == ["weights", "indices"][: len(more)]
    if kind is PrioritizedReplayBuffer:
        weights, indices = more
        assert weights.max() == 1.0
        assert buffer.update_priorities(indices, np.linspace(0, 1, 32)) == 32
        assert (buffer.frame, buffer.beta) == (1, pytest.approx(0.4 + 0.6 / 100_000, abs=1e-12))


def test_an_extend_larger_than_the_window_is_one_commit(tmp_path: Path) -> None:
    buffer = PrioritizedReplayBuffer(5000, path=tmp_path / "b", window_bytes=0, commit_interval=1e9)
    buffer.extend(**columns(0, 10))
    buffer.extend(**columns(10, 3000), priorities=np.arange(10, 3010))
    assert buffer.stats()["commits"] == 2  # the ten before, then all of it
    assert numbers_of(buffer.get(np.arange(3010))).tolist() == list(range(3010))
    assert buffer.max_priority == 3009


def test_uniform_batches_hold_no_duplicates() -> None:
    buffer = ReplayBuffer(capacity=50, seed=1)
    buffer.extend(**columns(0, 80))
    for n in (1, 10, 49, 50):
        numbers = numbers_of(buffer.sample(n))
        assert len(set(numbers.tolist())) == n
        assert numbers.min() >= 30


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"capacity": 0}, "capacity must be a whole number of at least 1"),
        ({"capacity": 2.5}, "capacity must be a whole number"),
        ({"capacity": -3}, "capacity must be a whole number of at least 1 .found -3"),
        ({"alpha": -0.1}, r"alpha must be a number in \[0, 1\]"),
        ({"alpha": 1.1}, r"alpha must be a number in \[0, 1\]"),
        ({"alpha": float("nan")}, r"alpha must be a number in \[0, 1\]"),
        ({"beta_start": -0.1}, r"beta_start must be a number in \[0, 1\]"),
        ({"beta_end": 1.01}, r"beta_end must be a number in \[0, 1\]"),
        ({"beta_frames": 0}, "beta_frames must be a whole number of at least 1"),
        ({"epsilon": 0.0}, r"epsilon must be a number in \(0, "),
        ({"epsilon": -1e-9}, r"epsilon must be a number in \(0, "),
        ({"epsilon": float("inf")}, r"epsilon must be a number in \(0, "),
        ({"seed": -1}, "seed must be a whole number of at least 0"),
        ({"seed": 1.5}, "seed must be a whole number"),
        ({"commit_interval": -1}, r"commit_interval must be a number in \[0, inf\)"),
        ({"window_bytes": -1}, "window_bytes must be a whole number of at least 0"),
        ({"access": "write"}, "access must be one of exclusive, shared, read"),
        ({"on_damage": "ignore"}, r"on_damage must be one of raise, skip \(found 'ignore'\)"),
        ({"access": "shared", "path": None}, "access='shared' needs the path of a store"),
        ({"durability": "none"}, "durability must be one of full, system, process"),
        ({"schema": {"state": "text"}}, "field 'state' has no usable dtype"),
        ({"schema": {"priority": "f4"}}, "'priority' cannot name a field"),
    ],
)
def test_a_bad_argument_is_refused_and_nothing_is_made(
    arguments: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        PrioritizedReplayBuffer(**{"capacity": 10, "path": tmp_path / "runs" / "b", **arguments})
    assert list(tmp_path.iterdir()) == []


def test_a_uniform_buffer_takes_no_priorities() -> None:
    with ReplayBuffer(capacity=10) as buffer:
        for call in (
            lambda: buffer.push(**row(0), priority=1.0),
            lambda: buffer.extend(**columns(0, 2), priorities=[1.0, 1.0]),
        ):
            with pytest.raises(diskreplay.PriorityError, match="use a PrioritizedReplayBuffer"):
                call()
        assert (len(buffer), buffer.schema) == (0, None)
        with pytest.raises(TypeError, match="beta"):
            buffer.sample(4, beta=0.5)  # type: ignore[call-arg]


def test_a_temporary_buffer_leaves_nothing_behind() -> None:
    with ReplayBuffer(capacity=10) as buffer:
        buffer.extend(**columns(0, 5))
        path = buffer.path
        assert path.is_dir()
    assert not path.exists()


@pytest.mark.parametrize(
    "schema", [5, "abc", [("state", "f4")], {"state": None}, {"state": ("f4", 3)}]
)
def test_what_is_no_schema_is_refused(schema: Any) -> None:
    with pytest.raises(diskreplay.SchemaError):
        ReplayBuffer(10, schema=schema)


@pytest.mark.filterwarnings("ignore::diskreplay.DiskSpaceWarning")
def test_numbers_that_nothing_can_have_are_refused() -> None:
    for call in (
        lambda: PrioritizedReplayBuffer(10, beta_frames=2**64),
        lambda: PrioritizedReplayBuffer(2**40),
        lambda: diskreplay.SumTree(2**40),
        lambda: ReplayBuffer(2**30, window_bytes=1 << 62).push(**row(0)),
        lambda: diskreplay.importance_weights([0.5, 0.0], 4, 1.0),
    ):
        with pytest.raises(diskreplay.ArgumentError):
            call()
