"""A dataset of PyTorch that ends, so that its workers do.

A worker that is started with spawn and told to end while it sends a tensor can abort: its
interpreter ends the thread that sends in the middle of PyTorch's code. One that has sent all its
batches cannot.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from torch.utils.data import IterableDataset


class FewBatches(IterableDataset[Any]):  # type: ignore[misc]
    """The first n batches of a dataset, in each worker."""

    def __init__(self, dataset: Any, n: int) -> None:
        self.dataset, self.n = dataset, n

    def __iter__(self) -> Iterator[Any]:
        return itertools.islice(self.dataset, self.n)
