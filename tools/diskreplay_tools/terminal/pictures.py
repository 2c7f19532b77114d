"""Pictures of matrices in shades."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diskreplay.aliases import Array
from diskreplay_tools.terminal.text import _SHADES, Screen

_LEAST_SIDE = 8  # of a picture, in pixels


def image(value: Array) -> tuple[Array, str] | None:
    """Return the matrix to show of an image, and what that is; None for what is no image."""
    if value.dtype != np.uint8 or value.ndim not in (2, 3):
        return None
    if value.ndim == 2:
        found, what = value, "image"
    else:
        axis = 0 if value.shape[0] < value.shape[2] else 2
        frames = value.shape[axis]
        if frames == 0:
            return None
        if frames == 3:
            found, what = value.mean(axis=axis), "mean of 3 channels"
        else:
            found, what = np.take(value, frames - 1, axis=axis), f"frame {frames} of {frames}"
            what = "image" if frames == 1 else what
    return (found, what) if min(found.shape) >= _LEAST_SIDE else None


def _side_by_side(pictures: Mapping[str, Array], on: Screen) -> Iterator[str]:
    side = "│" if on.blocks else "|"
    gap = 2
    room = (on.width - 2 - gap * (len(pictures) - 1)) // max(1, len(pictures)) - 2 * len(side)
    groups = [list(pictures)] if room >= 24 else [[name] for name in pictures]
    for names in groups:
        width = room if room >= 24 else on.width - 4
        drawn = [
            [name, *(f"{side}{line}{side}" for line in picture(pictures[name], width, on))]
            for name in names
        ]
        widths = [max(map(len, lines)) for lines in drawn]
        for i in range(max(map(len, drawn), default=0)):
            parts = [lines[i] if i < len(lines) else "" for lines in drawn]
            line = (" " * gap).join(p.ljust(w) for p, w in zip(parts, widths, strict=True))
            yield f"  {line}".rstrip()


_ASCII_SHADES = " .:-=+*#%@"
_PICTURE_COLUMNS, _PICTURE_ROWS = 38, 24


def picture(pixels: NDArray[Any], width: int, on: Screen) -> list[str]:
    """Return a picture of a matrix in shades, from its darkest to its lightest value."""
    high, wide = pixels.shape
    columns = min(width, 2 * wide, _PICTURE_COLUMNS)
    rows = max(1, round(columns * high / wide / 2))
    if rows > _PICTURE_ROWS:
        rows, columns = _PICTURE_ROWS, max(1, round(_PICTURE_ROWS * 2 * wide / high))
    across, down = _parts(wide, columns), _parts(high, rows)
    small = np.array([[pixels[y, x].mean() for x in across] for y in down], np.float64)
    low, high_value = float(small.min()), float(small.max())
    shades = _SHADES if on.blocks else _ASCII_SHADES
    spread = high_value - low
    light = (small - low) / spread if spread else np.full(small.shape, low / 255)
    levels = np.rint(light * (len(shades) - 1)).astype(int)
    return ["".join(shades[level] for level in row) for row in levels]


def _parts(length: int, parts: int) -> list[slice]:
    """Return where each of as many parts of a length begins and ends; none is empty."""
    begins = [length * i // parts for i in range(parts)]
    return [slice(b, max(b + 1, length * (i + 1) // parts)) for i, b in enumerate(begins)]
