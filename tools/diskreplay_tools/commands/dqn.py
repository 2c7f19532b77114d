"""A deep Q-network in numpy that learns CartPole-v1 from a buffer on disk, and may be killed.

Run it again with the same arguments and it goes on: the buffer reopens as of its last commit, the
network as of its last checkpoint. `diskreplay demo` runs it, kills it, and runs it again:

    python -m diskreplay_tools.commands.dqn runs/cartpole --seed 0 --steps 40000

It reports what happens as JSON lines on stdout. The algorithm: Mnih et al., Human-level control
through deep reinforcement learning, 2015, with the target of van Hasselt et al., Deep Reinforcement
Learning with Double Q-learning, 2016, and priorities of Schaul et al., Prioritized Experience
Replay, 2016.
"""

import argparse
import itertools
import os
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

import diskreplay
from diskreplay.aliases import Array
from diskreplay_tools.commands.demo_process import report

SIZES = (4, 64, 64, 2)  # units a layer: the state of CartPole-v1, two hidden, its two actions
CAPACITY = 100_000  # transitions
BATCH_SIZE = 64  # transitions
LEARNING_STARTS = 500  # transitions in the buffer before the first update
CHECKPOINT_STEPS = 700  # from one saved network to the next
DISCOUNT = 0.98
LEARNING_RATE = 2e-3  # falls linearly to 0 with the last step
HUBER = 10.0  # the TD error above which the loss grows linearly
TARGET_RATE = 0.01  # how far the target network follows in one update
EXPLORATION_END = 0.02  # probability of a random action, falls linearly from 1 to this
EXPLORATION_SHARE = 0.2  # of the steps, until it has fallen


def layers(theta: Array) -> list[tuple[Array, Array]]:
    """View the flat parameters as one (weights, biases) pair a layer."""
    pairs = []
    start = 0
    for rows, columns in itertools.pairwise(SIZES):
        middle = start + rows * columns
        end = middle + columns
        pairs.append((theta[start:middle].reshape(rows, columns), theta[middle:end]))
        start = end
    return pairs


def initial_parameters(rng: np.random.Generator) -> Array:
    """Draw weights after He et al., Delving Deep into Rectifiers, 2015; biases are 0."""
    count = sum((rows + 1) * columns for rows, columns in itertools.pairwise(SIZES))
    theta = np.zeros(count, np.float32)
    for weights, _ in layers(theta):
        weights[...] = rng.normal(0.0, np.sqrt(2.0 / len(weights)), weights.shape)
    return theta


def activations(theta: Array, states: Array) -> list[Array]:
    """Return the output of each layer for states (n, 4), from the states to the values (n, 2)."""
    outputs = [states]
    pairs = layers(theta)
    for weights, biases in pairs[:-1]:
        outputs.append(np.maximum(outputs[-1] @ weights + biases, 0.0))
    weights, biases = pairs[-1]
    outputs.append(outputs[-1] @ weights + biases)
    return outputs


def q_values(theta: Array, states: Array) -> Array:
    """Return the value of each action, (n, 2), for states (n, 4)."""
    return activations(theta, states)[-1]


def gradient(
    theta: Array, states: Array, actions: Array, targets: Array, weights: Array | float
) -> tuple[Array, Array]:
    """Return the gradient of the weighted mean Huber loss, flat, and the TD errors (n,)."""
    outputs = activations(theta, states)
    rows = np.arange(len(actions))
    td_errors = outputs[-1][rows, actions] - targets
    delta = np.zeros_like(outputs[-1])
    delta[rows, actions] = weights * np.clip(td_errors, -HUBER, HUBER) / len(actions)
    flat = np.empty_like(theta)
    slopes = layers(flat)
    pairs = layers(theta)
    for i in reversed(range(len(pairs))):
        np.matmul(outputs[i].T, delta, out=slopes[i][0])
        np.sum(delta, axis=0, out=slopes[i][1])
        if i > 0:
            delta = (delta @ pairs[i][0].T) * (outputs[i] > 0.0)
    return flat, td_errors


