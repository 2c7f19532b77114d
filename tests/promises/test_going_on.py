"""A process ends, in whatever way, and another goes on where the last commit was."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import training
from common import columns, numbers_of, row, run_python
from drawn import KINDS, SIZE
from kills import around_changes, child_of, was_killed
from others import Other
from reading import content, drawn
from refused import writes_refused

import diskreplay
from diskreplay import PrioritizedReplayBuffer, ReplayBuffer


@pytest.mark.parametrize("kind", KINDS)
def test_the_next_100_batches_are_those_of_a_run_that_never_stopped(
    kind: type, tmp_path: Path
) -> None:
    def goes_on(path: str, begin: int) -> list[str]:
        with training.opened(kind.__name__, tmp_path / path) as buffer:
            return training.train(buffer, begin, 500)

    code = "import sys, training; training.main(*sys.argv[1:])"
    whole = goes_on("whole", 0)
    for how in ("exit", "close", "end"):
        first = run_python(code, kind.__name__, tmp_path / how, 400, how).stdout.splitlines()
        second = goes_on(how, 400)
        assert len(second) == 100
        assert [*first, *second] == whole


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("interval", [0, 1e9])
def test_a_killed_run_with_readers_goes_on_with_the_batch_that_was_not_given(
    kind: type, interval: float, tmp_path: Path
) -> None:
    code = """
        import os, signal, sys
        import diskreplay
        import reading as t
        kind = getattr(diskreplay, sys.argv[1])
        buffer = t.stored(kind, sys.argv[2], commit_interval=float(sys.argv[3]))
        batches = buffer.batches(t.SIZE, 3, 2)
        for _ in range(5):
            next(batches)
        if buffer._options.commit_interval:
            buffer.flush()
            next(batches)  # after the last commit: it is given again
        os.kill(os.getpid(), signal.SIGKILL)
    """
    killed = run_python(code, kind.__name__, tmp_path / "b", interval, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    with (
        diskreplay.open(tmp_path / "b", commit_interval=1e9, window_bytes=0) as buffer,
        buffer.batches(SIZE, 3, 2, reuse=True) as batches,
    ):
        assert [content(next(batches)) for _ in range(6)] == drawn(kind, 11)[5:]
        if isinstance(buffer, PrioritizedReplayBuffer):
            assert buffer.frame == 11


def test_a_commit_happens_while_the_program_makes_no_call(tmp_path: Path, other: Other) -> None:
    other.open(100, commit_interval=0.05)
    other.extend(0, 7)
    with diskreplay.open(tmp_path / "b", access="read") as reader:
        while len(reader) == 0:
            assert other.process.is_alive()
        assert len(reader) == 7
    other.kill()
    with diskreplay.open(tmp_path / "b") as buffer:
        assert [int(e.reward * 8) for e in buffer] == list(range(7))


def test_with_interval_zero_every_call_commits(tmp_path: Path, other: Other) -> None:
    other.open(100, commit_interval=0)
    other.push(*row(0).values(), 3.0)
    other.extend(1, 4)
    other.sample(2)
    other.update([2], [8.0])
    other.kill()
    with diskreplay.open(tmp_path / "b") as buffer:
        stats = buffer.stats()
        assert (stats["size"], stats["frame"], stats["max_priority"]) == (5, 1, 8.0)
        assert stats["commits"] == 4


def test_a_buffer_that_nobody_closes_is_committed_when_it_goes(tmp_path: Path) -> None:
    code = """
        import gc, sys, diskreplay
        from common import columns
        def forget(name):
            buffer = diskreplay.ReplayBuffer(9, path=sys.argv[1] + name, commit_interval=1e9)
            buffer.extend(**columns(0, 5))
            return buffer
        forget("collected")
        assert len(diskreplay.open(sys.argv[1] + "collected")) == 5
        kept = forget("at-exit")
        kept.itself = kept  # with this it is never collected, not even at the end
        gc.freeze()
    """
    run_python(code, f"{tmp_path}/")
    assert len(diskreplay.open(tmp_path / "at-exit")) == 5


def write_on(kind: Any, path: Path, seed: int, say: int) -> None:
    """Push at random for ever, and say how many rows a commit has."""
    rng = np.random.default_rng(seed)
    buffer = kind(500, seed=1, path=path, commit_interval=0.002, window_bytes=0)
    while True:
        n, count = int(rng.integers(1, 130)), buffer.count
        priorities = np.arange(count, count + n) % 97 + 0.5
        is_prioritized = kind is PrioritizedReplayBuffer
        if n == 1:
            buffer.push(**row(count), **({"priority": priorities[0]} if is_prioritized else {}))
        else:
            more = {"priorities": priorities} if is_prioritized else {}
            buffer.extend(**columns(count, n), **more)
        if rng.random() < 0.3:
            buffer.flush()
            os.write(say, b"%d\n" % (count + n))  # what the parent has read is committed


@pytest.mark.parametrize("kind", KINDS)
def test_kills_lose_nothing_that_was_committed(kind: Any, tmp_path: Path, long: bool) -> None:
    rng = np.random.default_rng(20)
    path = tmp_path / "b"
    committed = 0
    for kill in range(500 if long else 10):
        said, say = os.pipe()
        process = child_of(partial(write_on, kind, path, kill, say))
        os.close(say)
        with os.fdopen(said) as lines:
            # Random moments: some before the store exists, most somewhere in the writing.
            for _ in range(int(rng.integers(0, 60))):
                committed = int(lines.readline())
            os.kill(process, signal.SIGKILL)
            committed = max([committed, *map(int, lines.read().split("\n")[:-1])])
        assert was_killed(process)
        if not path.exists():
            assert committed == 0
            continue
        with diskreplay.open(path) as buffer:
            buffer.check()
            assert buffer.count >= committed
            live = np.arange(buffer.first, buffer.count)
            assert len(live) == min(500, buffer.count)
            assert [int(e.reward * 8) for e in buffer] == live.tolist()
            if len(live):
                assert numbers_of(buffer.get(live)).tolist() == live.tolist()
            if isinstance(buffer, PrioritizedReplayBuffer):
                np.testing.assert_array_equal(buffer.priorities(live), live % 97 + 0.5)
            committed = buffer.count
    assert committed > 500
    left = [p.name for p in tmp_path.iterdir() if not p.name.startswith(".diskreplay-new-")]
    assert left == ["b"]


def test_a_kill_while_a_store_is_made_leaves_none_or_a_whole_one(
    tmp_path: Path, long: bool
) -> None:
    path = tmp_path / "stores" / "b"
    path.parent.mkdir()

    def look(_: bool) -> bool:
        is_made = path.exists()
        with ReplayBuffer(10, path=path) as buffer:
            buffer.push(**row(0))
        assert len(diskreplay.open(path)) == 1
        return is_made

    def make() -> None:
        ReplayBuffer(10, path=path)

    made = list(around_changes(make, path.parent, look, 1 if long else 3, harmless=12))
    assert len(made) > 10
    assert set(made) == {False, True}


def test_the_error_of_a_background_commit_is_met_by_the_next_call(tmp_path: Path) -> None:
    buffer = PrioritizedReplayBuffer(10**6, path=tmp_path / "b", commit_interval=0.01)
    buffer.extend(**columns(0, 100))
    buffer.flush()

    def extend_until_refused() -> None:
        while True:
            buffer.extend(**columns(len(buffer), 1000))

    with writes_refused(), pytest.raises(diskreplay.StorageError, match="File too large"):
        extend_until_refused()
    accepted = len(buffer)  # the refused rows were not taken, the others are held
    assert accepted > 100
    assert accepted % 1000 == 100
    buffer.extend(**columns(accepted, 10))
    buffer.close()
    with diskreplay.open(tmp_path / "b") as again:
        again.check()
        assert [int(e.reward * 8) for e in again] == list(range(accepted + 10))


@pytest.mark.parametrize("name", ["push", "extend", "update"])
def test_the_call_after_a_background_commit_that_failed_commits_itself(
    name: str, tmp_path: Path
) -> None:
    buffer = PrioritizedReplayBuffer(1000, path=tmp_path / "b", commit_interval=0.01)
    buffer.extend(**columns(0, 10))
    buffer.flush()
    data = tmp_path / "b" / "data.mdb"
    data.rename(tmp_path / "away")
    buffer.push(**row(10))
    end = time.monotonic() + 60
    while not buffer._guard.commit_failed:
        assert time.monotonic() < end, "nobody remembers that the commit failed"
        time.sleep(0.005)
    calls: dict[str, Callable[[], Any]] = {
        "push": lambda: buffer.push(**row(11)),
        "extend": lambda: buffer.extend(**columns(11, 5)),
        "update": lambda: buffer.update_priorities([0], [7.0]),
    }
    with pytest.raises(diskreplay.StorageError, match=r"data\.mdb"):
        calls[name]()
    assert (len(buffer), buffer.max_priority) == (11, 1.0)
    (tmp_path / "away").rename(data)
    calls[name]()
    assert not buffer._guard.commit_failed
    numbers = list(range(len(buffer)))
    buffer.close()
    with diskreplay.open(tmp_path / "b") as again:
        assert [int(e.reward * 8) for e in again] == numbers


def test_a_large_extend_that_fails_is_undone_whole(tmp_path: Path) -> None:
    buffer = PrioritizedReplayBuffer(10**5, path=tmp_path / "b", window_bytes=0, seed=2)
    buffer.extend(**columns(0, 100), priorities=np.linspace(1, 2, 100))
    buffer.flush()
    before = buffer.stats()
    with writes_refused(), pytest.raises(diskreplay.StorageError):
        buffer.extend(**columns(100, 50_000), priorities=np.full(50_000, 9.0))
    assert buffer.stats() == before
    buffer.check()
    assert buffer.extend(**columns(100, 50_000))[0] == 100
    numbers_of(buffer.sample(100))


def test_alpha_may_change_on_reopening(tmp_path: Path) -> None:
    priorities = np.linspace(0, 5, 50).astype(np.float32)
    with PrioritizedReplayBuffer(50, alpha=0.3, path=tmp_path / "b") as buffer:
        buffer.extend(**columns(0, 50), priorities=priorities)
    with PrioritizedReplayBuffer(50, alpha=1.0, epsilon=0.25, path=tmp_path / "b") as buffer:
        buffer.sample(1)
        expected = priorities.astype(np.float64) + 0.25
        assert buffer._table.tree.masses(np.arange(50)).tolist() == expected.tolist()
