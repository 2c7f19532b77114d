"""TorchRL: a prioritized buffer in files that are mapped into memory, and a tree in C++."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from tensordict import TensorDict
from torchrl.data import LazyMemmapStorage, PrioritizedSampler, ReplayBuffer

from bench.rows import Array, Row, Task, blocks
from bench.serving import serve
from bench.timing import Floats, Rounds, extends, pushes, steps

NAMES = ("state", "action", "reward", "next_state", "done")
TYPES = (np.float32, np.int64, np.float32, np.float32, np.float32)


def filled(task: Task) -> Any:
    """Return a full buffer."""
    buffer = ReplayBuffer(
        storage=LazyMemmapStorage(task.rows, scratch_dir=task.path),
        sampler=PrioritizedSampler(task.rows, alpha=task.alpha, beta=task.beta),
        batch_size=task.batch,
    )
    for part in blocks(task):
        buffer.extend(as_tensors(part))
    return buffer


def as_tensors(part: list[Array]) -> Any:
    """Return columns as TorchRL takes them."""
    tensors = {name: torch.from_numpy(c) for name, c in zip(NAMES, part, strict=True)}
    return TensorDict(tensors, batch_size=[len(part[0])])


def step(task: Task) -> Rounds:
    """Sample and update priorities."""
    buffer = filled(task)

    def sample() -> Any:
        _, info = buffer.sample(return_info=True)
        return info["index"]

    def update(index: Any, priorities: Floats) -> None:
        buffer.update_priority(index, torch.from_numpy(priorities))

    yield from steps(task, sample, update)


def push(task: Task) -> Rounds:
    """Add one by one."""
    buffer = filled(task)

    def prepare(rows: list[Row]) -> list[Any]:
        parts = zip(zip(*rows, strict=True), TYPES, strict=True)
        whole = as_tensors([np.array(values, dtype) for values, dtype in parts])
        return [whole[i] for i in range(len(rows))]

    def push_all(rows: list[Any]) -> None:
        for row in rows:
            buffer.add(row)

    yield from pushes(task, prepare, push_all)


def extend(task: Task) -> Rounds:
    """Extend by a thousand."""
    buffer = filled(task)

    def extend_all(parts: list[Any]) -> None:
        for part in parts:
            buffer.extend(part)

    yield from extends(task, as_tensors, extend_all)


if __name__ == "__main__":
    serve({"step": step, "push": push, "extend": extend}, ("torchrl", "tensordict", "torch"))