class Learner:
    """The network, its slowly following target, and the state of Adam."""

    def __init__(self, seed: int) -> None:
        self.theta = initial_parameters(np.random.default_rng(seed))
        self.target = self.theta.copy()
        self.mean = np.zeros_like(self.theta)
        self.square = np.zeros_like(self.theta)
        self.updates = 0

    def update(self, batch: Any, learning_rate: float) -> Array:
        """Learn from one batch, and return its absolute TD errors, the new priorities.

        batch:  of any replay, with importance weights or without, of one step or of several
        """
        rows = np.arange(len(batch.actions))
        best = np.argmax(q_values(self.theta, batch.next_states), axis=1)
        future = q_values(self.target, batch.next_states)[rows, best]
        discounts = getattr(batch, "discounts", DISCOUNT)
        targets = batch.rewards + discounts * (1.0 - batch.dones) * future
        weights = getattr(batch, "weights", 1.0)
        slope, td_errors = gradient(self.theta, batch.states, batch.actions, targets, weights)
        self._adam(slope, learning_rate)
        self.target += TARGET_RATE * (self.theta - self.target)
        return np.abs(td_errors)

    def _adam(self, slope: Array, learning_rate: float) -> None:
        """Apply one step of Kingma and Ba, Adam, 2015."""
        self.updates += 1
        self.mean += 0.1 * (slope - self.mean)
        self.square += 0.001 * (slope * slope - self.square)
        mean = self.mean / (1.0 - 0.9**self.updates)
        square = self.square / (1.0 - 0.999**self.updates)
        self.theta -= learning_rate * mean / (np.sqrt(square) + 1e-8)

    def save(self, path: Path, step: int) -> None:
        """Replace the checkpoint at once: a kill leaves the old one or the new one, never half."""
        unfinished = path.with_name(path.name + ".tmp")
        with open(unfinished, "wb") as file:
            np.savez(file, step=step, updates=self.updates, theta=self.theta, target=self.target,
                     mean=self.mean, square=self.square)  # fmt: skip
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)

    def load(self, path: Path) -> int:
        """Load a checkpoint, and return the step at which it was saved."""
        with np.load(path, allow_pickle=False) as saved:
            self.updates = int(saved["updates"])
            self.theta, self.target = saved["theta"], saved["target"]
            self.mean, self.square = saved["mean"], saved["square"]
            return int(saved["step"])


def learn(directory: Path, seed: int, steps: int) -> None:
    """Learn until the buffer has been given `steps` transitions, going on from what is there."""
    directory.mkdir(parents=True, exist_ok=True)
    checkpoint = directory / "network.npz"
    began = time.perf_counter()
    buffer = diskreplay.PrioritizedReplayBuffer(
        CAPACITY, beta_frames=steps, seed=seed, path=directory / "replay"
    )
    seconds = time.perf_counter() - began
    with buffer, gymnasium.make("CartPole-v1") as environment:
        learner = Learner(seed)
        saved_step = learner.load(checkpoint) if checkpoint.exists() else 0
        # Each step pushes one transition, so the buffer's count is the step to go on from. The
        # network may be older by a few steps, which it makes up for with what the buffer kept.
        step = buffer.count
        report("open", size=len(buffer), step=step, saved_step=saved_step, seconds=seconds)
        rng = np.random.default_rng([seed, step])  # a resumed run does not repeat its first draws
        state, _ = environment.reset(seed=int(rng.integers(2**31)))
        episode_return = 0.0
        while step < steps:
            exploration = max(EXPLORATION_END, 1.0 - step / (EXPLORATION_SHARE * steps))
            if rng.random() < exploration:
                action = int(rng.integers(SIZES[-1]))
            else:
                action = int(np.argmax(q_values(learner.theta, state[np.newaxis])))
            next_state, reward, terminated, truncated, _ = environment.step(action)
            # An episode cut off by the time limit has not ended badly: only `terminated` is done.
            buffer.push(state, action, float(reward), next_state, terminated, truncated=truncated)
            step += 1
            report("step", step=step)
            state = next_state
            episode_return += float(reward)
            if terminated or truncated:
                report("episode", episode_return=episode_return)
                state, _ = environment.reset()
                episode_return = 0.0
            if buffer.is_ready(LEARNING_STARTS):
                batch = buffer.sample(BATCH_SIZE)
                td_errors = learner.update(batch, LEARNING_RATE * (1.0 - step / steps))
                buffer.update_priorities(batch.indices, td_errors + 0.01)
            if step % CHECKPOINT_STEPS == 0 or step == steps:
                buffer.flush()  # first, so that the buffer is never behind the network
                learner.save(checkpoint, step)


def main() -> None:
    """Read the command line and learn."""
    parser = argparse.ArgumentParser(description="Learn CartPole-v1 from a buffer on disk.")
    parser.add_argument("directory", type=Path, help="holds replay/ and network.npz")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=40_000)
    arguments = parser.parse_args()
    learn(arguments.directory, arguments.seed, arguments.steps)


if __name__ == "__main__":
    main()
