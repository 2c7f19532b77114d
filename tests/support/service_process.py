"""`diskreplay serve` as a process of its own, on one store or several."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import diskreplay

PATIENCE = 60  # seconds, which only a process that hangs takes


class ServiceProcess:
    """A running server, which says its URL."""

    def __init__(self, *arguments: object, log: Path) -> None:
        self._log = log
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "diskreplay_tools", "serve", *map(str, arguments)],
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
            )
        self.url = ""

    def wait_until_it_serves(self) -> str:
        """Return the URL that it prints when clients can connect."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("serving at "), self._log.read_text()
        self.url = line.split()[-1]
        return self.url

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def wait(self) -> int:
        """Wait for the end, and return the exit status."""
        status = self.process.wait(PATIENCE)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return status

    def memory_bytes(self) -> int:
        """Return the resident memory of the server."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def most_memory_bytes(self) -> int:
        """Return the most resident memory that the server has had."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        [line] = [line for line in status.splitlines() if line.startswith("VmHWM:")]
        return int(line.split()[1]) << 10

    @property
    def logged(self) -> list[dict[str, Any]]:
        """All that it logged, each line a JSON object."""
        return [json.loads(line) for line in self._log.read_text().splitlines()]


@contextmanager
def serving(*arguments: object, log: Path) -> Iterator[ServiceProcess]:
    """Run a server within a block; it is killed at the end, if it is still there."""
    service = ServiceProcess(*arguments, log=log)
    try:
        service.wait_until_it_serves()
        yield service
    finally:
        if service.process.poll() is None:
            service.process.kill()
            service.wait()


def make_store(path: Path, capacity: int = 1000) -> Path:
    """Make an empty prioritized store, and return its path."""
    diskreplay.PrioritizedReplayBuffer(capacity, path=path, seed=0).close()
    return path
