"""A writer that is stopped in a commit: others say for whom they wait, and can be interrupted."""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from common import columns, run_python
from inside import store_of
from talking import Talking

import diskreplay
from diskreplay import PrioritizedReplayBuffer
from diskreplay.store import waiting

STOPPED = """
    import os, signal, sys, diskreplay
    from inside import store_of
    buffer = diskreplay.open(sys.argv[1], access="shared", commit_interval=1e9)
    with store_of(buffer).transaction():
        print("in a commit", flush=True)
        os.kill(os.getpid(), signal.SIGSTOP)
    buffer.close()
"""


@pytest.fixture
def stopped(tmp_path: Path) -> Iterator[Talking]:
    """A writer of tmp_path / "b" that is stopped in a commit."""
    with PrioritizedReplayBuffer(100, path=tmp_path / "b") as buffer:
        buffer.extend(**columns(0, 20))
    with Talking(STOPPED, tmp_path / "b") as process:
        assert process.hear() == "in a commit"
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
        yield process
        process.kill()


def test_the_opening_of_a_writer_says_for_whom_it_waits_and_can_be_interrupted(
    stopped: Talking, tmp_path: Path
) -> None:
    path = tmp_path / "b"
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = lambda *_: os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            diskreplay.open(path, access="shared")
    message = (
        rf"waiting for pid {stopped.pid} on \S+, since .* \(it is stopped: kill -CONT "
        rf"{stopped.pid} lets it go on\) to end its commit of {path}"
    )
    with pytest.raises(diskreplay.WaitingWarning, match=message):  # warnings are errors here
        diskreplay.open(path, access="shared")


def test_a_commit_waits_until_the_one_before_goes_on(
    stopped: Talking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = waiting._holders

    def find_and_let_go_on(descriptor: int, path: Path) -> str:
        found = find(descriptor, path)
        os.kill(stopped.pid, signal.SIGCONT)
        return found

    monkeypatch.setattr(waiting, "_holders", find_and_let_go_on)
    with pytest.warns(diskreplay.WaitingWarning) as caught:
        buffer = diskreplay.open(tmp_path / "b", access="shared")
    assert [warning.filename for warning in caught] == [__file__]
    buffer.extend(**columns(20, 5))
    buffer.close()
    assert stopped.wait(60) == 0
    with diskreplay.open(tmp_path / "b", access="read") as reader:
        assert len(reader) == 25


def test_a_reader_does_not_wait_and_inspect_names_who_is_stopped(
    stopped: Talking, tmp_path: Path
) -> None:
    path = tmp_path / "b"
    with diskreplay.open(path, access="read") as reader:
        assert len(reader) == 20
        reader.sample(5)
        (opener,) = [who for who in reader.stats()["openers"] if who["pid"] == stopped.pid]
        assert opener["stopped"] is True
    assert diskreplay.verify(path) == []
    shown = run_python("from diskreplay_tools.cli import main; main()", "inspect", path)
    assert f"kill -CONT {stopped.pid}" in shown.stdout


def test_without_a_list_of_locks_the_writers_are_named(
    stopped: Talking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "_pids_with_lock", lambda _: [])
    with (
        diskreplay.open(tmp_path / "b", access="read") as reader,
        pytest.raises(diskreplay.WaitingWarning) as warned,
    ):
        waiting.wait_for(store_of(reader)._files.data, tmp_path / "b", "its commit")
    assert f"waiting for pid {stopped.pid} on" in str(warned.value)
    assert f"pid {os.getpid()} " not in str(warned.value)


def test_a_writer_that_is_killed_in_a_commit_is_not_waited_for(
    stopped: Talking, tmp_path: Path
) -> None:
    stopped.kill()
    stopped.wait(60)
    run_python("import sys, diskreplay; diskreplay.open(sys.argv[1]).close()", tmp_path / "b")
