"""Datasets of PyTorch: the transitions of a store for a DataLoader, and batches that it draws."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, IterableDataset, get_worker_info

import diskreplay


class TransitionDataset(Dataset[Any]):  # type: ignore[misc]  # of torch, which may be missing
    """A map-style dataset: the live transitions of a store, oldest first.

    They are those of the moment at which the dataset is made, 0 for the oldest. A DataLoader
    shuffles them, and each of its workers opens the store for reading; a pickled dataset is a path
    and two numbers. For transitions that are written by this process, `flush()` comes first.
    An item is a `Batch` of one transition, and a DataLoader makes one `Batch` of many. A list of
    indices returns them in one, without a copy for each, as a `BatchSampler` asks for.

    >>> buffer = diskreplay.ReplayBuffer(capacity=100, path="runs/a")
    >>> for i in range(50):
    ...     write_id = buffer.push([float(i)], 0, 1.0, [i + 1.0], False)
    >>> buffer.close()
    >>> dataset = TransitionDataset("runs/a")
    >>> len(dataset), dataset[7].states, dataset[[7, -1]].states.tolist()
    (50, array([7.], dtype=float32), [[7.0], [49.0]])
    >>> loader = torch.utils.data.DataLoader(dataset, batch_size=25, shuffle=True)
    >>> [batch.states.shape for batch in loader]
    [torch.Size([25, 1]), torch.Size([25, 1])]

    store:         the path of a store, or a buffer that is open in this process
    window_bytes:  memory for rows in each process, as of a constructor

    Raises NotLiveError (an IndexError) for an index beyond the transitions, and for a transition
    that was evicted meanwhile.
    """

    def __init__(self, store: Any, *, window_bytes: int = 64 << 20) -> None:
        is_open = isinstance(store, diskreplay.ReplayBuffer | diskreplay.PrioritizedReplayBuffer)
        self._store: Any = store if is_open else str(Path(store).absolute())
        self._window_bytes = window_bytes
        self._reader: Any = None
        buffer = self._buffer()
        count = buffer.count
        self._first = min(buffer.first, count)  # asked last: what is evicted meanwhile is no part
        self._size: int = count - self._first

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: Any) -> Any:
        """Return a transition, or those of a list of indices, as a Batch of arrays."""
        places = np.asarray(index)
        if places.size == 0:
            places = places.astype(np.int64)
        if places.dtype.kind not in "iu":
            raise diskreplay.ArgumentError(
                f"an index must be a whole number, or a list of them (found {index!r:.100})"
            )
        outside = places[(places < -self._size) | (places >= self._size)]
        if outside.size:
            raise diskreplay.NotLiveError(
                f"index {outside.flat[0]} is not in the dataset: expected less than {self._size}"
            )
        return self._buffer().get(self._first + places % max(1, self._size))

    def __getitems__(self, indices: list[int]) -> list[Any]:
        """Return transitions, read in one call, as a DataLoader asks for those of a batch."""
        batch = self[indices]
        return [batch._make(_row(element, i) for element in batch) for i in range(len(indices))]

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_reader": None}

    def _buffer(self) -> Any:
        if not isinstance(self._store, str):
            return self._store
        if self._reader is None:
            self._reader = diskreplay.open(
                self._store, access="read", window_bytes=self._window_bytes
            )
        return self._reader


def _row(element: Any, place: int) -> Any:
    """Return a row of an element of a batch, also of each array in a dictionary or a tuple."""
    if isinstance(element, dict):
        return {key: _row(part, place) for key, part in element.items()}
    if isinstance(element, tuple):
        return tuple(_row(part, place) for part in element)
    return element[place]


class BatchDataset(IterableDataset[Any]):  # type: ignore[misc]
    """An endless dataset of batches, drawn as `sample` draws them; use it with `batch_size=None`.

    Each worker of a DataLoader opens the store for reading, follows the commits of its writer, and
    draws a stream of its own. The streams depend on the seed, on the number of the worker and on
    the rank alone: they repeat with the same number of workers, and differ between workers and
    between ranks. Updates of priorities go to the buffer that writes.

    >>> buffer = diskreplay.PrioritizedReplayBuffer(capacity=100, path="runs/a")
    >>> for i in range(50):
    ...     write_id = buffer.push([float(i)], 0, 1.0, [i + 1.0], False)
    >>> buffer.close()
    >>> dataset = BatchDataset("runs/a", batch_size=16, seed=0)
    >>> loader = torch.utils.data.DataLoader(dataset, batch_size=None)
    >>> [batch.states.shape for step, batch in zip(range(2), loader)]
    [torch.Size([16, 1]), torch.Size([16, 1])]

    store:       the path of a store
    batch_size:  number of transitions in a batch
    seed:        each iteration draws the batches of this seed; None takes one of PyTorch's global
                 generator, as DataLoaders do: another one for each iteration, and the same ones
                 after the same `torch.manual_seed`
    rank:        the number of this process among those that train together; None asks
                 torch.distributed, where it is initialized
    n_step, gamma, pad:
                 as of `sample`
    overrides:   arguments of `diskreplay.open` for each worker, such as sampler and window_bytes
    """

    def __init__(
        self,
        store: Any,
        batch_size: int,
        *,
        seed: int | None = None,
        rank: int | None = None,
        n_step: int = 1,
        gamma: float = 0.99,
        pad: bool = False,
        **overrides: Any,
    ) -> None:
        for name, number in (("seed", seed), ("rank", rank)):
            if number is not None and not (isinstance(number, int) and number >= 0):
                raise diskreplay.ArgumentError(
                    f"{name} must be a whole number of at least 0, or None (found {number!r:.100})"
                )
        self._path = Path(store).absolute()
        self._batch_size = batch_size
        self._seed = seed
        self._rank = _rank() if rank is None else rank  # here: workers are in no group
        self._form: Any = {"n_step": n_step, "gamma": gamma, "pad": pad}
        self._iterations = 0  # begun by this worker
        self._overrides = {"window_bytes": 64 << 20, **overrides, "access": "read"}

    def __iter__(self) -> Iterator[Any]:
        """Open the store and yield batches of arrays, which a DataLoader makes tensors."""
        with (
            diskreplay.open(self._path, seed=self._stream(), **self._overrides) as buffer,
            buffer.batches(self._batch_size, **self._form) as batches,
        ):
            yield from batches

    def _stream(self) -> int:
        """Return the seed of the stream of this worker."""
        worker, seed = get_worker_info(), self._seed
        key: tuple[int, ...] = (self._rank, 0 if worker is None else worker.id)
        if seed is None and worker is None:
            seed = int(torch.empty((), dtype=torch.int64).random_())
        elif seed is None:
            seed = worker.seed - worker.id  # a DataLoader has drawn it for this iteration
            if self._iterations:  # or, with persistent_workers=True, for the first one
                key += (self._iterations,)
        self._iterations += 1
        words = np.random.SeedSequence(seed, spawn_key=key).generate_state(4)
        return int.from_bytes(words.astype("<u4").tobytes(), "little")


def _rank() -> int:
    group = torch.distributed
    return int(group.get_rank()) if group.is_available() and group.is_initialized() else 0
