"""Several threads on one buffer, beside the thread that commits."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue

import numpy as np
from common import columns, numbers_of, row
from interrupted import interrupted_at

import diskreplay
from diskreplay import PrioritizedReplayBuffer
from diskreplay.buffer.autocommit import Autocommit


def test_pushing_drawing_and_updating_from_threads(tmp_path: Path) -> None:
    buffer = PrioritizedReplayBuffer(
        400, path=tmp_path / "b", commit_interval=0.001, window_bytes=0, seed=0
    )
    buffer.extend(**columns(0, 400))
    lock = threading.Lock()
    errors: list[BaseException] = []
    pushed = 400

    def push() -> None:
        # The number of a transition is its write id, so pushes take turns; nothing else does.
        nonlocal pushed
        with lock:
            assert buffer.push(**row(pushed)) == pushed
            pushed += 1

    def extend() -> None:
        nonlocal pushed
        with lock:
            assert buffer.extend(**columns(pushed, 50))[0] == pushed
            pushed += 50

    def draw() -> None:
        batch = buffer.sample(64)
        assert numbers_of(batch).tolist() == batch.indices.tolist()
        buffer.update_priorities(batch.indices, np.ones(64))

    def read() -> None:
        assert len(buffer) == 400
        numbers = [int(e.reward * 8) for e in buffer]
        assert numbers == sorted(numbers)
        buffer.flush()

    def repeat(call: Callable[[], None], times: int) -> None:
        try:
            for _ in range(times):
                call()
        except BaseException as error:
            errors.append(error)

    work = [(push, 400), (push, 400), (extend, 60), (draw, 150), (draw, 150), (read, 10)]
    threads = [threading.Thread(target=repeat, args=arguments) for arguments in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert pushed == 400 + 2 * 400 + 60 * 50
    buffer.check()
    buffer.close()
    with diskreplay.open(tmp_path / "b") as again:
        assert [int(e.reward * 8) for e in again] == list(range(pushed - 400, pushed))


def test_closing_ends_the_committing_thread(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    buffer = PrioritizedReplayBuffer(400, path=tmp_path / "b", commit_interval=3600)
    buffer.push(**row(0))
    [autocommit] = set(threading.enumerate()) - before
    buffer.close()
    assert not autocommit.is_alive()


class Owner:
    """Counts how often it is asked to commit."""

    def __init__(self) -> None:
        self.commits: SimpleQueue[None] = SimpleQueue()

    def commit(self) -> None:
        """Have nothing more to commit."""
        self.commits.put(None)


def ends(call: Callable[[], object]) -> bool:
    """Call it on another thread; return whether it ends within some seconds."""
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(20)
    return not thread.is_alive()


def test_an_interrupt_at_any_moment_of_a_wake_leaves_the_committing_thread_awake() -> None:
    for moment in itertools.count(1):
        owner = Owner()
        autocommit = Autocommit(0.0, owner.commit)
        autocommit.wake()
        owner.commits.get(timeout=20)
        came_so_far = interrupted_at(moment, autocommit.wake, in_locks=True)
        assert ends(autocommit.wake)
        owner.commits.get(timeout=20)
        assert ends(autocommit.stop)
        if not came_so_far:
            break
    assert moment > 2


def test_an_interrupt_at_any_line_of_the_first_wake_leaves_no_second_thread() -> None:
    before = set(threading.enumerate())
    for line in itertools.count(1):
        owner = Owner()
        autocommit = Autocommit(0.0, owner.commit)
        came_so_far = interrupted_at(line, autocommit.wake)
        autocommit.wake()
        owner.commits.get(timeout=20)
        assert ends(autocommit.stop)
        for thread in set(threading.enumerate()) - before:
            thread.join(20)
            assert not thread.is_alive()
        if not came_so_far:
            break
    assert line > 3


def test_an_interrupt_at_any_moment_of_a_batch_leaves_the_thread_drawing(tmp_path: Path) -> None:
    buffer = PrioritizedReplayBuffer(100, path=tmp_path / "b", commit_interval=1e9, seed=0)
    buffer.extend(**columns(0, 100))
    buffer.sample(1)  # so that the committing thread is awake
    for moment in itertools.count(1):
        batches = buffer.batches(4, prefetch=1)
        next(batches)
        came_so_far = interrupted_at(moment, lambda: next(batches), in_locks=True)  # noqa: B023
        for _ in range(3):
            assert ends(lambda: next(batches))  # noqa: B023
        assert ends(batches.close)
        if not came_so_far:
            break
    assert moment > 10
    buffer.check()
    buffer.close()
