"""A disk that refuses: no process of this one's limits may write to a file."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator


def refuse_writes() -> None:
    """Have every write to a file fail, as it does on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))


def allow_writes() -> None:
    """Have writes work again."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)


@contextlib.contextmanager
def writes_refused() -> Iterator[None]:
    """Have every write to a file fail inside the block."""
    refuse_writes()
    try:
        yield
    finally:
        allow_writes()
