"""For each call to the system that fails: an error of ours, nothing left behind, and it goes on."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from common import SUPPORT
from failing import SCENARIOS


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path | None:
    """Compile failing.c, where that can be done."""
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    if sys.platform != "linux" or compiler is None:
        return None
    made = tmp_path_factory.mktemp("failing") / "failing.so"
    command = [compiler, "-O1", "-shared", "-fPIC", "-o", made, SUPPORT / "failing.c", "-ldl"]
    subprocess.run(command, check=True)
    return made


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory whose syncs cost nothing, where there is one."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as directory:
        yield Path(directory) / "place"


@pytest.mark.parametrize("scenario", list(SCENARIOS))
def test_a_call_to_the_system_that_fails_is_an_error_of_ours(
    scenario: str, library: Path | None, place: Path, long: bool
) -> None:
    most = {"files": 25 if long else 12}
    if library is not None:
        codes = ("EIO", "ENOSPC", "EMFILE", "EACCES", "ENOMEM") if long else ("EIO",)
        most |= dict.fromkeys(codes, 10_000 if long else 16)
        if scenario in ("create", "exclusive", "shared"):  # after each write of the engine
            most |= {"EIO:pwrite": 10_000, "EIO:fdatasync": 10_000}
        if scenario == "merge":  # two stores are closed, whatever a look at their files says
            most |= {"EIO:lstat64": 10_000}
    asked = [str(word) for pair in most.items() for word in pair]
    result = subprocess.run(
        [sys.executable, SUPPORT / "failing.py", scenario, place, *asked],
        capture_output=True,
        text=True,
        env={**os.environ, **({"LD_PRELOAD": str(library)} if library else {})},
        timeout=1000,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    wrong = (result.stdout + result.stderr).strip()
    assert not wrong, wrong
    if library is None:
        pytest.skip("calls to the system fail only where there are Linux and a C compiler")
