"""StoredColumn: the arrays of a replay buffer of Stable-Baselines3, read from the store."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from diskreplay.adapters.vector_steps import VectorSteps


class StoredColumn:
    """One field of all transitions, to be indexed as an array (buffer_size, n_envs, ...).

    Each access reads the rows that it asks for; rows that were never written are zeros. numpy's
    functions take it as an array, and read it whole.
    """

    def __init__(
        self,
        steps: VectorSteps,
        shape: tuple[int, ...],
        dtype: Any,
        read: Callable[[Any], Any],
    ) -> None:
        self.shape, self.dtype = shape, np.dtype(dtype)
        self._steps, self._read = steps, read

    @property
    def ndim(self) -> int:
        """The number of dimensions."""
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> Any:
        keys = key if isinstance(key, tuple) else (key,)
        if any(one is Ellipsis for one in keys):
            return np.asarray(self)[key]
        slots = np.arange(self.shape[0] * self.shape[1]).reshape(self.shape[:2])
        slots = np.asarray(slots[keys[:2]])
        found = self._values(slots.reshape(-1)).reshape(*slots.shape, *self.shape[2:])
        return found[(slice(None),) * slots.ndim + keys[2:]] if keys[2:] else found[()]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        found = self._values(np.arange(self.shape[0] * self.shape[1]))
        return found.reshape(self.shape).astype(dtype or self.dtype, copy=False)

    def __setitem__(self, key: Any, value: Any) -> None:
        raise TypeError(
            "the transitions of a disk replay buffer cannot be changed (expected add(), which "
            "adds some): make another store with other ones"
        )

    def _values(self, slots: Any) -> Any:
        """Return the values in slots of the ring."""
        buffer, capacity = self._steps.buffer, self.shape[0] * self.shape[1]
        first, count = buffer.first, buffer.count
        write_ids = count - 1 - (count - 1 - slots) % capacity
        is_live = (write_ids >= first) & (write_ids < count)
        found = np.zeros((slots.size, *self.shape[2:]), self.dtype)
        if is_live.any():
            found[is_live] = self._read(write_ids[is_live]).reshape(-1, *self.shape[2:])
        return found


class StoredDones(StoredColumn):
    """The column `dones`, in which the newest step may be given an end.

    Stable-Baselines3 does that where the environments are reset, since its own buffer loses the
    last observation then. Here it is kept, so the episode ends as by a time limit.
    """

    def __setitem__(self, key: Any, value: Any) -> None:
        newest = (self._steps.buffer.count // self.shape[1] - 1) % self.shape[0]
        if not (isinstance(key, int | np.integer) and key == newest and value):
            super().__setitem__(key, value)
        self._steps.end_episodes()
