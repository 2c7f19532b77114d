"""Transitions that any process can make again from their number alone."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

STATE = 3
SUPPORT = Path(__file__).parent


def columns(first: int, n: int) -> dict[str, NDArray[Any]]:
    """n transitions with the numbers first, first + 1, ..., as the arguments of `extend`."""
    return _columns_of(np.arange(first, first + n))


def _columns_of(numbers: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    states = (numbers[:, None] * STATE + np.arange(STATE)).astype(np.float32)
    return {
        "states": states,
        "actions": numbers * 7 % 11,
        "rewards": (numbers / 8).astype(np.float32),
        "next_states": states + 1,
        "dones": numbers % 5 == 4,
    }


def row(number: int) -> dict[str, Any]:
    """The transition of a number, as the arguments of `push`."""
    one = columns(number, 1)
    names = ("state", "action", "reward", "next_state", "done")
    return {name: column[0] for name, column in zip(names, one.values(), strict=True)}


def numbers_of(batch: Any) -> NDArray[np.int64]:
    """The numbers of the transitions in a batch, after checking that each is whole."""
    numbers = np.rint(batch.rewards * 8).astype(np.int64)
    for wanted, found in zip(_columns_of(numbers).values(), batch, strict=False):
        np.testing.assert_array_equal(found, wanted.astype(found.dtype))
    return numbers


def contents(path: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in sorted(path.rglob("*"))
        # The engine's table of readers, and a note that saves time.
        if file.is_file() and file.name not in ("lock.mdb", "data.known")
    }


# Warnings are errors, but for the one of rows that do not continue each other, as most here.
WARNINGS = ("-W", "error", "-W", "ignore:a transition does not continue the one before it")


def run_python(
    code: str, *arguments: object, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own, with tests/support importable and warnings as errors."""
    result = subprocess.run(
        [sys.executable, *WARNINGS, "-c", textwrap.dedent(code), *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=SUPPORT,
        env={**os.environ, "PYTHONPATH": str(SUPPORT)},
        timeout=300,
    )
    if check and result.returncode != 0:
        raise AssertionError(f"exit status {result.returncode}\n{result.stdout}\n{result.stderr}")
    return result
