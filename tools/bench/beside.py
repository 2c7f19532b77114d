"""Processes beside this one, servers and clients: Python modules that answer on stdout, in lines.

This module also runs in the virtual environments of the peers: the standard library only.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator

Process = subprocess.Popen[str]


class EndedError(RuntimeError):
    """A process ended where a line was expected."""


@contextlib.contextmanager
def running(*arguments: object) -> Iterator[Process]:
    """Run a Python module within a block, which asks it by its stdin and stdout."""
    process = subprocess.Popen(
        [sys.executable, "-m", *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        # The rows are random, and continue each other nowhere.
        env={**os.environ, "PYTHONWARNINGS": "ignore:a transition does not continue"},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def ask(process: Process, line: str) -> None:
    """Send a line to a process."""
    assert process.stdin is not None
    try:
        process.stdin.write(f"{line}\n")
        process.stdin.flush()
    except BrokenPipeError:
        raise EndedError(f"process {process.pid} has ended") from None


def said(process: Process) -> str:
    """Return the next line of a process."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise EndedError(f"process {process.pid} has ended")
    return line.strip()
