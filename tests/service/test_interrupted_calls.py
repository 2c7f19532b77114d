"""Calls of a client that are interrupted at one line after the other."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyarrow.flight")
pytest.importorskip("prometheus_client")

from common import columns, numbers_of, row
from interrupted import COMPUTING, interrupted_at
from served import served

import diskreplay
from diskreplay import PrioritizedReplayBuffer, RateLimited, ReplayBuffer


@pytest.fixture
def replay(tmp_path: Path) -> Iterator[Any]:
    with served(PrioritizedReplayBuffer(10_000, path=tmp_path / "b", seed=1)) as replay:
        replay.extend(**columns(0, 50), priorities=[1.0] * 50)
        replay.flush()
        yield replay


def interrupted_calls(call: Callable[[], Any]) -> Iterator[int]:
    """Interrupt calls at one line after the other, as a handler that calls sys.exit does."""
    line = 1
    while interrupted_at(line, call, in_locks=True, over=COMPUTING, error=SystemExit):
        yield line
        line += 1
    assert line > 10


@pytest.mark.parametrize("n", [1, 3])
def test_no_row_of_a_call_that_returned_is_lost_or_comes_twice(replay: Any, n: int) -> None:
    sure: list[int] = [*range(50)]  # the numbers of the rows whose call returned
    number = 50

    def push() -> None:
        if n == 1:
            replay.push(**row(number), priority=1.0)
        else:
            replay.extend(**columns(number, n), priorities=[1.0] * n)

    for _ in interrupted_calls(push):
        number += n
        replay.flush()
        push()
        sure += range(number, number + n)
        replay.flush()
        number += n
    sure += range(number, number + n)
    replay.flush()
    found = numbers_of(replay.get(range(replay.count))).tolist()
    assert found == sorted(set(found))
    assert set(sure) <= set(found)


def test_rows_are_committed_by_the_flush_after_an_interrupted_one(replay: Any) -> None:
    count = 50

    def flush() -> None:
        replay.push(**row(count), priority=1.0)
        replay.flush()

    for _ in interrupted_calls(flush):
        replay.push(**row(0), priority=1.0)
        replay.flush()
        assert replay.count - count in (1, 2)
        count = replay.count


def test_an_answer_belongs_to_its_request(replay: Any) -> None:
    for _ in interrupted_calls(lambda: replay.sample(8)):
        assert replay.count == 50
        assert replay.sample(3).rewards.shape == (3,)


def test_ctrl_c_ends_a_call_that_waits_for_the_pushes_of_others(tmp_path: Path) -> None:
    limited = RateLimited(ReplayBuffer(100, path=tmp_path / "limited"), min_size=4)

    def interrupt_the_waiting() -> None:
        while not limited.stats()["rate_limiter"]["waiting_to_sample"]:
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGINT)

    with served(limited) as replay:
        replay.extend(**columns(0, 3))
        replay.flush()
        other = threading.Thread(target=interrupt_the_waiting)
        other.start()
        with pytest.raises(KeyboardInterrupt):
            replay.sample(2)
        other.join()
        replay.push(**row(3))
        replay.flush()
        assert replay.count == 4
        assert replay.sample(3).rewards.shape == (3,)


def test_batches_go_on_after_an_interrupted_one(replay: Any) -> None:
    with replay.batches(4, prefetch=2) as batches:
        for _ in interrupted_calls(lambda: next(batches)):
            assert next(batches).rewards.shape == (4,)


# Python drops what is raised in a destructor, as that of a stream.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_close_that_is_interrupted_loses_no_row(replay: Any) -> None:
    url, line, is_interrupted = replay._connection.url, 1, True
    while is_interrupted:
        before = replay.count
        other = diskreplay.connect(url)
        other.push(**row(0), priority=1.0)
        is_interrupted = interrupted_at(line, other.close, over=COMPUTING)
        other.close()
        assert replay.count == before + 1
        line += 1
    assert line > 10
