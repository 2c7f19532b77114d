"""A run that draws, checks and updates, and says which batches it was given."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
from common import columns, numbers_of, row

import diskreplay


def opened(kind: str, path: str | Path) -> Any:
    """Open the buffer of a run."""
    arguments = {"alpha": 0.7, "beta_frames": 300} if kind == "PrioritizedReplayBuffer" else {}
    return getattr(diskreplay, kind)(700, seed=11, path=path, window_bytes=0, **arguments)


def train(buffer: Any, begin: int, end: int) -> list[str]:
    """Make the steps from begin to end, and return a line for each batch."""
    said = []
    for step in range(begin, end):
        buffer.push(**row(2 * step))
        buffer.extend(**columns(2 * step + 1, 1))
        if len(buffer) >= 32:
            batch = buffer.sample(32)
            numbers_of(batch)
            digest = hashlib.sha256(b"".join(a.tobytes() for a in batch)).hexdigest()
            said.append(f"{step} {digest}")
            if isinstance(buffer, diskreplay.PrioritizedReplayBuffer):
                # Every id twice and stale ones among them, as a real loop has.
                ids = np.concatenate([batch.indices, batch.indices, [0]])
                buffer.update_priorities(ids, np.abs(np.sin(ids + step)) * 3)
    return said


def main(kind: str, path: str, end: str, how: str) -> None:
    """Train, print the lines, and end at once, after a close, or as an interpreter ends."""
    global buffer  # or it would be closed here, where nobody closes it
    buffer = opened(kind, path)
    print(*train(buffer, 0, int(end)), sep="\n", flush=True)
    if how == "exit":
        buffer.flush()
        os._exit(0)
    if how == "close":
        buffer.close()
