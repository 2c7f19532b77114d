"""Processes that run code and talk line by line."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Iterable

from common import SUPPORT, WARNINGS


class Talking(subprocess.Popen[str]):
    """A process that runs code, with tests/support importable."""

    def __init__(
        self, code: str, *arguments: object, warnings: str = "error", within: Iterable[str] = ()
    ) -> None:
        """Start it; `within` is the command that runs Python."""
        options = WARNINGS if warnings == "error" else ("-W", warnings)
        python = [sys.executable, *options, "-c", textwrap.dedent(code)]
        super().__init__(
            [*within, *python, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=SUPPORT,
        )

    def hear(self) -> str:
        """Return the next line of its output."""
        assert self.stdout is not None
        return self.stdout.readline().rstrip("\n")

    def say(self, line: str = "") -> None:
        """Write a line to its input."""
        print(line, file=self.stdin, flush=True)

    def end(self, text: str = "") -> str:
        """Write the last of its input, and return the rest of its output when it has ended."""
        return self.communicate(text, timeout=60)[0]
