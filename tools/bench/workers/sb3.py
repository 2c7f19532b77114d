"""stable-baselines3: a uniform buffer in memory, of numpy arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer

from bench.rows import Row, Task, blocks
from bench.serving import serve
from bench.timing import Rounds, pushes, samples


def filled(task: Task) -> Any:
    """Return a full buffer; it has no bulk interface, so its arrays are written."""
    observations = spaces.Box(-np.inf, np.inf, (task.width,), np.float32)
    buffer = ReplayBuffer(task.rows, observations, spaces.Discrete(18), device="cpu")
    first = 0
    for states, actions, rewards, next_states, dones in blocks(task):
        rows = slice(first, first + len(states))
        buffer.observations[rows, 0] = states
        buffer.actions[rows, 0, 0] = actions
        buffer.rewards[rows, 0] = rewards
        buffer.next_observations[rows, 0] = next_states
        buffer.dones[rows, 0] = dones
        first = rows.stop
    buffer.full = True
    return buffer


def sample(task: Task) -> Rounds:
    """Sample uniformly; it returns tensors."""
    buffer = filled(task)
    yield from samples(task, lambda: buffer.sample(task.batch))


def push(task: Task) -> Rounds:
    """Add one by one, in the arrays of one environment."""
    buffer = filled(task)

    def prepare(rows: list[Row]) -> list[tuple[Any, ...]]:
        return [
            (state[None], next_state[None], np.array([action]), np.array([reward]),
             np.array([done]), [{}])
            for state, action, reward, next_state, done in rows
        ]  # fmt: skip

    def push_all(rows: list[tuple[Any, ...]]) -> None:
        for row in rows:
            buffer.add(*row)

    yield from pushes(task, prepare, push_all)


if __name__ == "__main__":
    serve({"sample": sample, "push": push}, ("stable-baselines3", "torch"))
