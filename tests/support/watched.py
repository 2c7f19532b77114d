"""The memory that a command takes while it goes over a table, in a process of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from diskreplay_tools import cli


def _anonymous_kib() -> int:
    status = Path("/proc/self/status").read_text()
    return sum(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon"))


def peak_mib(owner: Any, name: str, arguments: list[str]) -> int:
    """Return by how much memory grew at most, looked at in each step of a method of `owner`."""
    tables = getattr(owner, name)
    peaks = [_anonymous_kib()]

    def watched(*given: Any) -> Iterator[Any]:
        for found in tables(*given):
            peaks.append(_anonymous_kib())
            yield found

    setattr(owner, name, watched)
    cli.main(arguments, standalone_mode=False)
    peaks.append(_anonymous_kib())
    return (max(peaks) - peaks[0]) // 1024
