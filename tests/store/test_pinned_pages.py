"""A reader that stays at an old commit keeps its pages: who writes says so, once."""

from __future__ import annotations

import os
import signal
import socket
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from common import columns, run_python
from inside import store_of
from talking import Talking

from diskreplay import EpisodeWarning, PinnedPagesWarning, PrioritizedReplayBuffer

READ = """
import sys, diskreplay
from inside import store_of
buffer = diskreplay.open(sys.argv[1], access="read")
with store_of(buffer).snapshot() as snapshot:
    print("reading", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Talking]:
    """A process in the middle of a look at a store, which is stopped."""
    PrioritizedReplayBuffer(20_000, path=tmp_path / "b").close()
    process = Talking(READ, tmp_path / "b")
    assert process.hear() == "reading"
    process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
    yield process
    process.kill()
    process.end()


@pytest.mark.parametrize("access", ["exclusive", "shared"])
def test_one_warning_names_who_is_stopped_in_a_look(
    access: str, reader: Talking, tmp_path: Path
) -> None:
    buffer = PrioritizedReplayBuffer(20_000, path=tmp_path / "b", access=access)
    assert buffer.stats()["oldest_reader"] is None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.simplefilter("ignore", EpisodeWarning)
        for first in range(0, 180 * 2000, 2000):
            buffer.extend(**columns(first, 2000))
            buffer.flush()
    told = [str(w.message) for w in caught if w.category is PinnedPagesWarning]
    assert len(told) == len(caught) == 1
    assert caught[0].filename == __file__
    name = f"pid {reader.pid} on {socket.gethostname()}, which is stopped, reads {tmp_path / 'b'}"
    assert told[0].startswith(name)
    assert f"kill -CONT {reader.pid} lets it go on, or end it" in told[0]
    behind = int(told[0].partition("as it was ")[2].split()[0])
    assert 100 <= behind < 180

    oldest = buffer.stats()["oldest_reader"]
    assert (oldest["pid"], oldest["stopped"]) == (reader.pid, True)
    assert oldest["host"] == socket.gethostname()
    assert oldest["commits_behind"] >= 180
    shown = run_python("from diskreplay_tools.cli import main; main()", "inspect", tmp_path / "b")
    behind = oldest["commits_behind"]
    assert f"pid {reader.pid} reads what was there {behind} commits ago" in shown.stdout

    os.kill(reader.pid, signal.SIGCONT)
    reader.end("go on\n")
    assert buffer.stats()["oldest_reader"] is None
    buffer.close()


def test_where_warnings_are_errors_the_commit_is_done_all_the_same(
    reader: Talking, tmp_path: Path
) -> None:
    code = """
        import sys, time, diskreplay
        from common import columns
        buffer = diskreplay.PrioritizedReplayBuffer(20_000, path=sys.argv[1], commit_interval=1e9)
        warned = 0
        for first in range(0, 160 * 2000, 2000):
            buffer.extend(**columns(first, 2000))
            try:
                buffer.flush()
            except diskreplay.PinnedPagesWarning:
                warned += 1
        assert warned == 1
        buffer.check()
        buffer.close()
        with diskreplay.open(sys.argv[1]) as buffer:
            assert buffer.count == 320_000
    """
    run_python(code, tmp_path / "b")


def test_a_background_commit_that_warns_goes_on(reader: Talking, tmp_path: Path) -> None:
    code = """
        import sys, time, diskreplay
        from common import columns
        from inside import store_of
        buffer = diskreplay.PrioritizedReplayBuffer(20_000, path=sys.argv[1], commit_interval=1e-4)
        for first in range(0, 160 * 2000, 2000):
            buffer.extend(**columns(first, 2000))
            for _ in range(60_000):
                if buffer._guard._changed_at is None:  # it was the thread that committed
                    break
                time.sleep(0.001)
            assert not buffer._guard.commit_failed
        assert store_of(buffer).pinned_pages._told
        buffer.close()
    """
    run_python(code, tmp_path / "b")


def test_growth_without_a_reader_and_readers_that_follow_are_no_matter(tmp_path: Path) -> None:
    buffer = PrioritizedReplayBuffer(200_000, path=tmp_path / "b", commit_interval=1e9)
    buffer.extend(**columns(0, 100))
    buffer.flush()
    reader = Talking(READ, tmp_path / "b")
    assert reader.hear() == "reading"
    for first in range(100, 60_000, 6000):  # a file that grows, and few commits
        buffer.extend(**columns(first, 6000))
        buffer.flush()
    assert store_of(buffer).pinned_pages._look_at > 8 << 20
    assert buffer.stats()["oldest_reader"]["stopped"] is False
    reader.end("\n")
    buffer.close()
