"""The replay buffers for Stable-Baselines3 hold and draw what its own ones would."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sb3_twins import ACTIONS, BOX, SPACES, steps_of

import diskreplay

torch = pytest.importorskip("torch")
pytest.importorskip("stable_baselines3")
buffers = importlib.import_module("stable_baselines3.common.buffers")
vec_env = importlib.import_module("stable_baselines3.common.vec_env")
adapter = importlib.import_module("diskreplay.adapters.stable_baselines3")
DiskReplayBuffer = adapter.DiskReplayBuffer
PrioritizedDiskReplayBuffer = adapter.PrioritizedDiskReplayBuffer

ARRAYS = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")


def assert_equal(found: Any, wanted: Any) -> None:
    if isinstance(wanted, Mapping):
        assert found.keys() == wanted.keys()
        for key in wanted:
            assert_equal(found[key], wanted[key])
        return
    found, wanted = np.asarray(found), np.asarray(wanted)
    assert (found.dtype, found.shape) == (wanted.dtype, wanted.shape)
    np.testing.assert_array_equal(found, wanted)


def own_kind(space: Any) -> Any:
    return buffers.DictReplayBuffer if hasattr(space, "spaces") else buffers.ReplayBuffer


def at(value: Any, places: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: at(part, places) for key, part in value.items()}
    return value[places]


def drawn_places(buffer: Any, n: int) -> Any:
    """Return the places in the arrays of SB3 of the transitions that `sample` draws next.

    A pickle of the buffer goes on with the same store, so its copy draws the same.
    """
    buffer.buffer.save(path := buffer.buffer.path.parent / f"copy{buffer.buffer.stats()['count']}")
    with diskreplay.open(path) as twin:
        drawn = twin.draw(n).indices
    return drawn // buffer.n_envs % buffer.buffer_size, drawn % buffer.n_envs


@settings(max_examples=40)
@given(
    space=st.sampled_from(sorted(SPACES)),
    action=st.sampled_from(sorted(ACTIONS)),
    n_envs=st.integers(1, 3),
    n_steps=st.integers(1, 25),
    handles_timeouts=st.booleans(),
    in_log=st.booleans(),
    kind=st.sampled_from([DiskReplayBuffer, PrioritizedDiskReplayBuffer]),
)
def test_it_holds_and_draws_what_its_twin_does(
    tmp_path_factory: pytest.TempPathFactory,
    space: str,
    action: str,
    n_envs: int,
    n_steps: int,
    handles_timeouts: bool,
    in_log: bool,
    kind: Any,
) -> None:
    path = tmp_path_factory.mktemp("store") / "b"
    arguments = (n_envs * 10 + n_envs - 1, SPACES[space], ACTIONS[action], "cpu", n_envs)
    own = own_kind(SPACES[space])(*arguments, handle_timeout_termination=handles_timeouts)
    buffer = kind(
        *arguments,
        optimize_memory_usage=in_log,
        handle_timeout_termination=handles_timeouts,
        path=path,
    )
    for step in steps_of(SPACES[space], ACTIONS[action], n_envs, n_steps, seed=n_steps):
        own.add(*copy.deepcopy(step))
        buffer.add(*step)
    assert (buffer.pos, buffer.full, buffer.size()) == (own.pos, own.full, own.size())
    assert buffer.buffer_size == own.buffer_size
    for name in ARRAYS:
        assert_equal(getattr(buffer, name), getattr(own, name))

    n = min(7, len(buffer.buffer))
    places = drawn_places(buffer, n)
    batch = buffer.sample(n)
    assert_equal(batch.observations, at(own.observations, places))
    assert_equal(batch.next_observations, at(own.next_observations, places))
    assert_equal(batch.actions, own.actions[places])
    assert_equal(batch.rewards, own.rewards[places].reshape(-1, 1))
    ended = own.dones[places] * (1 - own.timeouts[places])
    assert_equal(batch.dones, ended.reshape(-1, 1))
    assert batch.discounts is None
    buffer.close()


@settings(max_examples=40)
@given(n_envs=st.integers(1, 3), steps=st.integers(1, 25), n_steps=st.integers(2, 5))
def test_n_step_returns_are_those_of_its_twin(
    tmp_path_factory: pytest.TempPathFactory, n_envs: int, steps: int, n_steps: int
) -> None:
    path = tmp_path_factory.mktemp("store") / "b"
    action = ACTIONS["discrete"]
    # One buffer of SB3 for each environment: it chooses the environments of a batch by chance.
    own = [
        buffers.NStepReplayBuffer(10, BOX, action, "cpu", n_steps=n_steps, gamma=0.9)
        for _ in range(n_envs)
    ]
    buffer = DiskReplayBuffer(
        10 * n_envs, BOX, action, "cpu", n_envs, path=path, n_steps=n_steps, gamma=0.9
    )
    for *columns, infos in steps_of(BOX, action, n_envs, steps, seed=steps):
        buffer.add(*columns, infos)
        for env, of_env in enumerate(own):
            of_env.add(*(column[env : env + 1] for column in columns), infos[env : env + 1])
    n = min(7, len(buffer.buffer))
    places, envs = drawn_places(buffer, n)
    batch = buffer.sample(n)
    for row, (place, env) in enumerate(zip(places, envs, strict=True)):
        wanted = own[env]._get_samples(np.array([place]))
        for found, value in zip(batch, wanted, strict=True):
            np.testing.assert_allclose(found[row : row + 1], value, rtol=1e-5, atol=1e-6)
    buffer.close()


def normalized(n_envs: int) -> Any:
    """Return a VecNormalize that has seen some observations and rewards."""
    gymnasium = importlib.import_module("gymnasium")
    made = [lambda: gymnasium.make("Pendulum-v1")] * n_envs
    env = vec_env.VecNormalize(vec_env.DummyVecEnv(made), clip_reward=0.5)
    env.seed(1)
    env.reset()
    for _ in range(20):
        env.step(np.zeros((n_envs, 1)))
    return env


@pytest.mark.parametrize("n_steps", [1, 3])
@pytest.mark.parametrize("kind", [DiskReplayBuffer, PrioritizedDiskReplayBuffer])
def test_normalization_is_applied_to_what_is_drawn(tmp_path: Path, kind: Any, n_steps: int) -> None:
    env = normalized(1)
    arguments = (50, env.observation_space, env.action_space, "cpu")
    own_kind = buffers.ReplayBuffer if n_steps == 1 else buffers.NStepReplayBuffer
    counted = {} if n_steps == 1 else {"n_steps": n_steps, "gamma": 0.9}
    own = own_kind(*arguments, **counted)
    buffer = kind(*arguments, path=tmp_path / "b", n_steps=n_steps, gamma=0.9)
    for step in steps_of(env.observation_space, env.action_space, 1, 40, seed=0):
        own.add(*step)
        buffer.add(*step)
    assert_equal(buffer.observations, own.observations)  # raw ones are stored
    places, _ = drawn_places(buffer, 16)
    batch = buffer.sample(16, env=env)
    for found, value in zip(batch, own._get_samples(places, env=env), strict=False):
        if value is not None:
            assert found.dtype == value.dtype
            np.testing.assert_allclose(found, value, rtol=1e-5, atol=1e-6)
    buffer.close()


def test_an_episode_ends_where_the_next_observation_is_not_the_expected_one(
    tmp_path: Path,
) -> None:
    """As where `learn` is called again, which resets the environments."""
    buffer = DiskReplayBuffer(
        100, BOX, ACTIONS["discrete"], "cpu", path=tmp_path / "b", n_steps=3, gamma=1.0
    )
    rows = np.arange(20, dtype=np.float32).reshape(20, 1, 1).repeat(3, axis=2)
    for first in (0, 10):
        for i in range(first, first + 5):
            buffer.add(rows[i], rows[i + 1], np.array([0]), np.ones(1), np.zeros(1), [{}])
    batch = buffer.sample(10)
    assert sorted(batch.rewards[:, 0].tolist()) == [1, 1, 2, 2, 3, 3, 3, 3, 3, 3]
    buffer.close()


def test_fewer_transitions_than_a_batch_are_drawn_several_times(tmp_path: Path) -> None:
    for kind in (DiskReplayBuffer, PrioritizedDiskReplayBuffer):
        buffer = kind(100, BOX, ACTIONS["discrete"], "cpu", path=tmp_path / kind.__name__)
        for number, step in enumerate(steps_of(BOX, ACTIONS["discrete"], 1, 5, seed=0)):
            buffer.add(*step[:3], np.array([float(number)]), *step[4:])
        batch = buffer.sample(12)
        numbers = batch.rewards[:, 0].numpy().astype(int)
        assert batch.observations.shape == (12, 3)
        if kind is DiskReplayBuffer:
            assert np.bincount(numbers).min() == 2  # 5 + 5 + 2, each draw without duplicates
        else:
            assert_equal(batch.indices, numbers.astype(np.int64))
            assert batch.weights.tolist() == [[1.0]] * 12
        buffer.close()
    with pytest.raises(diskreplay.SampleError, match="holds 0"):
        DiskReplayBuffer(10, BOX, ACTIONS["discrete"], "cpu").sample(4)


def test_weights_of_several_draws_are_divided_by_the_largest_of_all(tmp_path: Path) -> None:
    buffer = PrioritizedDiskReplayBuffer(
        100, BOX, ACTIONS["discrete"], "cpu", path=tmp_path / "b", alpha=1.0, beta_start=1.0
    )
    for step in steps_of(BOX, ACTIONS["discrete"], 1, 4, seed=0):
        buffer.add(*step)
    assert buffer.update_priorities(np.arange(4), torch.tensor([[1.0], [2.0], [4.0], [8.0]])) == 4
    batch = buffer.sample(300)
    assert set(batch.indices.tolist()) == {0, 1, 2, 3}
    for index, weight in zip(batch.indices, batch.weights[:, 0].tolist(), strict=True):
        assert weight == pytest.approx(0.5**index, rel=1e-4)
    assert batch.discounts is None
    buffer.close()


def test_columns_are_read_where_they_are_indexed(tmp_path: Path) -> None:
    own = buffers.ReplayBuffer(20, BOX, ACTIONS["discrete"], "cpu", n_envs=2)
    buffer = DiskReplayBuffer(20, BOX, ACTIONS["discrete"], "cpu", n_envs=2, path=tmp_path / "b")
    for step in steps_of(BOX, ACTIONS["discrete"], 2, 14, seed=0):
        own.add(*step)
        buffer.add(*step)
    rows, envs = np.array([[1, 2], [9, 0]]), np.array([[0, 1], [1, 0]])
    for key in (3, -1, slice(2, 7), (3, 1), (rows, envs), (rows, envs, slice(0, 2)), (..., 1)):
        assert_equal(buffer.observations[key], own.observations[key])
    assert (len(buffer.rewards), buffer.rewards.ndim) == (10, 2)
    assert_equal(buffer.dones[:, 1], own.dones[:, 1])
    with pytest.raises(TypeError, match="cannot be changed"):
        buffer.rewards[0] = 1.0
    with pytest.raises(TypeError, match="cannot be changed"):
        buffer.dones[5] = True  # not the newest step
    buffer.close()


def test_reset_removes_all_transitions(tmp_path: Path) -> None:
    buffer = DiskReplayBuffer(20, BOX, ACTIONS["discrete"], "cpu", path=tmp_path / "b")
    for step in steps_of(BOX, ACTIONS["discrete"], 1, 25, seed=0):
        buffer.add(*step)
    assert buffer.full
    buffer.reset()
    assert (buffer.size(), buffer.full) == (0, False)
    assert not np.asarray(buffer.rewards).any()
    buffer.add(*step)
    assert buffer.size() == 1
    buffer.close()


def test_a_seed_of_torch_is_that_of_the_draws(tmp_path: Path) -> None:
    drawn = []
    for seed, name in [(1, "a"), (1, "b"), (2, "c")]:
        torch.manual_seed(seed)
        buffer = DiskReplayBuffer(50, BOX, ACTIONS["discrete"], "cpu", path=tmp_path / name)
        for step in steps_of(BOX, ACTIONS["discrete"], 1, 50, seed=0):
            buffer.add(*step)
        drawn.append(buffer.sample(8).rewards.tolist())
        buffer.close()
    assert drawn[0] == drawn[1] != drawn[2]


def test_wrong_arguments_are_told(tmp_path: Path) -> None:
    with pytest.raises(diskreplay.ArgumentError, match="use DiskReplayBuffer"):
        adapter.DictDiskReplayBuffer(10, BOX, ACTIONS["discrete"])
    with pytest.raises(diskreplay.ArgumentError, match="goes on with the store that is there"):
        DiskReplayBuffer(10, BOX, ACTIONS["discrete"], path=tmp_path / "b", if_exists="replace")
    DiskReplayBuffer(10, BOX, ACTIONS["discrete"], path=tmp_path / "b").close()
    with pytest.raises(diskreplay.MismatchError, match="capacity"):
        DiskReplayBuffer(20, BOX, ACTIONS["discrete"], path=tmp_path / "b")
