"""Buffers for mixtures, whose transitions say by their numbers which buffer they are of."""

from __future__ import annotations

from typing import Any

import numpy as np
from common import columns, numbers_of
from numpy.typing import NDArray

from diskreplay import PrioritizedReplayBuffer, ReplayBuffer

APART = 1000  # the numbers of the transitions of one buffer begin that far from those of another


def uniform(place: int, n: int, **settings: Any) -> ReplayBuffer:
    """A buffer with the transitions APART * place, APART * place + 1, ..."""
    buffer = ReplayBuffer(**{"capacity": APART, "seed": place, **settings})
    buffer.extend(**columns(APART * place, n))
    return buffer


def prioritized(place: int, n: int, **settings: Any) -> PrioritizedReplayBuffer:
    """The same with the priorities 1, 2, 3, 1, 2, 3, ..."""
    arguments = {"capacity": APART, "seed": place, "alpha": 1.0, **settings}
    buffer = PrioritizedReplayBuffer(**arguments)
    buffer.extend(**columns(APART * place, n), priorities=np.arange(n) % 3 + 1)
    return buffer


def whole(batch: Any) -> NDArray[np.int64]:
    """The numbers of the transitions of a batch, after checking its sources and write ids."""
    numbers = numbers_of(batch)
    assert (batch.sources.dtype, batch.sources.shape) == (np.int64, numbers.shape)
    assert (batch.indices.dtype, batch.indices.shape) == (np.int64, numbers.shape)
    assert (batch.sources == numbers // APART).all()
    assert (batch.indices == numbers % APART).all()
    assert (np.diff(batch.sources) >= 0).all()  # the rows of a source stand together
    return numbers


def counts_of(batch: Any, sources: int) -> list[int]:
    return np.bincount(batch.sources, minlength=sources).tolist()
