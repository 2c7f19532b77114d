"""The ways to feed a learner with batches of pixels, as tensors on its device.

Each is a context manager that gives two functions: one returns the next batch, the other takes a
batch with its TD errors. With a prioritized buffer these become its priorities.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch

import diskreplay
from bench.gpu_stores import LOGS
from bench.rows import Array
from diskreplay.adapters.torch import TensorBatches

ALONE = "the network alone, one fixed batch"
READERS = (0, 1, 2, 4)
LOG_READERS = (0, 2, 4)
BATCHES = 10  # of which the bytes are counted


@dataclass(frozen=True)
class Setting:
    """What feeds read from: a full store, the same transitions in memory, and logs by name."""

    path: str
    columns: list[Array]  # states, actions, rewards, next states, dones
    batch: int
    device: Any
    logs: dict[str, str] = field(default_factory=dict)  # paths


class Tensors(NamedTuple):
    """A batch on the device."""

    states: Any
    actions: Any
    rewards: Any
    next_states: Any
    dones: Any
    weights: Any
    indices: Any  # write ids, as the buffer gave them


class Feed(NamedTuple):
    """Two functions: return the next batch; take a batch with its TD errors."""

    take: Callable[[], Any]
    give_back: Callable[[Any, Any], object]


Open = Callable[[Setting], AbstractContextManager[Feed]]


@contextlib.contextmanager
def fixed(setting: Setting) -> Iterator[Feed]:
    """Return the same batch again and again; copy the TD errors to the CPU."""
    batch = gathered(setting, np.arange(setting.batch))
    yield Feed(lambda: batch, lambda _, errors: errors.cpu())


@contextlib.contextmanager
def arrays(setting: Setting) -> Iterator[Feed]:
    """Index arrays of numpy in memory with random rows."""
    rng = np.random.default_rng(1)
    rows = len(setting.columns[0])
    yield Feed(
        lambda: gathered(setting, rng.integers(0, rows, setting.batch)),
        lambda _, errors: errors.cpu(),
    )


def gathered(setting: Setting, rows: Array) -> Tensors:
    """Return rows of the arrays in memory as a batch."""
    taken = [column[rows] for column in setting.columns]
    return on_device(setting, (*taken, np.ones(len(rows), np.float32)), rows)


def on_device(setting: Setting, elements: tuple[Array, ...], indices: Array) -> Tensors:
    """Copy six arrays to the device."""
    there = [torch.from_numpy(one).to(setting.device) for one in elements]
    return Tensors._make([*there, indices])


@contextlib.contextmanager
def sampled(setting: Setting) -> Iterator[Feed]:
    """Call `sample` when a batch is wanted."""
    with diskreplay.open(setting.path) as buffer:
        yield fed_by(setting, buffer, lambda: buffer.sample(setting.batch))


@contextlib.contextmanager
def ahead(setting: Setting, prefetch: int) -> Iterator[Feed]:
    """Iterate over `batches`, which a thread draws ahead."""
    with (
        diskreplay.open(setting.path) as buffer,
        buffer.batches(setting.batch, prefetch=prefetch) as batches,
    ):
        yield fed_by(setting, buffer, batches.__next__)


def fed_by(setting: Setting, buffer: Any, draw: Callable[[], Any]) -> Feed:
    """Return a feed of arrays that a buffer draws."""

    def take() -> Tensors:
        batch = draw()
        return on_device(setting, batch[:6], batch.indices)

    def give_back(batch: Tensors, errors: Any) -> None:
        buffer.update_priorities(batch.indices, errors.cpu().numpy())

    return Feed(take, give_back)


@contextlib.contextmanager
def tensors(setting: Setting, prefetch: int, readers: int, log: str = "") -> Iterator[Feed]:
    """Iterate over `TensorBatches`, which readers draw ahead, of the pairs or of a log."""

    def take() -> Any:
        batch = next(batches)
        if not log:
            return batch
        channels_last = [one.permute(0, 2, 3, 1) for one in (batch.states, batch.next_states)]
        return batch._replace(states=channels_last[0], next_states=channels_last[1])

    with (
        diskreplay.open(setting.logs[log] if log else setting.path) as buffer,
        TensorBatches(
            buffer, setting.batch, setting.device, prefetch, readers, reuse=True
        ) as batches,
    ):
        yield Feed(
            take,
            lambda batch, errors: batches.update_priorities(batch.indices, errors),
        )


def copied_bytes(setting: Setting) -> dict[str, float]:
    """Return how many bytes of a batch `TensorBatches` copies to the device, of each store.

    Where the device is the CPU, to which nothing is copied, one without data stands for another.
    """
    device = setting.device if setting.device.type != "cpu" else "meta"
    found = {}
    for name, path in {"pairs": setting.path, **setting.logs}.items():
        with (
            diskreplay.open(path) as buffer,
            TensorBatches(buffer, setting.batch, device) as batches,
        ):
            for _ in range(BATCHES):
                next(batches)
            found[name] = batches.copied_bytes / BATCHES
    return found


FEEDS: dict[str, Open] = {
    ALONE: fixed,
    "numpy arrays in RAM": arrays,
    "sample": sampled,
    "batches(prefetch=2)": partial(ahead, prefetch=2),
    **{
        f"TensorBatches(prefetch={max(2, 2 * n)}, readers={n})": partial(
            tensors, prefetch=max(2, 2 * n), readers=n
        )
        for n in READERS
    },
    **{
        f"TensorBatches(prefetch={max(2, 2 * n)}, readers={n}), {log}": partial(
            tensors, prefetch=max(2, 2 * n), readers=n, log=log
        )
        for log in LOGS
        for n in LOG_READERS
    },
}
