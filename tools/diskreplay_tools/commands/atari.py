"""Random play of an Atari game, whose stacked frames go into a buffer on disk; it may be killed.

Run it again with the same arguments and it goes on: the buffer reopens as of its last commit.
`diskreplay demo --atari` runs it, kills it, and runs it again:

    python -m diskreplay_tools.commands.atari runs/pong --game Pong --seed 0 --steps 10000

It reports what happens as JSON lines on stdout. The preprocessing is that of Gymnasium: gray frames
of 84x84, one in four, in stacks of four.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import ale_py
import gymnasium
import numpy as np
from gymnasium.wrappers import AtariPreprocessing, FrameStackObservation

import diskreplay
from diskreplay_tools.commands.demo_process import report

STACK = 4  # frames


def environment_of(game: str) -> Any:
    """Return the environment of a game, with its frames preprocessed and stacked."""
    gymnasium.register_envs(ale_py)
    return FrameStackObservation(
        AtariPreprocessing(gymnasium.make(f"ALE/{game}-v5", frameskip=1)), STACK
    )


def play(directory: Path, game: str, seed: int, steps: int) -> None:
    """Play until the buffer has been given `steps` transitions, going on from what is there."""
    directory.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    buffer = diskreplay.ReplayBuffer(
        steps, seed=seed, path=directory / "replay", observations="log", frame_axis=0, codec="lz4"
    )
    seconds = time.perf_counter() - began
    with buffer, environment_of(game) as environment:
        step = buffer.count
        report("open", size=len(buffer), step=step, seconds=seconds)
        rng = np.random.default_rng([seed, step])  # a resumed run does not repeat its first actions
        state, _ = environment.reset(seed=int(rng.integers(2**31)))
        episode_return = 0.0
        while step < steps:
            action = int(rng.integers(environment.action_space.n))
            next_state, reward, terminated, truncated, _ = environment.step(action)
            buffer.push(state, action, float(reward), next_state, terminated, truncated=truncated)
            step += 1
            report("step", step=step)
            state = next_state
            episode_return += float(reward)
            if terminated or truncated:
                report("episode", episode_return=episode_return)
                state, _ = environment.reset()
                episode_return = 0.0


def main() -> None:
    """Read the command line and play."""
    parser = argparse.ArgumentParser(description="Play an Atari game into a buffer on disk.")
    parser.add_argument("directory", type=Path, help="holds replay/")
    parser.add_argument("--game", default="Pong")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=10_000)
    arguments = parser.parse_args()
    play(arguments.directory, arguments.game, arguments.seed, arguments.steps)


if __name__ == "__main__":
    main()
