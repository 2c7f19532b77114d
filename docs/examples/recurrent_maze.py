"""Learn a task that needs memory, with a recurrent network and sequences from a buffer on disk.

    python docs/examples/recurrent_maze.py runs/maze

The maze is a corridor (Bakker, Reinforcement Learning with Long Short-Term Memory, 2002): a sign at
its beginning tells which way to turn at its end, and is seen nowhere else. A network that sees the
present alone turns right in half of the episodes. The agent is a small R2D2 (Kapturowski et al.,
Recurrent Experience Replay in Distributed Reinforcement Learning, 2019): Q-learning on sequences,
drawn by priority. The network is recurrent as of Elman, 1990, with its gradient written by hand.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

import diskreplay

CORRIDOR = 6  # steps between the sign and the turn
LENGTH = 2 * CORRIDOR + 4  # of a sequence: it has a whole episode in it wherever it starts
HIDDEN, BATCH_SIZE, DISCOUNT = 24, 16, 0.95
LEARNING_RATE, TARGET_UPDATES = 2e-3, 20


class Maze:
    """Observations are sign (1.0 or -1.0, or 0.0 where none is seen) and whether it is the end."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng

    def reset(self) -> Any:
        """Begin an episode, and return its first observation."""
        self._step, self._sign = 0, float(self._rng.choice([-1.0, 1.0]))
        return np.array([self._sign, 0.0], np.float32)

    def step(self, action: int) -> tuple[Any, float, bool]:
        """Go on, and turn at the end; return observation, reward, and whether it was the end."""
        if self._step == CORRIDOR:
            return np.zeros(2, np.float32), float((action == 1) == (self._sign > 0.0)), True
        self._step += 1
        return np.array([0.0, self._step == CORRIDOR], np.float32), 0.0, False


