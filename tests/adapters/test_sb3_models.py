"""Models of Stable-Baselines3 learn from buffers on disk, are saved, killed, and go on."""

from __future__ import annotations

import copy
import importlib
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sb3_twins import ACTIONS, BOX, steps_of

import diskreplay

torch = pytest.importorskip("torch")
pytest.importorskip("stable_baselines3")
sb3 = importlib.import_module("stable_baselines3")
env_util = importlib.import_module("stable_baselines3.common.env_util")
buffers = importlib.import_module("stable_baselines3.common.buffers")
envs = importlib.import_module("stable_baselines3.common.envs")
vec_env = importlib.import_module("stable_baselines3.common.vec_env")
adapter = importlib.import_module("diskreplay.adapters.stable_baselines3")
DiskReplayBuffer = adapter.DiskReplayBuffer
PrioritizedDQN = adapter.PrioritizedDQN
SHORT = {"learning_starts": 20, "buffer_size": 100, "batch_size": 8, "device": "cpu", "seed": 1}


def small(**options: Any) -> dict[str, Any]:
    """Return the options of a model with a small network; models change the inner dictionary."""
    return {**SHORT, "policy_kwargs": {"net_arch": [8]}, **options}


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    """More threads than free cores make small networks many times slower."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def model_of(path: Path, kind: Any = sb3.DQN, n_envs: int = 1, **options: Any) -> Any:
    of_buffer = {"path": path, **options.pop("of_buffer", {})}
    name = "CartPole-v1" if issubclass(kind, sb3.DQN) else "Pendulum-v1"
    options.setdefault("replay_buffer_class", DiskReplayBuffer)
    env = env_util.make_vec_env(name, n_envs=n_envs)
    return kind("MlpPolicy", env, replay_buffer_kwargs=of_buffer, **small(**options))


@pytest.mark.parametrize("n_envs", [1, 3])
@pytest.mark.parametrize("kind", ["DQN", "SAC", "TD3", "DDPG"])
def test_an_agent_learns_from_it_as_from_its_own(tmp_path: Path, kind: str, n_envs: int) -> None:
    path = tmp_path / "b"
    model = model_of(path, getattr(sb3, kind), n_envs, optimize_memory_usage=n_envs == 3)
    # It warns that its own buffer loses the last observation where memory is spared.
    for resets in (True, False):
        model.learn(60, reset_num_timesteps=resets)
    assert model.replay_buffer.size() == min(120, 100) // n_envs
    assert model.replay_buffer.buffer.stats()["cuts"] == 0
    model.replay_buffer.close()
    assert diskreplay.verify(path) == []


def test_the_steps_are_those_that_its_own_buffer_gets(tmp_path: Path) -> None:
    found = model_of(tmp_path / "b", learning_starts=1000).learn(80).replay_buffer
    env = env_util.make_vec_env("CartPole-v1")
    own = sb3.DQN("MlpPolicy", env, **small(learning_starts=1000)).learn(80).replay_buffer
    assert own.dones.sum() > 1
    for name in ("observations", "next_observations", "actions", "rewards", "dones", "timeouts"):
        np.testing.assert_array_equal(getattr(found, name), getattr(own, name))
    found.close()


def test_learning_again_where_observations_are_kept_once_ends_the_episode(tmp_path: Path) -> None:
    model = model_of(tmp_path / "b", optimize_memory_usage=True, of_buffer={"n_steps": 3})
    model.learn(30)
    with pytest.warns(UserWarning, match="last trajectory in the replay buffer"):
        model.learn(30)
    buffer = model.replay_buffer.buffer
    assert buffer.schema["state"].log
    assert not buffer.stats()["cuts"]
    assert len(model.replay_buffer.observations) == 100
    ends = buffer.get([29], fields=["done", "truncated"])
    assert (ends["done"][0], ends["truncated"][0]) == (0, 0)  # what is stored is what was added
    model.replay_buffer.close()


def test_observations_that_are_dictionaries(tmp_path: Path) -> None:
    env = envs.SimpleMultiObsEnv(random_start=False)
    for number, kind in enumerate((DiskReplayBuffer, adapter.DictDiskReplayBuffer)):
        model = sb3.DQN(
            "MultiInputPolicy",
            env,
            replay_buffer_class=kind,
            replay_buffer_kwargs={"path": tmp_path / str(number), "codec": None},
            **SHORT,
        )
        model.learn(40)
        names = model.replay_buffer.buffer.schema.names
        assert names[:2] == ("state.img", "state.vec")
        model.replay_buffer.close()


def test_raw_observations_are_stored_where_they_are_normalized(tmp_path: Path) -> None:
    env = vec_env.VecNormalize(env_util.make_vec_env("Pendulum-v1", n_envs=2))
    model = sb3.TD3(
        "MlpPolicy",
        env,
        replay_buffer_class=DiskReplayBuffer,
        replay_buffer_kwargs={"path": tmp_path / "b", "n_steps": 2},
        **small(),
    )
    model.learn(60)
    stored = np.asarray(model.replay_buffer.observations)[:30].reshape(60, 3)
    np.testing.assert_allclose(stored[:, 0] ** 2 + stored[:, 1] ** 2, 1, rtol=1e-4)
    batch = model.replay_buffer.sample(60, env=env)
    assert (batch.observations[:, 0] ** 2 + batch.observations[:, 1] ** 2 - 1).abs().max() > 0.1
    model.replay_buffer.close()


def test_a_saved_replay_buffer_is_a_pointer(tmp_path: Path) -> None:
    model = model_of(tmp_path / "b", buffer_size=3000)
    model.learn(60)
    buffer = model.replay_buffer
    model.save_replay_buffer(tmp_path / "buffer.pkl")
    assert (tmp_path / "buffer.pkl").stat().st_size < 4000
    assert buffer.buffer.stats()["commits"] > 0  # a kill loses nothing of it now
    model.load_replay_buffer(tmp_path / "buffer.pkl")
    assert model.replay_buffer is not buffer
    assert model.replay_buffer.buffer is buffer.buffer  # the store was open
    assert copy.deepcopy(buffer).buffer is buffer.buffer
    buffer.close()
    model.load_replay_buffer(tmp_path / "buffer.pkl")
    assert model.replay_buffer.size() == 60
    model.learn(20)
    assert model.replay_buffer.size() == 80
    model.replay_buffer.close()
    (tmp_path / "b").rename(tmp_path / "elsewhere")
    with pytest.raises(diskreplay.NotAStoreError, match=r"/b holds no store any more"):
        pickle.loads((tmp_path / "buffer.pkl").read_bytes())  # noqa: S301


def test_a_loaded_model_goes_on_with_the_store(tmp_path: Path) -> None:
    model = model_of(tmp_path / "b")
    model.learn(40)
    model.save(tmp_path / "model")
    drawn = {}
    for goes_on in (False, True):
        if goes_on:
            model.replay_buffer.close()
        loaded = sb3.DQN.load(tmp_path / "model", env=model.get_env())
        assert loaded.replay_buffer.size() == 40
        drawn[goes_on] = loaded.replay_buffer.buffer
    assert drawn[False] is not drawn[True]
    loaded.learn(20, reset_num_timesteps=False)
    assert loaded.replay_buffer.size() == 60
    loaded.replay_buffer.close()
    (tmp_path / "b").rename(tmp_path / "moved")
    there = {"path": tmp_path / "moved"}
    moved = sb3.DQN.load(tmp_path / "model", env=model.get_env(), replay_buffer_kwargs=there)
    assert moved.replay_buffer.size() == 60
    moved.replay_buffer.close()


KILLED = """
import sys, os, signal, torch
from stable_baselines3 import DQN
from diskreplay.adapters.stable_baselines3 import DiskReplayBuffer
torch.set_num_threads(1)
path, steps, is_killed = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "killed"
options = dict(
    learning_starts=20, buffer_size=100, batch_size=8, device="cpu", seed=1,
    replay_buffer_class=DiskReplayBuffer, replay_buffer_kwargs={"path": path + "/b"},
)
model = DQN("MlpPolicy", "CartPole-v1", **options)
model.learn(steps)
model.save(path + "/model")
model.save_replay_buffer(path + "/buffer.pkl")
print(model.replay_buffer.sample(8).observations.tolist())
sys.stdout.flush()
if is_killed:
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_run_goes_on_and_draws_the_batch_that_would_have_come(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path), "40", "killed"]
    killed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    model = sb3.DQN.load(tmp_path / "model", env=env_util.make_vec_env("CartPole-v1"))
    assert model.replay_buffer.size() == 40
    assert str(model.replay_buffer.sample(8).observations.tolist()) == killed.stdout.strip()
    model.learn(20, reset_num_timesteps=False)
    assert (model.num_timesteps, model.replay_buffer.size()) == (60, 60)
    model.replay_buffer.close()
    assert diskreplay.verify(tmp_path / "b") == []


