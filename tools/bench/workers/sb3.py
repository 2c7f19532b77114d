"""stable-baselines3: a uniform buffer in memory, of numpy arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer

from bench.rows import Row, Task, blocks
from bench.serving import serve
from bench.system import System
from bench.timing import push, sample, timed


class Sb3(System):
    """A buffer of one environment; its arrays are written, since it takes nothing in bulk."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        observations = spaces.Box(-np.inf, np.inf, (task.width,), np.float32)
        buffer = ReplayBuffer(task.rows, observations, spaces.Discrete(18), device="cpu")
        self.buffer, self.push = buffer, buffer.add
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

    def sample(self) -> Any:
        """Draw a uniform batch; it returns tensors."""
        return self.buffer.sample(self.task.batch)

    def as_rows(self, rows: list[Row]) -> list[Any]:
        """Put transitions in the arrays of one environment."""
        return [
            (state[None], next_state[None], np.array([action]), np.array([reward]),
             np.array([done]), [{}])
            for state, action, reward, next_state, done in rows
        ]  # fmt: skip


if __name__ == "__main__":
    serve(timed(Sb3, sample, push), ("stable-baselines3", "torch"))
