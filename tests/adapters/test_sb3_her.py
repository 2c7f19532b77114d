"""Hindsight experience replay from a store: goals are those that the same episode reached."""

from __future__ import annotations

import importlib
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

import diskreplay

torch = pytest.importorskip("torch")
pytest.importorskip("stable_baselines3")
sb3 = importlib.import_module("stable_baselines3")
envs = importlib.import_module("stable_baselines3.common.envs")
env_util = importlib.import_module("stable_baselines3.common.env_util")
vec_env = importlib.import_module("stable_baselines3.common.vec_env")
adapter = importlib.import_module("diskreplay.adapters.stable_baselines3")
HerDiskReplayBuffer = adapter.HerDiskReplayBuffer

NUMBER = spaces.Box(-1, 1e6, (1,), np.float32)
GOALS = spaces.Dict(observation=NUMBER, achieved_goal=NUMBER, desired_goal=NUMBER)
ACTIONS = spaces.Discrete(2)


class Numbers(gymnasium.Env[Any, Any]):
    """An environment whose rewards are differences of goals."""

    observation_space, action_space = GOALS, ACTIONS

    def compute_reward(self, achieved: Any, desired: Any, infos: Any) -> Any:
        assert len(infos) == len(achieved) == len(desired)
        return (desired - achieved)[:, 0] + 0.5


def add(buffer: Any, step: int, continues: list[bool], ends: list[bool], timed: bool) -> None:
    """Add a step; what env e reaches in step s has the number s * n_envs + e."""
    n = buffer.n_envs
    numbers = step * n + np.arange(n, dtype=np.float32)
    before = np.where(continues, numbers - n, -1)  # an episode begins with another number
    desired = np.full((n, 1), -1, np.float32)
    obs = {"observation": before, "achieved_goal": before, "desired_goal": desired}
    after = {"observation": numbers, "achieved_goal": numbers, "desired_goal": desired}
    obs = {key: value.reshape(n, 1).astype(np.float32) for key, value in obs.items()}
    after = {key: value.reshape(n, 1) for key, value in after.items()}
    infos = [{"TimeLimit.truncated": end and timed} for end in ends]
    buffer.add(obs, after, np.zeros(n, int), np.full(n, -100.0), np.array(ends), infos)


def new_buffer(path: Path, n_envs: int, size: int = 12, **options: Any) -> Any:
    env = vec_env.DummyVecEnv([Numbers])
    return HerDiskReplayBuffer(
        size * n_envs, GOALS, ACTIONS, env, "cpu", n_envs, path=path, **options
    )


# What each env does in a step: goes on, ends, or is reset without an end before it.
STEPS = st.lists(st.lists(st.sampled_from("...er"), min_size=3, max_size=3), max_size=30)


@settings(max_examples=40)
@given(
    n_envs=st.integers(1, 3),
    words=STEPS,
    strategy=st.sampled_from(["future", "final", "episode"]),
    timed=st.booleans(),
    reopens=st.booleans(),
)
def test_a_batch_has_goals_of_its_episodes(
    tmp_path_factory: pytest.TempPathFactory,
    n_envs: int,
    words: list[list[str]],
    strategy: str,
    timed: bool,
    reopens: bool,
) -> None:
    path = tmp_path_factory.mktemp("store") / "b"
    buffer = new_buffer(path, n_envs, goal_selection_strategy=strategy)
    episodes: list[list[list[int]]] = [[[]] for _ in range(n_envs)]  # their steps, of each env
    for step, of_envs in enumerate(words):
        for env, word in enumerate(of_envs[:n_envs]):
            if word == "r" or (step and words[step - 1][env] == "e"):
                episodes[env].append([])
            episodes[env][-1].append(step)
        begins = [episodes[env][-1] == [step] for env in range(n_envs)]
        ends = [word == "e" for word in of_envs[:n_envs]]
        add(buffer, step, [not begin for begin in begins], ends, timed)
    if reopens:  # what is open ends
        buffer.close()
        buffer = new_buffer(path, n_envs, goal_selection_strategy=strategy)
    live = range(max(0, len(words) - 12), len(words))
    of_step: dict[tuple[int, int], list[int]] = {}
    for env in range(n_envs):
        for episode in episodes[env]:
            is_open = episode is episodes[env][-1] and words and words[-1][env] != "e"
            if reopens or not is_open:
                of_step |= {(step, env): episode for step in episode if step in live}
    if not of_step:
        with pytest.raises(diskreplay.SampleError, match=r"no whole episode|holds 0"):
            buffer.sample(10)
        buffer.close()
        return
    batch = buffer.sample(50)
    is_given = batch.observations["desired_goal"][:, 0] >= 0
    assert int(is_given.sum()) == 40
    columns = (
        batch.next_observations["observation"],
        batch.observations["desired_goal"],
        batch.next_observations["desired_goal"],
        batch.rewards,
    )
    for number, goal, next_goal, reward in zip(*(c[:, 0].tolist() for c in columns), strict=True):
        step, env = divmod(int(number), n_envs)
        assert goal == next_goal
        if goal < 0:
            assert reward == -100.0
            continue
        assert reward == goal - number + 0.5
        goal_step, goal_env = divmod(int(goal), n_envs)
        assert goal_env == env
        episode = of_step[step, env]
        assert goal_step in episode
        assert goal_step in live
        if strategy == "final":
            assert goal_step == episode[-1]
        if strategy == "future":
            assert goal_step >= step
    assert batch.actions.shape == batch.rewards.shape == batch.dones.shape == (50, 1)
    buffer.close()


