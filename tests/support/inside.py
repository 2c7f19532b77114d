"""The inside of an open buffer, for tests that look there or break it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import diskreplay


def replica_of(buffer: Any) -> Any:
    """Return the rows, slot tables and sampler of a buffer in memory."""
    return buffer._guard.replica


def store_of(buffer: Any) -> Any:
    """Return the open store of a buffer."""
    return replica_of(buffer).store


@contextlib.contextmanager
def transactions_that(buffer: Any, wrapped: Any) -> Iterator[None]:
    """Replace the transactions of a buffer's store by `wrapped(real)` inside the block."""
    store = store_of(buffer)
    real = store.transaction
    store.transaction = contextlib.contextmanager(lambda: wrapped(real))
    try:
        yield
    finally:
        store.transaction = real


def commits_refused(buffer: Any) -> contextlib.AbstractContextManager[None]:
    """Make every commit of a buffer fail at its end inside the block, so that nothing is stored."""

    def refused(real: Any) -> Iterator[Any]:
        with real() as txn:
            yield txn
            raise diskreplay.StorageError("refused")

    return transactions_that(buffer, refused)


def flush_interrupted(buffer: Any) -> None:
    """Flush with an interrupt between the end of the commit and the return."""

    def interrupted(real: Any) -> Iterator[Any]:
        with real() as txn:
            yield txn
        raise KeyboardInterrupt

    with transactions_that(buffer, interrupted):
        try:
            buffer.flush()
        except KeyboardInterrupt:
            return
    raise AssertionError("there was nothing to commit")
