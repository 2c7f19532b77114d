"""Streams of stacked frames, as environments give them, with what makes frames hard to keep once.

Frames are small and few, so that they repeat often, and some differ in one bit.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

STACK = 3
FRAME = (2, 400)  # some forty to a value of the log
LARGE_FRAME = (2, 1400)  # transitions are large, and so is each stack


def frame_of(number: int, shape: tuple[int, int] = FRAME) -> NDArray[np.uint8]:
    """Return the frame of a number; two neighbours differ in one bit."""
    frame = np.full(shape, 7, np.uint8)
    frame[-1, -1] = number
    return frame


class EnvStream:
    """One environment: a stack of its last frames, which a reset fills with the first one."""

    def __init__(self, shape: tuple[int, int] = FRAME) -> None:
        self.shape = shape
        self.frames: deque[NDArray[np.uint8]] = deque(maxlen=STACK)
        self.reset(0)

    def reset(self, number: int) -> None:
        """Begin an episode with a frame."""
        self.frames.extend([frame_of(number, self.shape)] * STACK)

    def step(self, number: int, *, done: bool = False) -> dict[str, Any]:
        """Move on by a frame, and return the transition."""
        state = np.stack(self.frames)
        self.frames.append(frame_of(number, self.shape))
        return {
            "state": state,
            "action": number,
            "reward": number / 4,
            "next_state": np.stack(self.frames),
            "done": done,
        }


def columns_of(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return transitions as the arguments of `extend`."""
    return {f"{name}s": np.stack([row[name] for row in rows]) for name in rows[0]}
