"""A filled buffer, and the batches that it draws."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from common import columns

from diskreplay import PrioritizedReplayBuffer, ReplayBuffer

KINDS = [ReplayBuffer, PrioritizedReplayBuffer]
N, SIZE = 300, 16


def filled(kind: Any, path: Path | None = None, **arguments: Any) -> Any:
    """Return a new buffer with N transitions, which commits on request."""
    more: dict[str, Any] = {}
    if kind is PrioritizedReplayBuffer:
        arguments = {"beta_frames": 50, **arguments}
        more = {"priorities": np.arange(N) % 7 + 0.5}
    buffer = kind(N, seed=3, path=path, **{"commit_interval": 1e9, **arguments})
    buffer.extend(**columns(0, N), **more)
    return buffer


def as_bytes(batch: Any) -> bytes:
    return b"".join(map(_content, batch))


def _content(column: Any) -> bytes:
    if isinstance(column, list):  # of values that vary in size
        return b"".join(map(_content, column))
    return column.encode() if isinstance(column, str) else bytes(column)


def expected(kind: Any, n: int) -> list[bytes]:
    """Return the first n batches of a filled buffer."""
    with filled(kind) as buffer:
        return [as_bytes(buffer.sample(SIZE)) for _ in range(n)]


def fill(batches: Any) -> None:
    """Wait until the thread has drawn all that it may."""
    queue = batches._drawn_ahead
    queue._for_user.wait_until(lambda: not queue.has_room)
