"""Values of transitions as the page shows them: text, numbers and pictures.

Whatever comes from a store is text or pixels, and never HTML.
"""

from __future__ import annotations

import base64
import struct
import zlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from diskreplay.aliases import Array
from diskreplay.errors import printable
from diskreplay.wording import count_of
from diskreplay_tools.report import is_image
from diskreplay_tools.terminal import described, quoted

MOST_TEXT = 2_000  # characters
MOST_FRAMES = 16  # of a stack
_PIXELS = 336  # of the longer side, at most
_ROOM = 60  # characters of numbers in a line


@dataclass(frozen=True)
class Shown:
    """A value: pictures, or text with a summary of all that the text leaves out."""

    text: str
    summary: str = ""
    pictures: list[str] = field(default_factory=list)
    is_words: bool = False


def shown(value: Any, room: int = _ROOM, most_text: int = MOST_TEXT) -> Shown:
    """Return what is shown of a value of a transition."""
    if isinstance(value, str):
        if len(value) <= most_text:
            return Shown(_lines(value), is_words=True)
        more = f"{count_of(len(value), 'character')} in all"
        return Shown(f"{_lines(value[:most_text])}…", more, is_words=True)
    if isinstance(value, bytes):
        return Shown(quoted(value, most_text))
    array = np.asarray(value)
    if is_image(array.dtype, array.shape):
        frames = frames_of(array)
        size = " x ".join(map(str, array.shape))
        few = f", the last {MOST_FRAMES} of {len(frames)} frames" * (len(frames) > MOST_FRAMES)
        return Shown(f"{size} pixels{few}", pictures=[png(f) for f in frames[-MOST_FRAMES:]])
    return Shown(*described(array, room))


def frames_of(image: Array) -> list[Array]:
    """Return the frames of an image, (h, w) or (h, w, 3) each, oldest first."""
    if image.ndim == 4:
        return [frame for part in image for frame in frames_of(part)]
    if image.ndim == 2:
        return [_smaller(image)]
    if image.shape[0] < image.shape[2]:
        image = np.moveaxis(image, 0, 2)
    channels = image.shape[2]
    if channels % 3 == 0:
        return [_smaller(image[:, :, at : at + 3]) for at in range(0, channels, 3)]
    return [_smaller(image[:, :, at]) for at in range(channels)]


def png(pixels: Array) -> str:
    """Return pixels, uint8 (h, w) or (h, w, 3), as the data: URI of a PNG."""
    height, width = pixels.shape[:2]
    lines = np.zeros((height, 1 + pixels[0].size), np.uint8)  # each begins with its filter, 0
    lines[:, 1:] = pixels.reshape(height, -1)
    kind = 2 if pixels.ndim == 3 else 0
    content = b"\x89PNG\r\n\x1a\n" + b"".join(
        _chunk(name, data)
        for name, data in (
            (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0)),
            (b"IDAT", zlib.compress(lines.tobytes(), 1)),
            (b"IEND", b""),
        )
    )
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _smaller(frame: Array) -> Array:
    step = -(-max(frame.shape[:2]) // _PIXELS)
    return np.ascontiguousarray(frame[::step, ::step])


def _lines(text: str) -> str:
    return "\n".join(map(printable, text.split("\n")))
