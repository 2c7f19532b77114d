"""Interrupts, threads and calls within calls, where processes read the rows of batches."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn import SIZE
from interrupted import COMPUTING, interrupted_at
from reading import (
    CAPACITY,
    WIDE,
    assert_sound,
    content,
    drawn,
    functions_of,
    nothing_left,
    pids_of,
    rows,
    stored,
    wait_for_reads,
    wait_until,
)

import diskreplay
from diskreplay import PrioritizedReplayBuffer, ReplayBuffer


def test_an_interrupt_at_any_line_leaves_what_is_drawn_and_counted_agreeing(
    tmp_path: Path, long: bool
) -> None:
    """The lines of the first call of an iterator, and of a call when readers are at work."""
    with (
        nothing_left(),
        stored(PrioritizedReplayBuffer, tmp_path / "b") as buffer,
        stored(PrioritizedReplayBuffer, None) as other,
    ):
        over = [*COMPUTING, "sampling"]
        wanted: list[bytes] = []

        def check(batch: Any) -> None:
            while len(wanted) < buffer.frame:
                wanted.append(content(other.sample(SIZE)))
            assert content(batch) == wanted[-1]

        line, came_so_far = 0, True
        while came_so_far:
            line += 1 if long else 97
            batches = buffer.batches(SIZE, 2, 1)
            came_so_far = interrupted_at(line, lambda: next(batches), over=over)  # noqa: B023
            check(next(batches))
            check(buffer.sample(SIZE))
            batches.close()
        assert line > 100

        batches = buffer.batches(SIZE, 2, 2, reuse=True)
        line, came_so_far, replaced = 0, True, 0
        while came_so_far:
            line += 1 if long else 2
            check(next(batches))
            wait_for_reads(batches)
            readers = list(batches._read_ahead._readers)
            for reader in readers:
                os.kill(reader._process.pid, signal.SIGSTOP)
            came_so_far = interrupted_at(line, lambda: next(batches), over=over)
            # A reader of whom nobody knows whether it was asked may not write into the slot.
            under_way = batches._read_ahead._under_way.values()
            unsure = [ahead.reader for ahead in under_way if not ahead.is_sent]
            check(next(batches))
            assert not [reader for reader in unsure if reader._process.returncode is None]
            replaced += len(unsure)
            for reader in readers:
                if reader._process.returncode is None:
                    os.kill(reader._process.pid, signal.SIGCONT)
            check(buffer.sample(SIZE))
        batches.close()
        assert line > 30
        assert replaced > 0


@pytest.mark.parametrize("what", ["batches", "buffer"])
def test_closing_beside_a_thread_that_waits_for_a_batch(what: str, tmp_path: Path) -> None:
    with nothing_left():
        buffer = stored(ReplayBuffer, tmp_path / "b")
        batches = buffer.batches(SIZE, 2, 1)
        found, errors = [content(next(batches))], []
        wait_for_reads(batches)
        [reader] = pids_of(batches)
        os.kill(reader, signal.SIGSTOP)

        def use() -> None:
            try:
                while True:
                    found.append(content(next(batches)))
            except diskreplay.ClosedError as error:
                errors.append(error)

        users = [threading.Thread(target=use) for _ in range(2)]
        for user in users:
            user.start()
        wait_until(lambda: any("wait_for_reply" in functions_of(user) for user in users))
        closer = threading.Thread(target=(batches if what == "batches" else buffer).close)
        closer.start()
        wait_until(lambda: "close" in functions_of(closer))
        os.kill(reader, signal.SIGKILL)
        for thread in (closer, *users):
            thread.join()
        assert len(errors) == 2
        wanted = drawn(ReplayBuffer, len(found) + 1)
        assert sorted(found) == sorted(wanted[:-1])
        if what == "batches":
            assert content(buffer.sample(SIZE)) == wanted[-1]
        buffer.close()


def test_batches_that_are_dropped_while_a_commit_waits_for_them(tmp_path: Path) -> None:
    with nothing_left(), stored(ReplayBuffer, tmp_path / "b") as buffer:
        box = [buffer.batches(SIZE, 1, 1)]
        next(box[0])
        wait_for_reads(box[0])
        os.kill(pids_of(box[0])[0], signal.SIGSTOP)
        next(box[0])

        def commit() -> None:
            buffer.extend(**rows(CAPACITY, CAPACITY))
            buffer.flush()

        writer = threading.Thread(target=commit)
        writer.start()
        wait_until(lambda: "wait_for_reply" in functions_of(writer))
        box.clear()
        writer.join()
        assert buffer.sample(SIZE).indices.min() >= CAPACITY


def test_threads_that_draw_push_and_update(tmp_path: Path) -> None:
    errors: list[BaseException] = []
    lock = threading.Lock()
    with (
        stored(PrioritizedReplayBuffer, tmp_path / "b", commit_interval=0.001) as buffer,
        buffer.batches(SIZE, 3, 2) as batches,
    ):

        def draw() -> None:
            batch = next(batches)
            assert_sound(batch, 0)
            buffer.update_priorities(batch.indices, np.abs(np.sin(batch.indices)))

        def push() -> None:
            with lock:  # the number of a transition is its write id, so pushes take turns
                buffer.extend(**rows(buffer.count, 5))

        def repeat(call: Any) -> None:
            try:
                for _ in range(60):
                    call()
            except BaseException as error:
                errors.append(error)

        threads = [
            threading.Thread(target=repeat, args=[call]) for call in (draw, draw, push, push)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        assert buffer.frame == 120


def test_a_call_within_a_call_is_refused(tmp_path: Path) -> None:
    """As in a signal handler; or in `prepare`, which must not use the buffer."""
    refused = []

    def prepare(batch: Any) -> Any:
        for call in (lambda: next(batches), batches.close, lambda: buffer.sample(3)):
            with pytest.raises(diskreplay.StorageError, match="in use by the call") as error:
                call()
            refused.append(error)
        return batch

    with (
        stored(ReplayBuffer, tmp_path / "b") as buffer,
        buffer.batches(SIZE, 1, 1, prepare=prepare) as batches,
    ):
        assert content(next(batches)) == drawn(ReplayBuffer, 1)[0]
        assert len(refused) >= 3


def test_a_batch_that_was_dropped_does_not_get_into_a_later_one(tmp_path: Path) -> None:
    """The readers are in the middle of reading it when its slot is needed again."""
    n = 60
    with (
        stored(ReplayBuffer, tmp_path / "b", WIDE) as buffer,
        buffer.batches(n, 3, 2, reuse=True) as batches,
    ):
        for _ in range(12):
            assert_sound(next(batches), WIDE)
            buffer.clear()
            buffer.extend(**rows(buffer.count, n, WIDE))  # which this process copies itself
            for _ in range(3):
                assert_sound(next(batches), WIDE)
            buffer.flush()
