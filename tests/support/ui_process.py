"""The page of `diskreplay ui`, served by a process of its own."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path


@contextlib.contextmanager
def serving(
    target: Path | str, *options: str | Path, ends: Sequence[int] = (signal.SIGINT,)
) -> Iterator[str]:
    """Serve the page about a replay, and yield its address.

    ends:  the signals that the process gets at the end, one after the other; whatever it does then,
           it has to end without a word and with the status 0
    """
    environment = {name: v for name, v in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
    server = subprocess.Popen(
        [sys.executable, "-m", "diskreplay_tools", "ui", target, "--port", "0", *options],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    assert server.stdout is not None
    try:
        line = server.stdout.readline()
        found = re.match(r"(http://127\.0\.0\.1:\d+) shows ", line)
        assert found, (line, server.poll() is None or server.communicate()[1])
        yield found[1]
    finally:
        for number in ends:
            server.send_signal(number)
        errors = server.communicate(timeout=60)[1]
    assert (server.returncode, errors) == (0, ""), (server.returncode, errors)
