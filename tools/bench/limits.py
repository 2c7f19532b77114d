"""A limit on the memory of a process, its page cache among it: a control group of Linux."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")


class NoLimitError(Exception):
    """This machine lets us make no control group for memory."""


class MemoryGroup:
    """A control group of version 1 or 2 with a limit; processes are put into it by their id."""

    def __init__(self, place: Path, limit_bytes: int, *, is_version_1: bool) -> None:
        self.place = place
        limits = ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"]
        swap = str(limit_bytes)
        if not is_version_1:
            limits, swap = ["memory.max", "memory.swap.max"], "0"
        place.mkdir()
        try:
            (place / limits[0]).write_text(str(limit_bytes))
            if (place / limits[1]).exists():  # kernels may count no swap
                (place / limits[1]).write_text(swap)
        except OSError:
            place.rmdir()
            raise

    def hold(self, pid: int) -> None:
        """Put a process into the group."""
        (self.place / "cgroup.procs").write_text(str(pid))

    def remove(self) -> None:
        """Remove the group; its processes have ended, or are about to."""
        for _ in range(50):
            with contextlib.suppress(OSError):
                self.place.rmdir()
                return
            time.sleep(0.1)


@contextlib.contextmanager
def memory_group(limit_bytes: int) -> Iterator[MemoryGroup]:
    """Make a group below that of this process, and remove it; raise NoLimitError."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        raise NoLimitError("there are no control groups here") from None
    groups = {names: path for _, names, path in (line.split(":", 2) for line in lines)}
    first = next((path for names, path in groups.items() if "memory" in names.split(",")), None)
    if first is not None:
        below = ROOT / "memory" / first.lstrip("/")
        place = below if below.is_dir() else ROOT / "memory"
    else:
        place = ROOT / groups.get("", "/").lstrip("/")
    try:
        group = MemoryGroup(
            place / f"diskreplay-bench-{os.getpid()}-{time.monotonic_ns()}",
            limit_bytes,
            is_version_1=first is not None,
        )
    except OSError as error:
        raise NoLimitError(f"no control group could be made: {error}") from None
    try:
        yield group
    finally:
        group.remove()
