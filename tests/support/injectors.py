"""Run a fault injector of tools/crash as a user does, on request with a broken library."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / "tools"


class Run:
    """A run that has ended."""

    def __init__(self, result: subprocess.CompletedProcess[str], kept: list[Path]) -> None:
        self.status, self.stdout, self.stderr = result.returncode, result.stdout, result.stderr
        self.kept = kept  # what is left in the temporary directory
        self.said = result.stdout + result.stderr

    @property
    def last_line(self) -> str:
        """The last line of the standard output."""
        return self.stdout.splitlines()[-1]


def run(place: Path, *arguments: object, broken: str = "") -> Run:
    """Run `python -m` or `python -c`; `broken` runs in each of its processes before it."""
    site, temporary = place / "site", place / "temporary"
    site.mkdir()
    temporary.mkdir()
    (site / "sitecustomize.py").write_text(textwrap.dedent(broken))
    path = f"{site}:{os.environ.get('PYTHONPATH', '')}"
    result = subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=TOOLS,
        env={**os.environ, "PYTHONPATH": path, "TMPDIR": str(temporary)},
        timeout=1000,
    )
    if "not simulated" in result.stderr:
        pytest.skip(result.stderr)
    assert result.returncode in (0, 1), result.stderr
    return Run(result, list(temporary.iterdir()))
