"""Seals: a value comes back as it was sealed, under its own key, or not at all."""

from __future__ import annotations

from typing import Any

import pytest

from diskreplay.errors import DamageError
from diskreplay.records import seal, unseal

CONTENT = {"count": 7, "seed": b"\x00\xff", "parts": [1.5, None, "text"]}


@pytest.mark.parametrize("key", ["state", 12])
def test_any_flipped_bit_is_damage(key: str | int) -> None:
    sealed = seal(key, CONTENT)
    assert unseal(sealed, key, "the state") == CONTENT
    for bit in range(8 * len(sealed)):
        flipped = bytearray(sealed)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DamageError, match="the state is damaged: its bytes are not those"):
            unseal(flipped, key, "the state")


@pytest.mark.parametrize(
    ("raw", "key", "message"),
    [
        (seal("state", CONTENT), "layout", "its bytes are not those that were written"),
        (seal(1, CONTENT), True, "its bytes are not those that were written"),
        (seal("state", CONTENT)[:-1], "state", "its bytes are not those that were written"),
        (b"", "state", "is missing"),
        (2**40, "state", "it holds no bytes"),
    ],
)
def test_other_bytes_are_damage(raw: Any, key: Any, message: str) -> None:
    with pytest.raises(DamageError, match=message):
        unseal(raw, key, "the state")
