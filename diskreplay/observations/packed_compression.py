"""PackedCompression: the compression of values that vary in size.

Their size stands in front of the compressed bytes, so that decompression takes no more memory than
a value may have::

    offset  bytes       meaning
    0       4           uint32, little-endian: the size of the packed value
    4       ...         the packed value, compressed with the codec of its field
"""

from __future__ import annotations

import struct

from diskreplay.errors import DamageError
from diskreplay.records import Buffer, Compression
from diskreplay.schema import Field, unpacked

_SIZE = struct.Struct("<I")


class PackedCompression:
    """Compresses packed values of one type with a codec, and checks that they are of the type."""

    def __init__(self, codec: Compression, field: Field) -> None:
        self._codec = codec
        self._field = field

    def compress(self, raw: Buffer) -> Buffer:
        """Return the size of a packed value, and the value compressed."""
        return _SIZE.pack(len(raw)) + self._codec.compress(raw)

    def decompress(self, stored: Buffer, nbytes: int) -> Buffer:
        """Return a packed value of at most `nbytes`, as bytes of its own; or raise DamageError."""
        if len(stored) < _SIZE.size:
            raise DamageError("it is too short for the size of a value")
        [size] = _SIZE.unpack_from(stored)
        if size > nbytes:
            raise DamageError(f"it says that it has {size:,} bytes (expected at most {nbytes:,})")
        content = bytes(self._codec.decompress(memoryview(stored)[_SIZE.size :], size))
        unpacked(self._field, content)
        return content
