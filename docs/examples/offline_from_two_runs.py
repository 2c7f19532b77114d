"""Learn CartPole-v1 offline, from the stores of two earlier runs, without a step of one's own.

    python docs/examples/offline_from_two_runs.py runs/offline

One run acted at random, the other by a rule of thumb that errs in every fifth step. A Mixture draws
half of each batch from either; the network is that of `diskreplay demo`. What it learns depends on
the seed: docs/how-to/mixtures.md has the figures of three.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from diskreplay_tools.commands.dqn import Learner, q_values

import diskreplay

BATCH_SIZE = 64
Policy = Callable[[Any], int]


def record(path: Path, policy: Policy, steps: int, seed: int) -> None:
    """Keep what a policy does in a store: an earlier run."""
    with (
        gymnasium.make("CartPole-v1") as environment,
        diskreplay.ReplayBuffer(steps, seed=seed, path=path) as buffer,
    ):
        state, _ = environment.reset(seed=seed)
        for _ in range(steps):
            action = policy(state)
            next_state, reward, terminated, truncated, _ = environment.step(action)
            buffer.push(state, action, float(reward), next_state, terminated, truncated=truncated)
            state = environment.reset()[0] if terminated or truncated else next_state


def mean_return(policy: Policy, episodes: int = 10) -> float:
    """Return what a policy gets on average, in episodes that begin alike for every policy."""
    total = 0.0
    with gymnasium.make("CartPole-v1") as environment:
        for episode in range(episodes):
            state, _ = environment.reset(seed=1000 + episode)
            ended = False
            while not ended:
                state, reward, terminated, truncated, _ = environment.step(policy(state))
                total += float(reward)
                ended = terminated or truncated
    return total / episodes


def learn(sources: dict[str, Path], updates: int, seed: int) -> Policy:
    """Return the policy of a network that learned from stores alone."""
    learner = Learner(seed)
    shares = dict.fromkeys(sources, 1.0)
    with diskreplay.Mixture(sources, shares, seed=seed) as mixture:
        for update in range(updates):
            learner.update(mixture.sample(BATCH_SIZE), 1e-3 * (1.0 - update / updates))
    return lambda state: int(np.argmax(q_values(learner.theta, state[np.newaxis])))


def main() -> None:
    """Record two runs, learn from both and from the first alone, and compare."""
    parser = argparse.ArgumentParser(description="Learn CartPole-v1 offline from two runs.")
    parser.add_argument("directory", type=Path, help="holds the stores of the runs")
    parser.add_argument("--steps", type=int, default=10_000, help="of each run")
    parser.add_argument("--updates", type=int, default=10_000, help="of the network")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)

    def at_random(state: Any) -> int:
        return int(rng.integers(2))

    def by_rule(state: Any) -> int:
        return int(state[2] + state[3] > 0.0) if rng.random() > 0.2 else at_random(state)

    policies = {"random": at_random, "rule": by_rule}
    paths = {name: arguments.directory / name for name in policies}
    for name, policy in policies.items():
        record(paths[name], policy, arguments.steps, arguments.seed)
        print(f"run {name}: mean return {mean_return(policy):.0f}")
    for sources in ({"random": paths["random"]}, paths):
        policy = learn(sources, arguments.updates, arguments.seed)
        print(f"learned from {' and '.join(sources)}: mean return {mean_return(policy):.0f}")


if __name__ == "__main__":
    main()
