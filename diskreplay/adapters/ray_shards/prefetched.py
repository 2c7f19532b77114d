"""Prefetched: the iterator that `batches` returns, with draws of the shards in flight."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import diskreplay

if TYPE_CHECKING:
    from typing_extensions import Self

BatchT = TypeVar("BatchT")


class Prefetched(Generic[BatchT]):
    """An endless iterator over batches; use it in a `with` block.

    begin:   begins a draw and returns it
    finish:  returns the batch of a draw
    """

    def __init__(
        self,
        begin: Callable[[], Any],
        finish: Callable[[Any], BatchT],
        give_back: Callable[[deque[Any]], None],
        prefetch: int,
        prepare: Callable[[BatchT], Any] | None,
    ) -> None:
        self._begin, self._finish, self._give_back = begin, finish, give_back
        self._prefetch, self._prepare = prefetch, prepare
        self._draws: deque[Any] = deque()
        self._failed: BatchT | None = None  # the batch that `prepare` failed with
        self._closed = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> BatchT:
        if self._closed:
            raise diskreplay.ClosedError("this iterator is closed: call batches() again")
        batch = self._failed
        if batch is None:
            while len(self._draws) <= self._prefetch:
                self._draws.append(self._begin())
            batch = self._finish(self._draws[0])
            self._draws.popleft()
        if self._prepare is not None:
            self._failed = batch
            batch = self._prepare(batch)
            self._failed = None
        return batch

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop drawing ahead; the replay stays open."""
        if not self._closed:
            self._closed = True
            self._give_back(self._draws)
