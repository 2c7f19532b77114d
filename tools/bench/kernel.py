"""Calls to the operating system: memory of this process, the page cache, the parent's death."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path

_SET_PARENT_DEATH_SIGNAL = 1  # of prctl


def die_with_parent() -> None:
    """Ask for the end of this process when its parent dies; on Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)


def forget_pages(path: str) -> None:
    """Write the files of a directory to the disk and drop them from the page cache."""
    for file in (file for file in Path(path).rglob("*") if file.is_file()):
        with file.open("rb") as stream:
            os.fsync(stream.fileno())
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def resident_bytes() -> int:
    """Return the resident memory of this process, mapped pages of files among it."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def private_bytes(except_file: str) -> int:
    """Return the memory that is this process's own, without the pages of a mapped file.

    Pages of a file that only this process has mapped are private for the kernel, too; but they are
    page cache, which it takes back when others need memory.
    """
    total, is_counted = 0, True
    for line in Path("/proc/self/smaps").read_text().splitlines():
        name, *values = line.split()
        if not name.endswith(":"):
            is_counted = not line.endswith(f"/{except_file}")
        elif is_counted and name in ("Private_Clean:", "Private_Dirty:"):
            total += int(values[0]) * 1024
    return total
