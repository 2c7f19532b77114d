"""Rows of any width that can be made again from their numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

CAPACITY = 400


def rows(numbers: Any, width: int) -> tuple[Any, ...]:
    """The transitions of some numbers, as the arguments of `extend`."""
    numbers = np.asarray(numbers)
    states = (numbers[:, None] + np.arange(width)).astype(np.float32)
    dones = np.zeros(numbers.size, bool)
    return states, numbers, numbers.astype(np.float32), -states, dones


def assert_rows(batch: Any, numbers: Any, width: int) -> None:
    for found, wanted in zip(batch, rows(numbers, width), strict=True):
        np.testing.assert_array_equal(found, wanted)