WRITER = """
import sys
from pathlib import Path
sys.path[:0] = sys.argv[2:]
from test_sb3_her import add, new_buffer
buffer = new_buffer(Path(sys.argv[1]), 1)
step = 0
for line in sys.stdin:
    for length in map(int, line.split()):
        for at in range(length):
            add(buffer, step, [at > 0], [at == length - 1], False)
            step += 1
    buffer.buffer.flush()
    print(step, flush=True)
"""


def test_a_reader_follows_the_episodes_of_a_writer(tmp_path: Path) -> None:
    places = [str(Path(__file__).parent), *sys.path]
    command = [sys.executable, "-c", WRITER, str(tmp_path / "b"), *places]
    writer = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert writer.stdin is not None
    assert writer.stdout is not None
    ends: list[int] = []
    buffer: Any = None
    try:
        for lengths in ([4, 3], [5], [1, 4, 5], [8]):  # 12 fit in
            for length in lengths:
                ends.append((ends[-1] if ends else 0) + length)
            print(*lengths, file=writer.stdin, flush=True)
            assert int(writer.stdout.readline()) == ends[-1]
            if buffer is None:
                buffer = new_buffer(tmp_path / "b", 1, access="read")
            batch = buffer.sample(60)
            steps = batch.next_observations["observation"][:, 0].int().tolist()
            goals = batch.observations["desired_goal"][:, 0].int().tolist()
            assert max(steps) == ends[-1] - 1
            assert min(steps) == max(0, ends[-1] - 12)
            for step, goal in zip(steps, goals, strict=True):
                end = min(end for end in ends if end > step)
                assert goal == -1 or step <= goal < end
    finally:
        writer.communicate()
    buffer.close()


def test_the_goals_are_those_that_an_uninterrupted_run_would_have_chosen(tmp_path: Path) -> None:
    buffer = new_buffer(tmp_path / "a", 2, size=40)
    for step in range(42):
        add(buffer, step, [step % 7 > 0] * 2, [step % 7 == 6] * 2, timed=False)
    buffer.buffer.flush()
    buffer.buffer.save(tmp_path / "b")
    wanted = buffer.sample(32)
    buffer.close()
    later = new_buffer(tmp_path / "b", 2, size=40)
    for found, value in zip(later.sample(32), wanted, strict=True):
        if isinstance(value, dict):
            assert all(torch.equal(found[key], value[key]) for key in value)
        else:
            assert found is value is None or torch.equal(found, value)
    later.close()


def test_a_model_learns_is_saved_and_goes_on(tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "learning_starts": 20, "buffer_size": 200, "batch_size": 8, "device": "cpu", "seed": 1,
        "policy_kwargs": {"net_arch": [8]},
    }  # fmt: skip
    env = env_util.make_vec_env(lambda: envs.BitFlippingEnv(n_bits=4), n_envs=2)
    model = sb3.DQN(
        "MultiInputPolicy",
        env,
        replay_buffer_class=HerDiskReplayBuffer,
        replay_buffer_kwargs={"path": tmp_path / "b", "n_sampled_goal": 2},
        **options,
    )
    model.learn(62)
    model.save(tmp_path / "model")
    model.save_replay_buffer(tmp_path / "buffer.pkl")
    lengths = model.replay_buffer.ep_length.copy()
    assert 0 < lengths.max() <= 4
    if any(model.replay_buffer._steps.is_open):
        with pytest.warns(UserWarning, match="last trajectory in the replay buffer"):
            model.load_replay_buffer(tmp_path / "buffer.pkl")
    assert model.replay_buffer.ep_length[:31].all()
    assert model.replay_buffer.env is env
    model.learn(20, reset_num_timesteps=False)
    model.replay_buffer.close()
    loaded = sb3.DQN.load(tmp_path / "model", env=env)
    assert loaded.replay_buffer.size() == 44
    np.testing.assert_array_equal(
        loaded.replay_buffer.ep_length[:30][lengths[:30] > 0], lengths[:30][lengths[:30] > 0]
    )
    loaded.learn(20, reset_num_timesteps=False)
    loaded.replay_buffer.reset()
    with pytest.raises(diskreplay.SampleError):
        loaded.replay_buffer.sample(4)
    loaded.replay_buffer.close()
    assert diskreplay.verify(tmp_path / "b") == []


def test_wrong_arguments_are_told(tmp_path: Path) -> None:
    for wrong in ({"copy_info_dict": True}, {"n_steps": 3}):
        with pytest.raises(diskreplay.ArgumentError, match="leave them out"):
            new_buffer(tmp_path / "a", 1, **wrong)
    with pytest.raises(diskreplay.ArgumentError, match=r"other writers \(found access='shared'\)"):
        new_buffer(tmp_path / "a", 1, access="shared")
    with pytest.raises(diskreplay.ArgumentError, match=r"one of .*future.*\(found 'past'\)"):
        new_buffer(tmp_path / "a", 1, goal_selection_strategy="past")
    buffer = new_buffer(tmp_path / "a", 3, size=4)
    add(buffer, 0, [False] * 3, [True] * 3, timed=False)
    buffer.close()
    with pytest.raises(diskreplay.MismatchError, match="no whole steps of 2 environments"):
        new_buffer(tmp_path / "a", 2, size=6)
    buffer = new_buffer(tmp_path / "a", 3, size=4)
    buffer.env = None
    with pytest.raises(diskreplay.ArgumentError, match="set_env"):
        buffer.sample(8)
    buffer.close()
    shutil.rmtree(tmp_path / "a")
