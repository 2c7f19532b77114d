"""SAC of Stable-Baselines3 swings a pendulum up, with a replay buffer on disk and VecNormalize.

It needs stable-baselines3: pip install "diskreplay[sb3]". A checkpoint has three files: the model,
the statistics of VecNormalize, and the replay buffer, which is a kilobyte with the path of the
store. Run it, end it with `kill -9`, and run the same command again: it goes on from the newest
checkpoint, or begins anew where there is none, with all transitions that are in the store::

    python docs/examples/sb3_sac.py runs/sac
"""

import argparse
from pathlib import Path

import torch
from stable_baselines3 import SAC
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecNormalize

from diskreplay.adapters.stable_baselines3 import DiskReplayBuffer


class Checkpoints(BaseCallback):
    """Save model, statistics and replay buffer after each of so many steps."""

    def __init__(self, directory, every):
        super().__init__()
        self.directory, self.every = directory, every

    def _on_step(self):
        if self.num_timesteps % self.every == 0:
            new = self.directory / "new"
            new.mkdir(exist_ok=True)  # a killed run may have left one
            self.model.save(new / "model")
            self.model.get_vec_normalize_env().save(new / "normalize.pkl")
            self.model.save_replay_buffer(new / "buffer.pkl")
            # Only a whole checkpoint gets this name, whenever the process is killed.
            new.rename(self.directory / f"step-{self.num_timesteps:08}")
            print(f"saved at step {self.num_timesteps}", flush=True)
        return True


def new_env(seed):
    """Return an environment in the form that VecNormalize wants."""
    return make_vec_env("Pendulum-v1", seed=seed)


def main():
    """Learn, and print the mean return of some episodes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path, help="holds the store and the checkpoints")
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--save-every", type=int, default=1000, help="steps")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    directory, seed = arguments.directory, arguments.seed
    torch.set_num_threads(1)  # the fastest for networks of this size

    checkpoints = sorted(directory.glob("step-*"))
    if checkpoints:
        newest = checkpoints[-1]
        env = VecNormalize.load(newest / "normalize.pkl", new_env(seed))
        model = SAC.load(newest / "model", env=env)
        model.load_replay_buffer(newest / "buffer.pkl")  # opens the store
        stored = model.replay_buffer.size()
        print(f"goes on from step {model.num_timesteps}, with {stored} transitions")
    else:
        # The store keeps what the environment gave; a batch is normalized when it is drawn.
        model = SAC(
            "MlpPolicy",
            VecNormalize(new_env(seed)),
            learning_rate=1e-3,
            policy_kwargs={"net_arch": [64, 64]},
            buffer_size=100_000,
            replay_buffer_class=DiskReplayBuffer,
            replay_buffer_kwargs={"path": directory / "replay"},
            seed=seed,
            device="cpu",
        )
    model.learn(
        max(0, arguments.steps - model.num_timesteps),
        callback=Checkpoints(directory, arguments.save_every),
        reset_num_timesteps=False,
    )

    env = model.get_vec_normalize_env()
    env.training, env.norm_reward = False, False
    mean, _ = evaluate_policy(model, env, n_eval_episodes=20)
    print(f"mean return of 20 episodes: {mean:.0f}")
    model.replay_buffer.close()


if __name__ == "__main__":
    main()
