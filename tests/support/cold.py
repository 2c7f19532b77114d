"""Files that are on the disk and not in memory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest


def make_cold(file: Path) -> None:
    """Have no page of a file in memory, but those that someone has mapped; or skip the test."""
    descriptor = os.open(file, os.O_RDONLY)
    try:
        # Or a look at a page that is not there has the pages around it read, on recent systems.
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
        for _ in range(200):  # the system may hold on to pages for a moment
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            if not _has_most(descriptor):
                return
    except (AttributeError, OSError) as error:
        pytest.skip(f"nobody can say whether a file is in memory: {error}")
    finally:
        os.close(descriptor)
    pytest.skip("the file system keeps its files in memory")


def _has_most(descriptor: int) -> bool:
    """Return whether most of 16 pages are in memory; where all is cold, some can be mapped."""
    places = [os.fstat(descriptor).st_size * i // 16 & ~4095 for i in range(16)]
    return sum(_has(descriptor, at) for at in places) > 8


def _has(descriptor: int, at: int) -> bool:
    try:
        os.preadv(descriptor, [bytearray(1)], at, os.RWF_NOWAIT)
    except BlockingIOError:
        return False
    return True


N = 5000
WIDE = 60


def wide(first: int, n: int) -> dict[str, Any]:
    """n transitions of about 500 bytes, whose reward is their number / 8."""
    numbers = np.arange(first, first + n)
    states = np.repeat(numbers[:, None], WIDE, axis=1).astype(np.float32)
    return {
        "states": states, "actions": numbers, "rewards": numbers / 8,
        "next_states": states + 1, "dones": numbers % 5 == 4,
    }  # fmt: skip


def is_right(batch: Any, write_ids: Any) -> bool:
    expected = wide(0, N)
    return all(
        np.array_equal(found, column[write_ids].astype(found.dtype))
        for found, column in zip(batch[:5], expected.values(), strict=True)
    )
