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

TESTS = SUPPORT


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compile failing.c."""
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    if sys.platform != "linux" or compiler is None:
        pytest.skip("to have calls to the system fail needs Linux and a C compiler")
    made = tmp_path_factory.mktemp("failing") / "failing.so"
    command = [compiler, "-O1", "-shared", "-fPIC", "-o", made, TESTS / "failing.c", "-ldl"]
    subprocess.run(command, check=True)
    return made


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory whose syncs cost nothing, where there is one."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as directory:
        yield Path(directory) / "place"


def wrong_of(scenario: str, code: str, place: Path, most: int, library: Path | None) -> list[str]:
    preloaded = {} if library is None else {"LD_PRELOAD": str(library)}
    result = subprocess.run(
        [sys.executable, TESTS / "failing.py", scenario, place, code, str(most)],
        capture_output=True, text=True, env={**os.environ, **preloaded}, timeout=1000,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    return (result.stdout + result.stderr).split("\n")


@pytest.mark.parametrize("scenario", list(SCENARIOS))
def test_a_call_to_the_system_that_fails_is_an_error_of_ours(
    scenario: str, library: Path, place: Path, long: bool
) -> None:
    for code in ("EIO", "ENOSPC", "EMFILE", "EACCES", "ENOMEM") if long else ("EIO",):
        wrong = wrong_of(scenario, code, place, 10_000 if long else 16, library)
        assert not any(wrong), "\n".join(wrong)


@pytest.mark.parametrize("scenario", ["create", "exclusive", "shared"])
@pytest.mark.parametrize("call", ["pwrite", "fdatasync"])
def test_after_a_write_of_the_engine_that_fails_the_same_buffer_goes_on(
    call: str, scenario: str, library: Path, place: Path
) -> None:
    wrong = wrong_of(scenario, f"EIO:{call}", place, 10_000, library)
    assert not any(wrong), "\n".join(wrong)


@pytest.mark.parametrize("scenario", list(SCENARIOS))
def test_descriptors_that_are_used_up_are_an_error_of_ours(
    scenario: str, place: Path, long: bool
) -> None:
    wrong = wrong_of(scenario, "files", place, 25 if long else 12, None)
    assert not any(wrong), "\n".join(wrong)
