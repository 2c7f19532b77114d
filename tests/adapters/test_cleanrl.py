"""The replay buffer for CleanRL's scripts, in a loop as theirs, and beside that of SB3."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sb3_twins import ACTIONS, BOX, SPACES, steps_of

import diskreplay

torch = pytest.importorskip("torch")
adapter = importlib.import_module("diskreplay.adapters.cleanrl")
ReplayBuffer = adapter.ReplayBuffer


@settings(max_examples=30)
@given(
    space=st.sampled_from(sorted(SPACES.keys() - {"dict"})),
    action=st.sampled_from(sorted(ACTIONS)),
    n_envs=st.integers(1, 3),
    n_steps=st.integers(1, 25),
    in_log=st.booleans(),
    handles_timeouts=st.booleans(),
)
def test_a_batch_is_of_what_was_added(
    tmp_path_factory: pytest.TempPathFactory,
    space: str,
    action: str,
    n_envs: int,
    n_steps: int,
    in_log: bool,
    handles_timeouts: bool,
) -> None:
    path = tmp_path_factory.mktemp("store") / "b"
    rb = ReplayBuffer(
        10 * n_envs, SPACES[space], ACTIONS[action], "cpu", n_envs, in_log, handles_timeouts,
        path=path,
    )  # fmt: skip
    steps = steps_of(SPACES[space], ACTIONS[action], n_envs, n_steps, seed=n_steps)
    for number, (*columns, _, done, infos) in enumerate(steps):
        rb.add(*columns, np.arange(n_envs) + number * n_envs, done, infos)  # rewards are numbers
    assert rb.size() == min(10, n_steps)
    batch = rb.sample(n := 12)
    assert type(batch)._fields == (
        "observations",
        "actions",
        "next_observations",
        "dones",
        "rewards",
    )
    assert batch.rewards.shape == batch.dones.shape == (n, 1)
    assert batch.rewards.dtype == batch.dones.dtype == torch.float32
    for row, number in enumerate(batch.rewards[:, 0].to(int).tolist()):
        obs, next_obs, taken, _, done, infos = steps[number // n_envs]
        env = number % n_envs
        wanted = obs[env], taken[env], next_obs[env], done[env]
        timed_out = handles_timeouts and infos[env]["TimeLimit.truncated"]
        for found, value in zip(batch[:3], wanted, strict=False):
            np.testing.assert_array_equal(
                found[row].numpy().reshape(-1), np.asarray(value, found.numpy().dtype).reshape(-1)
            )
        assert bool(batch.dones[row, 0]) == (done[env] and not timed_out)
    rb.close()


@pytest.mark.parametrize("space", sorted(SPACES.keys() - {"dict"}))
@pytest.mark.parametrize("action", sorted(ACTIONS))
def test_shapes_and_types_are_those_of_sb3(space: str, action: str) -> None:
    buffers = pytest.importorskip("stable_baselines3.common.buffers")
    arguments = (20, SPACES[space], ACTIONS[action], "cpu")
    rb, own = ReplayBuffer(*arguments), buffers.ReplayBuffer(*arguments)
    for step in steps_of(SPACES[space], ACTIONS[action], 1, 5, seed=0):
        rb.add(*step)
        own.add(*step)
    for found, wanted in zip(rb.sample(8), own.sample(8), strict=False):
        assert (found.shape, found.dtype) == (wanted.shape, wanted.dtype)


def learn(path: Path | None, steps: int) -> Any:
    """Learn as CleanRL's dqn.py does, in short; return its buffer."""
    env = gymnasium.make("CartPole-v1", max_episode_steps=12)
    rb = ReplayBuffer(
        1000, env.observation_space, env.action_space, "cpu",
        handle_timeout_termination=False, path=path,
    )  # fmt: skip
    network = torch.nn.Linear(4, 2)
    optimizer = torch.optim.Adam(network.parameters())
    obs = env.reset(seed=1)[0]
    for step in range(steps):
        action = step // 2 % 2
        next_obs, reward, terminated, truncated, info = env.step(action)
        rb.add(
            obs[None], next_obs[None], np.array([action]), np.array([reward]),
            np.array([terminated]), [info],
        )  # fmt: skip
        obs = env.reset()[0] if terminated or truncated else next_obs
        if step > 10:
            data = rb.sample(16)
            with torch.no_grad():
                best, _ = network(data.next_observations).max(dim=1)
                target = data.rewards.flatten() + 0.99 * best * (1 - data.dones.flatten())
            value = network(data.observations).gather(1, data.actions).squeeze()
            loss = torch.nn.functional.mse_loss(target, value)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return rb