def test_a_model_is_loaded_for_a_look_while_another_process_writes(tmp_path: Path) -> None:
    model = model_of(tmp_path / "b")
    model.learn(30)
    model.save(tmp_path / "model")
    looking = f"""
import diskreplay, numpy as np
from stable_baselines3 import DQN
model = DQN.load({str(tmp_path / "model")!r})
model.predict(np.zeros(4, np.float32))
print(repr(model.replay_buffer)[:5] != "")
try:
    model.replay_buffer.sample(4)
except diskreplay.LockedError:
    print("locked")
"""
    done = subprocess.run([sys.executable, "-c", looking], capture_output=True, text=True)
    assert (done.stdout.split(), done.stderr) == (["True", "locked"], "")
    model.replay_buffer.close()


ACTOR = """
import sys
sys.path[:0] = sys.argv[2:]
from sb3_twins import ACTIONS, BOX, steps_of
from diskreplay.adapters.stable_baselines3 import DiskReplayBuffer
buffer = DiskReplayBuffer(
    100, BOX, ACTIONS["discrete"], "cpu", 2, path=sys.argv[1], access="shared"
)
for _ in sys.stdin:
    for step in steps_of(BOX, ACTIONS["discrete"], 2, 5, seed=7):
        buffer.add(*step)
    buffer.buffer.flush()
    print(buffer.size(), flush=True)
"""


