"""Compression: the bytes of a frame as they are stored, by the codec of its field.

Stored bytes may come from strangers: decompression takes no memory beyond the size that the caller
expects, and any other size is damage. What is stored is an LZ4 block, or a frame of Zstandard that
says its size, so that other programs can read it.
"""

from __future__ import annotations

import functools
import importlib
import threading
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

from diskreplay.errors import DamageError, NotInstalledError
from diskreplay.validation import check_word
from diskreplay.wording import count_of, cut

Buffer: TypeAlias = bytes | bytearray | memoryview

# Higher levels take longer for few bytes: docs/design.md has the figures.
_ZSTD_LEVEL = 1
# The most bytes that one compressed byte stands for: more are refused before they take memory. In
# an LZ4 block it adds 255 to the length of a match; in a frame of Zstandard 4 bytes are a block of
# 128 KiB.
_LZ4_GROWTH = 255
_ZSTD_GROWTH = 2**15


class Compression(Protocol):
    """Compresses buffers of one dimension, and decompresses them to a size that is known."""

    def compress(self, raw: Buffer) -> Buffer:
        """Return bytes in the form that is stored."""

    def decompress(self, stored: Buffer, nbytes: int) -> Buffer:
        """Return the `nbytes` bytes that were compressed, or raise DamageError."""


def codec_named(name: str | None) -> Compression:
    """Return the compression of a codec; threads may share it.

    Raises ArgumentError for an unknown name, and NotInstalledError where its package is missing.

    >>> codec_named(None).compress(b"as it is")
    b'as it is'

    name:  "lz4", "zstd", or None for bytes that are stored as they are
    """
    if name is not None:
        check_word("codec", name, list(_CODECS))
    return _made(name)


@functools.cache
def _made(name: str | None) -> Compression:
    return Uncompressed() if name is None else _CODECS[name]()


class Uncompressed:
    """Bytes as they are."""

    def compress(self, raw: Buffer) -> Buffer:
        """Return the same bytes."""
        return raw

    def decompress(self, stored: Buffer, nbytes: int) -> Buffer:
        """Return the same bytes, if there are `nbytes`."""
        if len(stored) != nbytes:
            raise DamageError(f"it has {len(stored):,} bytes (expected {nbytes:,})")
        return stored


class Lz4:
    """LZ4 blocks of the package lz4."""

    def __init__(self) -> None:
        block = _package("lz4", "lz4", "lz4.block")
        self._compress, self._decompress = block.compress, block.decompress
        self._errors = (block.LZ4BlockError, ValueError, OverflowError)

    def compress(self, raw: Buffer) -> Buffer:
        """Return an LZ4 block."""
        compressed: bytes = self._compress(raw, store_size=False)
        return compressed

    def decompress(self, stored: Buffer, nbytes: int) -> Buffer:
        """Return the content of a block, if it has `nbytes`."""
        if nbytes > len(stored) * _LZ4_GROWTH:
            raise _too_small("lz4", nbytes, stored)
        try:
            raw: bytes = self._decompress(stored, nbytes)
        except self._errors as error:
            raise _damage("lz4", nbytes, error) from None
        if len(raw) != nbytes:
            raise _damage("lz4", nbytes, f"it holds {len(raw):,}")
        return raw


class Zstd:
    """Frames of Zstandard, by the package zstandard."""

    def __init__(self) -> None:
        zstandard = _package("zstd", "zstandard", "zstandard")
        self._size_of, self._error = zstandard.frame_content_size, zstandard.ZstdError
        self._contexts = _ZstdContexts(zstandard)

    def compress(self, raw: Buffer) -> Buffer:
        """Return a frame that says its size."""
        compressed: bytes = self._contexts.compress(raw)
        return compressed

    def decompress(self, stored: Buffer, nbytes: int) -> Buffer:
        """Return the content of a frame, if it says that it has `nbytes`, and has them."""
        if nbytes > len(stored) * _ZSTD_GROWTH:
            raise _too_small("zstd", nbytes, stored)
        try:
            # The package takes as much memory as the frame says.
            found = self._size_of(stored)
            if found != nbytes:
                says = f"says {found:,}" if found >= 0 else "does not say its size"
                raise _damage("zstd", nbytes, f"its frame {says}")
            raw: bytes = self._contexts.decompress(
                stored, max_output_size=nbytes, allow_extra_data=False
            )
        except self._error as error:
            raise _damage("zstd", nbytes, error) from None
        return raw


class _ZstdContexts(threading.local):
    """A compressor and a decompressor for each thread: they work for one at a time."""

    def __init__(self, zstandard: Any) -> None:
        self.compress = zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compress
        self.decompress = zstandard.ZstdDecompressor().decompress


_CODECS: dict[str, Callable[[], Compression]] = {"lz4": Lz4, "zstd": Zstd}


def _package(codec: str, package: str, module: str) -> Any:
    """Return a module of a package that not everybody has installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        is_missing = isinstance(error, ModuleNotFoundError) and error.name in (package, module)
        state = "is not installed" if is_missing else f"cannot be imported ({cut(str(error))})"
        raise NotInstalledError(
            f"codec {codec} needs the package {package}, which {state}: "
            f"pip install 'diskreplay[{codec}]'"
        ) from None


def _too_small(codec: str, nbytes: int, stored: Buffer) -> DamageError:
    return _damage(codec, nbytes, f"so many cannot be in {count_of(len(stored), 'byte')}")


def _damage(codec: str, nbytes: int, reason: object) -> DamageError:
    return DamageError(f"it is not {nbytes:,} bytes compressed with {codec}: {reason}")
