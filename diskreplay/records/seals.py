"""Seals: plain data with a checksum over itself and its key.

A sealed value is the msgpack array [checksum, key, content]: the checksum is the xxh3_64 of all
bytes after it, and the key shows a value that was moved to another key.
"""

from __future__ import annotations

import contextlib
from typing import Any

import msgpack  # type: ignore[import-untyped]
from xxhash import xxh3_64_intdigest, xxh3_128_digest

from diskreplay.errors import DamageError

_HEAD = b"\x93\xcf"  # an array of three, the first of which is a uint64


def seal(key: str | int, content: Any) -> bytes:
    """Return the bytes of [checksum, key, content]."""
    body: bytes = msgpack.packb(key) + msgpack.packb(content)
    return _HEAD + xxh3_64_intdigest(body).to_bytes(8, "big") + body


def unseal(raw: Any, key: str | int, what: str) -> Any:
    """Return the content that was sealed; raise DamageError naming `what` for other bytes."""
    if not isinstance(raw, bytes | bytearray | memoryview):  # bytes(2**40) would take a TiB
        raise DamageError(f"{what} is damaged: it holds no bytes")
    raw = bytes(raw)
    if raw[:2] == _HEAD and raw[2:10] == xxh3_64_intdigest(raw[10:]).to_bytes(8, "big"):
        with contextlib.suppress(ValueError, RecursionError, msgpack.UnpackException):
            _, found, content = msgpack.unpackb(raw)
            if found == key and type(found) is type(key):
                return content
    if not raw:
        raise DamageError(f"{what} is missing")
    raise DamageError(f"{what} is damaged: its bytes are not those that were written")


def fingerprint(content: Any) -> bytes:
    """Return 16 bytes that follow from plain data alone and differ between different data."""
    digest: bytes = xxh3_128_digest(msgpack.packb(content))
    return digest