def test_a_script_learns_and_goes_on(tmp_path: Path) -> None:
    first = learn(tmp_path / "b", 60)
    assert first.size() == 60
    first.close()
    second = learn(tmp_path / "b", 20)
    assert second.size() == 80
    episodes = [*second.buffer.episodes()]
    assert len(episodes) > 4
    for episode in episodes:  # they end at the limit, though nothing told of it
        assert len(episode.rewards) <= 12
        np.testing.assert_array_equal(episode.next_states[:-1], episode.states[1:])
    assert second.buffer.stats()["cuts"] <= 1  # the one where the first script ended
    second.reset()
    assert second.size() == 0
    second.close()
    assert diskreplay.verify(tmp_path / "b") == []


def test_stacked_frames_are_kept_once(tmp_path: Path) -> None:
    space = gymnasium.spaces.Box(0, 255, (4, 8, 8), np.uint8)
    rb = ReplayBuffer(
        100, space, ACTIONS["discrete"], "cpu", optimize_memory_usage=True,
        handle_timeout_termination=False, path=tmp_path / "b", frame_axis=0,
    )  # fmt: skip
    frames = np.random.default_rng(0).integers(0, 255, (60, 8, 8), np.uint8)
    stacks = np.stack([frames[i : i + 4] for i in range(56)])[:, None]
    for i in range(55):
        zeros = np.zeros(1)
        rb.add(stacks[i], stacks[i + 1], np.array([0]), zeros + i, zeros, [{}])
    rb.buffer.flush()
    assert rb.buffer.schema["state"].frame_axis == 0
    data = rb.sample(20)
    rows = data.rewards[:, 0].to(int).numpy()
    np.testing.assert_array_equal(data.observations, stacks[rows, 0])
    np.testing.assert_array_equal(data.next_observations, stacks[rows + 1, 0])
    rb.close()


@pytest.mark.parametrize(
    ("space", "n_envs", "shape"),
    [((4, 8, 8), 1, (1, 8, 8, 4)), ((3,), 2, (3, 2)), ((2, 3), 1, (6,)), ((3,), 2, (6,))],
)
def test_observations_of_another_shape_are_refused(
    space: tuple[int, ...], n_envs: int, shape: tuple[int, ...]
) -> None:
    rb = ReplayBuffer(10, gymnasium.spaces.Box(0, 255, space, np.uint8), ACTIONS["discrete"],
                      "cpu", n_envs)  # fmt: skip
    good, wrong = np.zeros((n_envs, *space), np.uint8), np.zeros(shape, np.uint8)
    rest = np.zeros(n_envs, int), np.zeros(n_envs), np.zeros(n_envs), [{}] * n_envs
    for pair in ((wrong, good), (good, wrong)):
        with pytest.raises(diskreplay.ArgumentError, match=r"expected observations of shape"):
            rb.add(*pair, *rest)
    rb.add(good, good, *rest)
    if n_envs == 1:
        rb.add(good[0], good[0], *rest)
    assert rb.size() == 3 - n_envs


def test_infos_of_gymnasium_tell_no_time_limits() -> None:
    rb = ReplayBuffer(10, BOX, ACTIONS["discrete"])
    [step] = steps_of(BOX, ACTIONS["discrete"], 1, 1, seed=0)
    with pytest.raises(diskreplay.ArgumentError, match="set it to False, and add"):
        rb.add(*step[:5], {"final_info": []})
    rb.add(*step)
    assert str(rb.device) == ("cuda" if torch.cuda.is_available() else "cpu")


def test_it_needs_no_stable_baselines() -> None:
    code = "import sys, diskreplay.adapters.cleanrl; print('stable_baselines3' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
