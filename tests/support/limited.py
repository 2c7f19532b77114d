"""A process with so much memory and no more, in a memory cgroup where one can be made."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from common import SUPPORT, WARNINGS

MOUNTS = Path("/sys/fs/cgroup")


class Files(NamedTuple):
    """What the files of a memory cgroup are called: version 1, or version 2."""

    limit: str
    swap: str
    peak: str
    events: str


VERSION_1 = Files(
    "memory.limit_in_bytes", "memory.memsw.limit_in_bytes",
    "memory.max_usage_in_bytes", "memory.oom_control",
)  # fmt: skip
VERSION_2 = Files("memory.max", "memory.swap.max", "memory.peak", "memory.events")


class Outcome(NamedTuple):
    """How a limited process ended."""

    status: int
    out: str
    err: str
    peak_bytes: int
    kills: int


class Group:
    """A memory cgroup."""

    def __init__(self, path: Path, files: Files, limit_bytes: int) -> None:
        self._path, self._files = path, files
        (path / files.limit).write_text(str(limit_bytes))
        with contextlib.suppress(OSError):  # a kernel may be built without
            (path / files.swap).write_text(str(limit_bytes if files is VERSION_1 else 0))

    def run(self, code: str, *arguments: object) -> Outcome:
        """Run Python in it, to the end."""
        enter = 'echo $$ > "$0" && exec "$@"'
        ran = subprocess.run(
            ["sh", "-c", enter, self._path / "cgroup.procs", sys.executable, *WARNINGS,
             "-c", textwrap.dedent(code), *map(str, arguments)],
            capture_output=True, text=True, cwd=SUPPORT, timeout=3000,
        )  # fmt: skip
        events = dict(map(str.split, (self._path / self._files.events).read_text().splitlines()))
        peak = int((self._path / self._files.peak).read_text())
        return Outcome(ran.returncode, ran.stdout, ran.stderr, peak, int(events["oom_kill"]))


@contextlib.contextmanager
def group(limit_bytes: int) -> Iterator[Group | None]:
    """Make a memory cgroup and remove it; give None where that cannot be done."""
    for mount, files in ((MOUNTS / "memory", VERSION_1), (MOUNTS, VERSION_2)):
        for parent in (mount / own_path(files), mount):
            path = parent / f"diskreplay-{os.getpid()}"
            try:
                path.mkdir()
            except OSError:
                continue
            try:
                found = None
                with contextlib.suppress(OSError):
                    found = Group(path, files, limit_bytes)
                    (path / files.peak).read_text()
                if found is not None:
                    yield found
                    return
            finally:
                path.rmdir()
    yield None


def own_path(files: Files) -> str:
    """The cgroup of this process, below the mount."""
    lines = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    wanted = "memory" if files is VERSION_1 else ""
    return next((p.lstrip("/") for _, kind, p in lines if wanted in kind.split(",")), "")


def anonymous_bytes() -> int:
    """The memory of this process that no file stands behind: what cannot be taken back."""
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Anonymous:"):
            return int(line.split()[1]) * 1024
    raise OSError("the kernel does not say what is anonymous")
