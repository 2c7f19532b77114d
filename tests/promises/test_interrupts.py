"""Calls that are interrupted, nested in a signal handler, or that meet a disk that refuses.

The interrupts are real: a trace function raises KeyboardInterrupt at one line of the library after
the other, as a signal handler can.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from common import columns, numbers_of, row, run_python
from inside import flush_interrupted, replica_of, store_of
from interrupted import interrupted_at
from refused import writes_refused

import diskreplay
from diskreplay import PrioritizedReplayBuffer, ReplayBuffer

CALLS: dict[str, Callable[[PrioritizedReplayBuffer], Any]] = {
    "push": lambda b: b.push(**row(b.count), priority=b.count % 97 + 0.5),
    "extend": lambda b: b.extend(
        **columns(b.count, 9), priorities=np.arange(b.count, b.count + 9) % 97 + 0.5
    ),
    "extend of one": lambda b: b.extend(**columns(b.count, 1), priorities=[b.count % 97 + 0.5]),
    "large extend": lambda b: b.extend(
        **columns(b.count, 70), priorities=np.arange(b.count, b.count + 70) % 97 + 0.5
    ),
    "update": lambda b: b.update_priorities(
        np.arange(b.count - 20, b.count), np.arange(b.count - 20, b.count) % 97 + 0.5
    ),
    "sample": lambda b: b.sample(8),
    "flush": lambda b: b.flush(),
}


@pytest.mark.parametrize("observations", ["record", "log"])
@pytest.mark.parametrize("name", CALLS)
def test_an_interrupt_at_any_line_leaves_all_or_nothing(
    name: str, observations: str, tmp_path: Path, long: bool
) -> None:
    step = 1 if long else 3
    if name in ("large extend", "flush"):  # these have many lines
        step = 5 if long else 17 if observations == "record" else 53
    arguments: dict[str, Any] = {
        "path": tmp_path / "b", "commit_interval": 1e9, "window_bytes": 0, "seed": 1,
        "observations": observations,
    }  # fmt: skip
    buffer = PrioritizedReplayBuffer(64, **arguments)
    buffer.extend(**columns(0, 64), priorities=np.arange(64) % 97 + 0.5)
    line = 1 if long or observations == "record" else 2  # lines of both, in turns
    while True:
        before = buffer.count
        CALLS["push"](buffer)  # so that there is something to commit
        came_so_far = interrupted_at(line, partial(CALLS[name], buffer))
        assert (buffer.count - before) in (1, 2, 10, 71)
        buffer.check()
        if line % 5 == 1:
            buffer.close()
            buffer = PrioritizedReplayBuffer(64, **arguments)
        live = np.arange(buffer.count - 64, buffer.count)
        assert numbers_of(buffer.get(live)).tolist() == live.tolist()
        found = buffer.priorities(range(int(live[0]), buffer.count))
        np.testing.assert_array_equal(found, live % 97 + 0.5)
        if not came_so_far:
            break
        line += step
    assert line > 10
    buffer.close()
    assert diskreplay.verify(tmp_path / "b") == []


def test_a_run_counts_the_rows_of_an_interrupted_commit_once(tmp_path: Path) -> None:
    buffer = ReplayBuffer(1000, path=tmp_path / "b", commit_interval=1e9)
    line, came_so_far = 0, True
    while came_so_far:
        buffer.push(**row(buffer.count))
        buffer.flush()  # or the next one would have more lines
        buffer.push(**row(buffer.count))
        line += 1
        came_so_far = interrupted_at(line, buffer.flush)
    buffer.flush()
    [run] = buffer.stats()["runs"]
    assert run["rows"] == buffer.count


def test_a_commit_whose_end_was_not_noted_is_followed_by_readers(tmp_path: Path) -> None:
    buffer = PrioritizedReplayBuffer(100, path=tmp_path / "b", commit_interval=1e9)
    buffer.extend(**columns(0, 10), priorities=np.full(10, 2.0))
    flush_interrupted(buffer)
    buffer.push(**row(10), priority=3.0)
    buffer.flush()
    assert buffer.stats()["commits"] == 2  # one number each, by which readers know them
    buffer.close()
    assert diskreplay.open(tmp_path / "b").stats()["commits"] == 2


def test_a_commit_does_not_go_over_one_that_it_does_not_know(tmp_path: Path) -> None:
    buffer = ReplayBuffer(100, path=tmp_path / "b", commit_interval=1e9)
    buffer.extend(**columns(0, 10))
    buffer.flush()
    # A second writer that no lock kept away, as on a file system without locks.
    store_of(buffer)._locks.release()
    code = """
        import sys, diskreplay
        from common import columns
        with diskreplay.open(sys.argv[1]) as buffer:
            buffer.extend(**columns(10, 5))
    """
    run_python(code, tmp_path / "b")
    buffer.push(**row(10))
    with pytest.raises(diskreplay.StorageError, match="was written by another process"):
        buffer.flush()
    buffer._guard._close_store(sync=False)
    assert len(diskreplay.open(tmp_path / "b")) == 15


def test_reading_the_lock_files_does_not_end_the_locks(tmp_path: Path) -> None:
    buffer = ReplayBuffer(100, path=tmp_path / "b")
    for name in ("writer.lock", "openers.lock", "diskreplay.json"):
        (tmp_path / "b" / name).read_bytes()
    code = "import sys, diskreplay; diskreplay.open(sys.argv[1])"
    assert "LockedError" in run_python(code, tmp_path / "b", check=False).stderr
    buffer.push(**row(0))


def test_the_locks_end_with_the_process_and_not_with_its_forked_children(tmp_path: Path) -> None:
    code = """
        import os, sys, warnings, diskreplay
        warnings.simplefilter("ignore")  # newer Pythons warn of fork beside threads, rightly
        buffer = diskreplay.ReplayBuffer(10, path=sys.argv[1])
        if os.fork() == 0:
            os.write(int(sys.argv[3]), b"forked")
            os.read(int(sys.argv[2]), 1)  # outlives its parent until the test ends
            os._exit(0)
        os._exit(0)
    """
    waits, ends = os.pipe()
    forked, says_so = os.pipe()
    try:
        subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code), tmp_path / "b", str(waits), str(says_so)],
            pass_fds=[waits, says_so],
            check=True,
        )
        assert os.read(forked, 6) == b"forked"
        ReplayBuffer(10, path=tmp_path / "b").close()
    finally:
        for descriptor in (waits, ends, forked, says_so):
            os.close(descriptor)


@pytest.mark.parametrize("call", ["close", "flush"])
def test_a_signal_handler_may_close_or_is_told_why_not(call: str, tmp_path: Path) -> None:
    code = """
        import os, signal, sys, diskreplay
        from common import columns, row
        buffer = diskreplay.PrioritizedReplayBuffer(
            5000, path=sys.argv[1], commit_interval=0.01, window_bytes=0)
        buffer.extend(**columns(0, 5000))
        refused = []
        def handle(*_):
            try:
                getattr(buffer, sys.argv[2])()
            except diskreplay.StorageError as error:
                assert "by the call that this one interrupted" in str(error), error
                refused.append(error)
                return
            if sys.argv[2] == "close":
                os._exit(0)
        signal.signal(signal.SIGALRM, handle)
        signal.setitimer(signal.ITIMER_REAL, 0.02, 0.003)
        for i in range(5000, 12_000):
            buffer.push(**row(i))
            if i % 50 == 0:
                buffer.flush()
            if i % 1000 == 0:
                buffer.check()
        signal.setitimer(signal.ITIMER_REAL, 0)
        assert refused
    """
    run_python(code, tmp_path / "b", call)
    with diskreplay.open(tmp_path / "b") as buffer:
        buffer.check()
        numbers = [int(e.reward * 8) for e in buffer]
        assert numbers == list(range(buffer.count - 5000, buffer.count))


@pytest.mark.parametrize("access", ["exclusive", "shared"])
@pytest.mark.parametrize("name", ["push", "extend", "large extend", "update", "sample", "clear"])
def test_with_interval_zero_a_refused_call_changes_nothing(
    name: str, access: str, tmp_path: Path
) -> None:
    def seen() -> Any:
        found = buffer.priorities(range(buffer.first, buffer.count)).tolist()
        return buffer.stats(), replica_of(buffer).draws, found

    buffer = PrioritizedReplayBuffer(
        60, path=tmp_path / "b", access=access, commit_interval=0, window_bytes=0, seed=3
    )
    buffer.extend(**columns(0, 50), priorities=np.arange(50) % 97 + 0.5)
    buffer.update_priorities([60], [1.0])  # stale
    call = {**CALLS, "clear": lambda b: b.clear()}[name]
    before = seen()
    for _ in range(2):
        with writes_refused(), pytest.raises(diskreplay.StorageError):
            call(buffer)
        assert seen() == before
        buffer.check()
    call(buffer)
    assert buffer.stats()["commits"] == before[0]["commits"] + 1


def test_at_exit_one_buffer_that_fails_does_not_stop_the_others(tmp_path: Path) -> None:
    code = """
        import gc, os, sys, diskreplay
        from common import columns
        buffers = []
        for i in range(6):
            path = f"{sys.argv[1]}/{i}"
            buffer = diskreplay.ReplayBuffer(99, path=path, commit_interval=9e9)
            buffer.extend(**columns(0, 7))
            buffers.append(buffer)
            if i % 2:
                os.rename(f"{path}/data.mdb", f"{path}/elsewhere")
        buffers.append(buffers)  # never collected, so only the end of the program closes them
        gc.freeze()
    """
    result = run_python(code, tmp_path)
    assert result.stderr.count("StorageError: ") == 3
    for elsewhere in tmp_path.glob("*/elsewhere"):
        elsewhere.rename(elsewhere.with_name("data.mdb"))
    sizes = [len(diskreplay.open(tmp_path / str(i))) for i in range(6)]
    assert sizes == [7, 0, 7, 0, 7, 0]


def test_a_buffer_that_cannot_commit_gives_its_store_back_when_it_goes(tmp_path: Path) -> None:
    buffer = ReplayBuffer(99, path=tmp_path / "b", commit_interval=1e9)
    buffer.extend(**columns(0, 7))
    with writes_refused(), pytest.raises(diskreplay.StorageError):
        buffer.close()
    assert len(buffer) == 7  # still open, to be closed when there is room
    buffer.close()
    assert len(diskreplay.open(tmp_path / "b")) == 7


def test_an_interrupt_at_any_line_of_a_clear_leaves_all_or_nothing(tmp_path: Path) -> None:
    buffer = PrioritizedReplayBuffer(64, path=tmp_path / "b", commit_interval=1e9, seed=1)
    buffer.extend(**columns(0, 64))
    line, came_so_far = 0, True
    while came_so_far:
        line += 1
        before = len(buffer)
        came_so_far = interrupted_at(line, buffer.clear)
        assert len(buffer) in (0, before)
        buffer.extend(**columns(buffer.count, 5))
        assert min(buffer.sample(5).indices) >= buffer.count - len(buffer)
        buffer.check()
    assert line > 10


def test_rows_of_a_refused_call_are_not_taken_for_later_ones(tmp_path: Path) -> None:
    with ReplayBuffer(1000, path=tmp_path / "saved") as saved:
        saved.extend(**columns(500, 80))
    for large in ("extend", "load"):
        buffer = ReplayBuffer(1000, path=tmp_path / large, commit_interval=0, window_bytes=0)
        buffer.push(**row(0))
        with writes_refused(), pytest.raises(diskreplay.StorageError):
            buffer.push(**row(77))
        if large == "extend":
            buffer.extend(**columns(1, 100))
            assert numbers_of(buffer.get(np.arange(101))).tolist() == list(range(101))
        else:
            buffer.load(tmp_path / "saved")
            assert [int(e.reward * 8) for e in buffer] == list(range(500, 580))
        buffer.close()
