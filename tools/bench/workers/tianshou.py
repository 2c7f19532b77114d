"""tianshou: a prioritized buffer in memory, of numpy arrays and a tree compiled by numba."""

from __future__ import annotations

from typing import Any

from tianshou.data import Batch, PrioritizedReplayBuffer, ReplayBuffer

from bench.rows import Row, Task, blocks, singles
from bench.serving import serve
from bench.system import Floats, System
from bench.timing import push, step, timed


class Tianshou(System):
    """A buffer of tianshou; in bulk it takes transitions from another buffer only."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self.buffer = PrioritizedReplayBuffer(task.rows, alpha=task.alpha, beta=task.beta)
        self.push = self.buffer.add
        self.push_all(self.as_rows(singles(task, 0, 1)))
        for states, actions, rewards, next_states, dones in blocks(task):
            ended = dones > 0
            part = ReplayBuffer.from_data(
                obs=states, act=actions, rew=rewards, terminated=ended, truncated=ended & False,
                done=ended, obs_next=next_states,
            )  # fmt: skip
            self.buffer.update(part)

    def draw(self) -> Any:
        """Draw a batch, and return its indices."""
        return self.buffer.sample(self.task.batch)[1]

    def update(self, drawn: Any, priorities: Floats) -> object:
        """Update the priorities of indices."""
        return self.buffer.update_weight(drawn, priorities)

    def as_rows(self, rows: list[Row]) -> list[Any]:
        """Put transitions in the form that tianshou takes them in."""
        return [
            (Batch(obs=state, act=action, rew=reward, terminated=done, truncated=False,
                   obs_next=next_state, info={}),)
            for state, action, reward, next_state, done in rows
        ]  # fmt: skip


if __name__ == "__main__":
    serve(timed(Tianshou, step, push), ("tianshou", "torch"))
