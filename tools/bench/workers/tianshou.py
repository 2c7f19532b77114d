"""tianshou: a prioritized buffer in memory, of numpy arrays and a tree compiled by numba."""

from __future__ import annotations

from typing import Any

from tianshou.data import Batch, PrioritizedReplayBuffer, ReplayBuffer

from bench.rows import Row, Task, blocks, singles
from bench.serving import serve
from bench.timing import Rounds, pushes, steps


def filled(task: Task) -> Any:
    """Return a full buffer; in bulk it takes transitions from another buffer only."""
    buffer = PrioritizedReplayBuffer(task.rows, alpha=task.alpha, beta=task.beta)
    buffer.add(as_batch(singles(task, 0, 1)[0]))
    for states, actions, rewards, next_states, dones in blocks(task):
        ended = dones > 0
        part = ReplayBuffer.from_data(
            obs=states, act=actions, rew=rewards, terminated=ended, truncated=ended & False,
            done=ended, obs_next=next_states,
        )  # fmt: skip
        buffer.update(part)
    return buffer


def as_batch(row: Row) -> Any:
    """Return a transition as tianshou takes it."""
    state, action, reward, next_state, done = row
    return Batch(
        obs=state, act=action, rew=reward, terminated=done, truncated=False, obs_next=next_state,
        info={},
    )  # fmt: skip


def step(task: Task) -> Rounds:
    """Sample and update priorities."""
    buffer = filled(task)
    yield from steps(task, lambda: buffer.sample(task.batch)[1], buffer.update_weight)


def push(task: Task) -> Rounds:
    """Add one by one."""
    buffer = filled(task)

    def push_all(rows: list[Any]) -> None:
        for row in rows:
            buffer.add(row)

    yield from pushes(task, lambda rows: [as_batch(row) for row in rows], push_all)


if __name__ == "__main__":
    serve({"step": step, "push": push}, ("tianshou", "torch"))
