"""Learn CartPole-v1 with returns of one step and of three, with the network of `diskreplay demo`.

    python docs/examples/cartpole_n_step.py runs/n_step

Both learn from a store of their own, by the same program: `sample(n_step=3)` sums the rewards of
three steps, and `discounts` of the batch says how much of the value of the state after them counts.
"""

import argparse
from pathlib import Path

import gymnasium
import numpy as np
from diskreplay_tools.commands.dqn import DISCOUNT, Learner, q_values

import diskreplay

BATCH_SIZE, LEARNING_STARTS, LEARNING_RATE = 64, 500, 1e-3


def learn(path: Path, n_step: int, steps: int, seed: int) -> list[float]:
    """Learn for a number of steps, and return the returns of the episodes."""
    learner, rng = Learner(seed), np.random.default_rng(seed)
    returns, total = [], 0.0
    with (
        gymnasium.make("CartPole-v1") as environment,
        diskreplay.PrioritizedReplayBuffer(
            50_000, beta_frames=steps, seed=seed, path=path
        ) as buffer,
    ):
        state, _ = environment.reset(seed=seed)
        for step in range(steps):
            if rng.random() < max(0.02, 1.0 - 5.0 * step / steps):
                action = int(rng.integers(2))
            else:
                action = int(np.argmax(q_values(learner.theta, state[np.newaxis])))
            next_state, reward, terminated, truncated, _ = environment.step(action)
            # An episode that a time limit cuts off ends, too: no return goes on into the next one.
            buffer.push(state, action, float(reward), next_state, terminated, truncated=truncated)
            state, total = next_state, total + float(reward)
            if terminated or truncated:
                returns.append(total)
                total = 0.0
                state, _ = environment.reset()
            if buffer.is_ready(LEARNING_STARTS):
                batch = buffer.sample(BATCH_SIZE, n_step=n_step, gamma=DISCOUNT)
                td_errors = learner.update(batch, LEARNING_RATE * (1.0 - step / steps))
                buffer.update_priorities(batch.indices, td_errors + 0.01)
    return returns


def main() -> None:
    """Learn twice, and compare."""
    parser = argparse.ArgumentParser(
        description="Learn CartPole-v1 with 1-step and 3-step returns."
    )
    parser.add_argument("directory", type=Path, help="holds the stores")
    parser.add_argument("--steps", type=int, default=15_000, help="in the environment")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    for n_step in (1, 3):
        path = arguments.directory / f"{n_step}-step"
        returns = learn(path, n_step, arguments.steps, arguments.seed)
        print(
            f"n_step={n_step}: {len(returns)} episodes, mean return of the first 20 "
            f"{np.mean(returns[:20]):.0f}, of the last 20 {np.mean(returns[-20:]):.0f}"
        )


if __name__ == "__main__":
    main()
