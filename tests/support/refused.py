"""A system that refuses: writes that fail, a disk that is soon full, paths that lead nowhere."""

from __future__ import annotations

import contextlib
import resource
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import diskreplay
from diskreplay import ReplayBuffer


def refuse_writes() -> None:
    """Have every write to a file fail, as it does on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))


def allow_writes() -> None:
    """Have writes work again."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)


@contextlib.contextmanager
def writes_refused() -> Iterator[None]:
    """Have every write to a file fail inside the block."""
    refuse_writes()
    try:
        yield
    finally:
        allow_writes()


@contextlib.contextmanager
def small_file_system(place: Path, size: str) -> Iterator[Path]:
    """Mount a file system of a size for the block, or skip the test."""
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a file system cannot be mounted here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def calls_with(path: str | Path) -> list[Callable[[], Any]]:
    """All that a path can be given to."""
    with ReplayBuffer(10) as buffer:
        buffer.push([0.0], 0, 0.0, [0.0], False)
        return [
            lambda: ReplayBuffer(10, path=path),
            lambda: diskreplay.open(path),
            lambda: diskreplay.verify(path),
            lambda: diskreplay.compact(path),
            lambda: diskreplay.resize(path, 5),
            lambda: diskreplay.repair(path, "elsewhere"),
            lambda: diskreplay.merge([path], "elsewhere"),
        ]
