"""TorchRL: a prioritized buffer in files that are mapped into memory, and a tree in C++."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from tensordict import TensorDict
from torchrl.data import LazyMemmapStorage, PrioritizedSampler, ReplayBuffer, SliceSampler

from bench.rows import Array, Row, Task, blocks
from bench.serving import serve
from bench.system import Floats, System
from bench.timing import extend, push, sequences, step, timed

NAMES = ("state", "action", "reward", "next_state", "done")
TYPES = (np.float32, np.int64, np.float32, np.float32, np.float32)


class TorchRL(System):
    """A buffer of TorchRL."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self.buffer = ReplayBuffer(
            storage=LazyMemmapStorage(task.rows, scratch_dir=task.path),
            sampler=self.sampler(),
            batch_size=task.batch,
        )
        self.push, self.extend = self.buffer.add, self.buffer.extend
        for part in blocks(task):
            self.extend(*self.as_part(part))

    def sampler(self) -> Any:
        """Return the sampler of the buffer."""
        return PrioritizedSampler(self.task.rows, alpha=self.task.alpha, beta=self.task.beta)

    def draw(self) -> Any:
        """Draw a batch, and return its indices."""
        return self.buffer.sample(return_info=True)[1]["index"]

    def update(self, drawn: Any, priorities: Floats) -> object:
        """Update the priorities of indices."""
        return self.buffer.update_priority(drawn, torch.from_numpy(priorities))

    def as_rows(self, rows: list[Row]) -> list[Any]:
        """Put transitions in tensors."""
        parts = zip(zip(*rows, strict=True), TYPES, strict=True)
        (whole,) = self.as_part([np.array(values, dtype) for values, dtype in parts])
        return [(whole[i],) for i in range(len(rows))]

    def as_part(self, columns: list[Array]) -> Any:
        """Put columns in tensors."""
        tensors = {name: torch.from_numpy(c) for name, c in zip(NAMES, columns, strict=True)}
        return (TensorDict(tensors, batch_size=[len(columns[0])]),)


class Slices(TorchRL):
    """A buffer of TorchRL that draws slices of episodes, whose ends it keeps in memory."""

    def sampler(self) -> Any:
        """Return a sampler, which may return shorter slices, as ours are padded."""
        return SliceSampler(
            num_slices=self.task.sequences,
            end_key="done",
            strict_length=False,
            cache_values=True,
        )

    def sequences(self) -> Any:
        """Draw a batch of slices."""
        return self.buffer.sample(self.task.sequences * self.task.length)


if __name__ == "__main__":
    loops = timed(TorchRL, step, push, extend) | timed(Slices, sequences)
    serve(loops, ("torchrl", "tensordict", "torch"))
