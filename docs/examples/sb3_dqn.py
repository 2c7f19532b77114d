"""The DQN of Stable-Baselines3 learns CartPole from a replay buffer on disk; run it again to go on.

It needs stable-baselines3: pip install "diskreplay[sb3]". The model is saved now and then. A run
that was killed goes on with the saved model, and with the transitions in its store::

    python docs/examples/sb3_dqn.py runs/sb3 --buffer prioritized --seed 1
"""

import argparse
import time
from pathlib import Path

import torch
from stable_baselines3 import DQN
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

from diskreplay.adapters.stable_baselines3 import DiskReplayBuffer, PrioritizedDQN

# The settings of RL Baselines3 Zoo for this environment.
SETTINGS = {
    "learning_rate": 2.3e-3,
    "batch_size": 64,
    "buffer_size": 100_000,
    "learning_starts": 1000,
    "target_update_interval": 10,
    "gradient_steps": 128,
    "exploration_fraction": 0.16,
    "exploration_final_eps": 0.04,
    "policy_kwargs": {"net_arch": [256, 256]},
}


class SaveModel(BaseCallback):
    """Save the model after each of so many steps."""

    def __init__(self, path, every):
        super().__init__()
        self.path, self.every = path, every

    def _on_step(self):
        # A step of all environments counts as one for each of them.
        if self.num_timesteps % self.every < self.training_env.num_envs:
            self.model.save(self.path.with_name("new.zip"))
            self.path.with_name("new.zip").replace(self.path)  # whole, whenever a kill comes
        return True


def new_model(kind, buffer, env, path, seed):
    """Return a model with one of the three replay buffers."""
    on_disk = {"path": path}
    choices = {
        "memory": {},
        "disk": {"replay_buffer_class": DiskReplayBuffer, "replay_buffer_kwargs": on_disk},
        "prioritized": {"replay_buffer_kwargs": on_disk},  # its class is the default there
    }
    every = 256 // env.num_envs  # 256 transitions come before 128 gradient steps
    return kind(
        "MlpPolicy", env, train_freq=every, seed=seed, device="cpu", **SETTINGS, **choices[buffer]
    )


def main():
    """Learn, and print the mean return of some episodes at last."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--buffer", choices=("disk", "prioritized", "memory"), default="disk")
    parser.add_argument("--n-envs", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=50_000)
    parser.add_argument("--save-every", type=int, default=5000, help="steps")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # the fastest for a network of this size

    place = arguments.directory / f"{arguments.buffer}-{arguments.seed}"
    place.mkdir(parents=True, exist_ok=True)
    saved = place / "model.zip"
    kind = PrioritizedDQN if arguments.buffer == "prioritized" else DQN
    env = make_vec_env("CartPole-v1", n_envs=arguments.n_envs, seed=arguments.seed)
    if saved.exists():
        model = kind.load(saved, env=env)  # opens the store again
    else:
        model = new_model(kind, arguments.buffer, env, place / "replay", arguments.seed)

    began = time.perf_counter()
    left = max(0, arguments.steps - model.num_timesteps)
    saving = SaveModel(saved, arguments.save_every)
    model.learn(left, callback=saving, reset_num_timesteps=False)
    seconds = time.perf_counter() - began

    eval_env = make_vec_env("CartPole-v1", seed=1000 + arguments.seed)
    mean, deviation = evaluate_policy(model, eval_env, n_eval_episodes=20)
    print(
        f"{arguments.buffer}, seed {arguments.seed}: {model.num_timesteps} steps "
        f"in {seconds:.1f} s, mean return of 20 episodes {mean:.0f} (deviation {deviation:.0f})"
    )
    if arguments.buffer != "memory":
        model.replay_buffer.close()


if __name__ == "__main__":
    main()