class Network:
    """A recurrent network with the values of two actions, and the state of Adam."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.parts = {
            "in": rng.normal(0.0, 0.5, (2, HIDDEN)),
            "memory": 0.95 * np.eye(HIDDEN),  # at first it remembers
            "bias": np.zeros(HIDDEN),
            "out": rng.normal(0.0, 0.2, (HIDDEN, 2)),
            "out_bias": np.zeros(2),
        }
        self._mean = {name: np.zeros_like(part) for name, part in self.parts.items()}
        self._square = {name: np.zeros_like(part) for name, part in self.parts.items()}
        self._updates = 0

    def step(self, state: Any, memory: Any) -> tuple[Any, Any]:
        """Return the values of the actions (n, 2) and the new memory (n, HIDDEN)."""
        p = self.parts
        memory = np.tanh(state @ p["in"] + memory @ p["memory"] + p["bias"])
        return memory @ p["out"] + p["out_bias"], memory

    def values(self, states: Any, firsts: Any) -> tuple[Any, Any]:
        """Return values (n, length, 2) and memories; an episode begins with an empty memory."""
        memory, found = np.zeros((len(states), HIDDEN)), []
        for t in range(states.shape[1]):
            found.append(self.step(states[:, t], memory * ~firsts[:, t, None]))
            memory = found[-1][1]
        return np.stack([q for q, _ in found], 1), np.stack([m for _, m in found], 1)

    def learn(self, states: Any, firsts: Any, memories: Any, slopes: Any) -> None:
        """Follow the slopes (n, length, 2) of the loss by the values, back through time."""
        p, slope = self.parts, {name: np.zeros_like(part) for name, part in self.parts.items()}
        later = np.zeros((len(states), HIDDEN))
        for t in reversed(range(states.shape[1])):
            before = memories[:, t - 1] * ~firsts[:, t, None] if t else np.zeros_like(later)
            inner = (slopes[:, t] @ p["out"].T + later) * (1.0 - memories[:, t] ** 2)
            slope["out"] += memories[:, t].T @ slopes[:, t]
            slope["out_bias"] += slopes[:, t].sum(axis=0)
            slope["in"] += states[:, t].T @ inner
            slope["memory"] += before.T @ inner
            slope["bias"] += inner.sum(axis=0)
            later = (inner @ p["memory"].T) * ~firsts[:, t, None]
        self._updates += 1
        for name, part in p.items():
            self._mean[name] += 0.1 * (slope[name] - self._mean[name])
            self._square[name] += 0.001 * (slope[name] ** 2 - self._square[name])
            mean = self._mean[name] / (1.0 - 0.9**self._updates)
            square = self._square[name] / (1.0 - 0.999**self._updates)
            part -= LEARNING_RATE * mean / (np.sqrt(square) + 1e-8)


def update(network: Network, target: Network, buffer: diskreplay.PrioritizedReplayBuffer) -> None:
    """Learn from sequences, and set the priorities of their starts."""
    batch = buffer.sample_sequences(BATCH_SIZE, LENGTH, across=True)
    values, memories = network.values(batch.states, batch.firsts)
    future, _ = target.values(batch.states, batch.firsts)
    taken = np.take_along_axis(values, batch.actions[:, :, None], 2)[:, :, 0]
    wanted = batch.rewards.copy()
    wanted[:, :-1] += DISCOUNT * (1.0 - batch.dones[:, :-1]) * future[:, 1:].max(axis=2)
    # Learn from whatever comes after a sign in the sequence, and has its next step there, too.
    known = batch.mask & (np.cumsum(batch.firsts, axis=1) > 0)
    known[:, :-1] &= batch.mask[:, 1:] | (batch.dones[:, :-1] > 0.0)
    known[:, -1] &= batch.dones[:, -1] > 0.0
    td_errors = (taken - wanted) * known
    slopes = np.zeros_like(values)
    np.put_along_axis(slopes, batch.actions[:, :, None], td_errors[:, :, None], 2)
    slopes *= batch.weights[:, None, None] / BATCH_SIZE
    network.learn(batch.states, batch.firsts, memories, slopes)
    priorities = diskreplay.sequence_priorities(td_errors, batch.mask)
    buffer.update_priorities(batch.indices[:, 0], priorities)


def play(network: Network, maze: Maze, rng: Any, exploration: float, remembers: bool) -> Any:
    """Yield the transitions of an episode."""
    state, memory, done = maze.reset(), np.zeros((1, HIDDEN)), False
    while not done:
        values, memory = network.step(state[np.newaxis], memory * remembers)
        action = int(values.argmax()) if rng.random() >= exploration else int(rng.integers(2))
        next_state, reward, done = maze.step(action)
        yield state, action, reward, next_state, done
        state = next_state


def right_turns(network: Network, rng: Any, remembers: bool, episodes: int = 200) -> float:
    """Return the share of episodes that end with the right turn."""
    runs = (play(network, Maze(rng), rng, 0.0, remembers) for _ in range(episodes))
    return sum(reward for run in runs for _, _, reward, _, _ in run) / episodes


def learn(directory: Path, episodes: int, seed: int) -> tuple[Network, Any]:
    """Play and learn; return the network and the random numbers to go on with."""
    rng = np.random.default_rng(seed)
    network, target, maze = Network(rng), Network(rng), Maze(rng)
    with diskreplay.PrioritizedReplayBuffer(20_000, seed=seed, path=directory / "replay") as buffer:
        for episode in range(episodes):
            exploration = max(0.1, 1.0 - 2.0 * episode / episodes)
            for transition in play(network, maze, rng, exploration, True):
                buffer.push(*transition)
            if episode % TARGET_UPDATES == 0:
                target.parts = {name: part.copy() for name, part in network.parts.items()}
            if buffer.is_ready(10 * LENGTH):
                update(network, target, buffer)
    return network, rng


def main() -> None:
    """Learn the maze, and tell how often the agent turns right."""
    parser = argparse.ArgumentParser(description="Learn a maze that needs memory.")
    parser.add_argument("directory", type=Path, help="holds the store")
    parser.add_argument("--episodes", type=int, default=2500)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    network, rng = learn(arguments.directory, arguments.episodes, arguments.seed)
    print(f"right turns: {right_turns(network, rng, True):.0%}")
    print(f"right turns without memory: {right_turns(network, rng, False):.0%}")


if __name__ == "__main__":
    main()
