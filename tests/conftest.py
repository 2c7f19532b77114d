from __future__ import annotations

import contextlib
import gc
import os
import shutil
from collections.abc import Iterator
from multiprocessing import util
from pathlib import Path

import bounds
import places
import pytest
from hypothesis import settings
from others import Other
from places import disk_path as disk_path
from places import removals as removals

from diskreplay.buffer.guard import open_guards

settings.register_profile("default", deadline=None, derandomize=True)
settings.register_profile("long", deadline=None, max_examples=2000, stateful_step_count=100)

IN_MEMORY = pytest.StashKey[Path | None]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run the long forms of the tests")
    parser.addoption("--write", action="store_true", help="write outputs into docs/commands.md")


def pytest_configure(config: pytest.Config) -> None:
    bounds.adopt_orphans()
    config.stash[IN_MEMORY] = places.keep_in_memory()
    # A process that compiles the package starts half as fast.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    settings.load_profile("long" if config.getoption("--long") else "default")


def pytest_sessionfinish(session: pytest.Session) -> None:
    place = session.config.stash[IN_MEMORY]
    if place and not session.testsfailed:  # after multiprocessing removed its own, at priority -100
        util.Finalize(None, shutil.rmtree, (place, True), exitpriority=-200)


@pytest.fixture
def long(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--long"))


@pytest.fixture(autouse=True)
def bounded(long: bool) -> Iterator[None]:
    """Have Ctrl-C reach the test, the test end, and no process outlive it."""
    seconds = bounds.LONG_SECONDS if long else bounds.SECONDS
    with bounds.interruptible(), bounds.no_process_left(), bounds.limited_time(seconds):
        yield


@pytest.fixture(autouse=True)
def sound_buffers(bounded: None, tmp_path: Path, removals: contextlib.ExitStack) -> Iterator[None]:
    """Check every buffer that a test leaves open, and close it, before its files are removed."""
    yield
    gc.disable()  # or a buffer that nobody refers to could be closed while it is checked
    left = list(open_guards)
    for guard in left:
        try:
            with guard.reading() as view:
                store = guard.replica.store
                with contextlib.nullcontext(view) if view else store.snapshot() as snapshot:
                    assert guard.replica.faults(snapshot) == []
        finally:
            guard.close()
    gc.enable()
    if left:
        gc.collect()  # takes long, with all that Hypothesis keeps


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Other]:
    with Other(tmp_path / "b") as process:
        yield process
