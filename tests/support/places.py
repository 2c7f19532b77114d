"""Where the tests keep their files: in memory where the system offers that, or on a disk."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

_MEMORY = Path("/dev/shm")
_MEMORY_BYTES = 2 << 30  # far more than the tests have at a time; a container may have 64 MB
DISK = Path("/var/tmp")


def keep_in_memory() -> Path | None:
    """Make a directory in memory for temporary files, and return it where that can be done.

    It stays there for a look, to the next run, where a test failed.

    A sync to disk takes milliseconds, and no kill undoes what was not synced. Where `TMPDIR` is
    set, as it is for the workers and the children, it says where temporary files are.
    """
    if "TMPDIR" in os.environ or not os.access(_MEMORY, os.W_OK):
        return None
    if shutil.disk_usage(_MEMORY).free < _MEMORY_BYTES:
        return None
    for left in _MEMORY.glob("diskreplay-tests-*"):  # by a run that failed, or was killed
        pid = left.name.split("-")[2]
        if pid.isdecimal() and not Path("/proc", pid).exists():
            shutil.rmtree(left, ignore_errors=True)
    place = tempfile.mkdtemp(prefix=f"diskreplay-tests-{os.getpid()}-", dir=_MEMORY)
    os.environ["TMPDIR"] = place
    os.chmod(place, 0o1777)  # as /tmp: the children of some tests are another user
    tempfile.tempdir = None  # or what was looked up before would count
    return Path(place)


@pytest.fixture
def removals() -> Iterator[contextlib.ExitStack]:
    """Yield what removes the places of a test, when its buffers have been checked and closed."""
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture
def disk_path(removals: contextlib.ExitStack) -> Path:
    """Return an empty directory on a disk, for the tests of reading what is not in memory."""
    return Path(removals.enter_context(tempfile.TemporaryDirectory(dir=DISK)))
