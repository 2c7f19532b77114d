"""Files that are on the disk and not in memory."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def make_cold(file: Path) -> None:
    """Have no page of a file in memory, but those that someone has mapped; or skip the test."""
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        middle = os.fstat(descriptor).st_size // 8192 * 4096
        os.preadv(descriptor, [bytearray(1)], middle, os.RWF_NOWAIT)
    except BlockingIOError:
        return
    except (AttributeError, OSError) as error:
        pytest.skip(f"nobody can say whether a file is in memory: {error}")
    finally:
        os.close(descriptor)
    pytest.skip("the file system keeps its files in memory")