def test_two_processes_add_to_one_store(tmp_path: Path) -> None:
    command = [sys.executable, "-c", ACTOR, str(tmp_path / "b"), *sys.path]
    actor = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert actor.stdin is not None
    assert actor.stdout is not None
    arguments = (100, BOX, ACTIONS["discrete"], "cpu", 2)
    buffer = DiskReplayBuffer(*arguments, path=tmp_path / "b", access="shared")
    own = buffers.ReplayBuffer(*arguments)
    try:
        for seed in range(6):  # the ring goes round
            for step in steps_of(BOX, ACTIONS["discrete"], 2, 5, seed=seed):
                buffer.add(*step)
                own.add(*step)
            buffer.buffer.flush()
            assert (buffer.pos, buffer.full) == (own.pos, own.full)
            print(file=actor.stdin, flush=True)
            for step in steps_of(BOX, ACTIONS["discrete"], 2, 5, seed=7):
                own.add(*step)
            assert int(actor.stdout.readline()) == own.size()
            assert (buffer.pos, buffer.full) == (own.pos, own.full)
            for name in ("observations", "next_observations", "rewards", "dones", "timeouts"):
                np.testing.assert_array_equal(getattr(buffer, name), getattr(own, name))
            buffer.dones[(buffer.pos - 1) % 50] = True  # as a model does that learns again
    finally:
        actor.communicate()
    assert buffer.buffer.stats()["cuts"] == 0
    buffer.close()


@pytest.mark.parametrize("n_steps", [1, 3])
def test_a_prioritized_agent_gives_each_transition_its_td_error(
    tmp_path: Path, n_steps: int
) -> None:
    model = PrioritizedDQN(
        "MlpPolicy",
        env_util.make_vec_env("CartPole-v1"),
        replay_buffer_kwargs={"path": tmp_path / "b", "n_steps": n_steps, "gamma": 0.9},
        **small(learning_starts=1000, batch_size=40),
    )
    model.learn(40)
    buffer = model.replay_buffer.buffer
    assert set(buffer.priorities(np.arange(40)).tolist()) == {1.0}
    frame = buffer.frame
    copied = tmp_path / "copy"
    buffer.save(copied)
    before = {name: value.clone() for name, value in model.q_net.state_dict().items()}
    model.train(gradient_steps=1, batch_size=40)
    assert buffer.frame == frame + 1
    with diskreplay.open(copied) as twin:
        batch = twin.sample(40, n_step=n_steps, gamma=0.9)
    discounts = batch.discounts if n_steps > 1 else model.gamma
    net, target = copy.deepcopy(model.q_net), model.q_net_target
    net.load_state_dict(before)
    with torch.no_grad():
        best = target(torch.as_tensor(batch.next_states)).max(dim=1).values.numpy()
        values = net(torch.as_tensor(batch.states)).numpy()[np.arange(40), batch.actions]
    td_errors = values - (batch.rewards + discounts * (1 - batch.dones) * best)
    wanted = np.ones(40, np.float32)
    wanted[batch.indices] = np.abs(td_errors)
    np.testing.assert_allclose(buffer.priorities(np.arange(40)), wanted, rtol=1e-4, atol=1e-5)
    model.replay_buffer.close()


def test_a_prioritized_agent_refuses_another_buffer(tmp_path: Path) -> None:
    model = model_of(tmp_path / "b", PrioritizedDQN)
    with pytest.raises(diskreplay.ArgumentError, match="needs a PrioritizedDiskReplayBuffer"):
        model.learn(40)
    model.replay_buffer.close()


def test_a_buffer_without_a_path_is_temporary(tmp_path: Path) -> None:
    buffer = DiskReplayBuffer(20, BOX, ACTIONS["discrete"], "cpu")
    for step in steps_of(BOX, ACTIONS["discrete"], 1, 5, seed=0):
        buffer.add(*step)
    path = buffer.buffer.path
    assert os.path.exists(path)
    buffer.close()
    assert not os.path.exists(path)
