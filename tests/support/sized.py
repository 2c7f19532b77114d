"""Schemas of a given payload, and transitions for them."""

from __future__ import annotations

from typing import Any

import numpy as np


def schema_of(payload_bytes: int) -> dict[str, Any]:
    """Five fields with this payload."""
    pixels = payload_bytes - 16
    return {
        "state": ("uint8", (pixels // 2,)),
        "action": "int64",
        "reward": "float32",
        "next_state": ("uint8", (pixels - pixels // 2,)),
        "done": "float32",
    }


def rows_of(first: int, n: int, payload_bytes: int) -> dict[str, Any]:
    """Transitions that are told from all others by their number, as arguments of `extend`."""
    pixels = payload_bytes - 16
    numbers = np.arange(first, first + n)
    found = np.random.default_rng([first, n]).integers(0, 256, (n, pixels), np.uint8)
    return {
        "states": found[:, : pixels // 2],
        "actions": numbers,
        "rewards": numbers % 1000,
        "next_states": found[:, pixels // 2 :],
        "dones": numbers % 2,
    }
