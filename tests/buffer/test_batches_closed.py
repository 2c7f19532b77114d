"""What is left when an iterator of batches is closed or dropped, beside the draws of others."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from drawn import KINDS, SIZE, as_bytes, expected, fill, filled

import diskreplay
from diskreplay import PrioritizedReplayBuffer


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("interval", [0, 1e9])
def test_what_others_drew_counts_and_what_waited_does_not(
    kind: type, interval: float, tmp_path: Path
) -> None:
    with filled(kind, tmp_path / "b", commit_interval=interval) as buffer:
        batches = buffer.batches(SIZE, prefetch=3)
        next(batches)
        fill(batches)
        for _ in range(5):
            buffer.sample(SIZE)
        buffer.flush()
        batches.close()
    # One was given, three waited, five were drawn by others.
    with diskreplay.open(tmp_path / "b") as again:
        assert as_bytes(again.sample(SIZE)) == expected(kind, 7)[6]


def test_an_iterator_can_be_dropped_by_a_thread_that_its_own_waits_for() -> None:
    drawing, dropped = threading.Event(), threading.Event()

    def hold_up(frame: Any, event: str, arg: Any) -> None:
        if frame.f_code.co_name == "_draw_one":  # in the middle of a draw, with the buffer's lock
            drawing.set()
            dropped.wait(60)

    buffer = filled(PrioritizedReplayBuffer)
    box = [buffer.batches(SIZE, prefetch=3)]
    threading.settrace(hold_up)
    try:
        box[0]._start(box[0]._drawn_ahead)
    finally:
        threading.settrace(None)  # type: ignore[arg-type]
    assert drawing.wait(30)
    dropper = threading.Thread(target=box.clear)
    dropper.start()
    dropper.join(20)
    came_back = not dropper.is_alive()
    dropped.set()
    dropper.join()
    assert came_back
    assert as_bytes(buffer.sample(SIZE)) == expected(PrioritizedReplayBuffer, 1)[0]


def test_a_shared_buffer_counts_the_batches_that_were_given(tmp_path: Path) -> None:
    with filled(PrioritizedReplayBuffer, tmp_path / "b", access="shared") as buffer:
        buffer.flush()
        for flush in (lambda: None, buffer.flush):
            before = buffer.frame
            with buffer.batches(SIZE, prefetch=3) as batches:
                next(batches)
                fill(batches)
                flush()
                assert buffer.frame == before + 1
            assert buffer.frame == before + 1
        buffer.flush()
        assert buffer.frame == 2
    assert diskreplay.open(tmp_path / "b").frame == 2


@pytest.mark.parametrize("what", ["buffer", "batches", "batches that never began"])
def test_closing_waits_for_the_end_of_the_thread_that_draws(what: str) -> None:
    for _ in range(10):  # one that nobody waits for may be gone by chance
        with filled(PrioritizedReplayBuffer) as buffer:
            batches = buffer.batches(SIZE, prefetch=3)
            queue = batches._drawn_ahead
            if what != "batches that never began":
                next(batches)
            (buffer if what == "buffer" else batches).close()
            assert queue.thread is None or not queue.thread.is_alive()
            assert (queue.thread is None) == (what == "batches that never began")
