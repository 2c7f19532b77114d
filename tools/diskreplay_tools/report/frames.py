"""States that are images, and what is shown of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from diskreplay.aliases import Array

FRAME_PIXELS = 168  # of the longer side, at most


def is_image(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bool:
    """Return whether states are images: uint8, of at least 8 x 8 pixels.

    They are (h, w), or have their channels or stacked frames last, or first; of stacked images
    with channels the stack is first.
    """
    if dtype != np.uint8 or not 2 <= len(shape) <= 4 or 0 in shape:
        return False
    sides = shape[-3:] if len(shape) > 2 else (*shape, 1)
    return min(sides[1:] if sides[0] < sides[2] else sides[:2]) >= 8


def frame_of(state: Array) -> Array:
    """Return what is shown of an image, (h, w) or (h, w, 3): of stacked frames the newest, last."""
    if state.ndim == 4:
        state = state[-1]
    if state.ndim == 3:
        if state.shape[0] < state.shape[2]:
            state = np.moveaxis(state, 0, 2)
        state = state[:, :, -3:] if state.shape[2] % 3 == 0 else state[:, :, -1]
    step = -(-max(state.shape[:2]) // FRAME_PIXELS)
    return np.ascontiguousarray(state[::step, ::step])


def how_stacked(shape: tuple[int, ...]) -> str:
    """Return which part of an image is shown, '' when it is all of it."""
    frames = shape[0] if len(shape) == 4 else 1
    if len(shape) == 3:
        channels = min(shape[0], shape[2])
        frames = channels // 3 if channels % 3 == 0 else channels
    return f"; of {frames} stacked frames the last is shown" * (frames > 1)
