"""Steps that errors and interrupts leave half done: the next call finishes them."""

from __future__ import annotations

import functools
import gc
import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import numpy as np
import pytest
from common import columns, numbers_of, row
from drawn import fill
from inside import commits_refused, transactions_that
from interrupted import interrupted_at
from others import Other
from stores import spoil

import diskreplay
from diskreplay import PrioritizedReplayBuffer, ReplayBuffer

PRIORITIES = np.arange(60) + 1.0


@functools.cache  # a path that is taken apart takes longer than the line that is traced
def where(code: CodeType) -> tuple[str, str]:
    return Path(code.co_filename).name, code.co_name


def interrupted_inside(function: str, line: int, call: Callable[[], object]) -> bool:
    """Interrupt a call at a line of a method of Writer or its callees; return whether it did."""
    left, inside = line, 0

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal left, inside
        is_it = where(frame.f_code) == ("writer.py", function)
        if is_it:
            inside += (event == "call") - (event == "return")
        if inside and event == "line":
            left -= 1
            if left == 0:
                raise KeyboardInterrupt
        return trace

    sys.settrace(trace)
    try:
        call()
    except KeyboardInterrupt:
        return True
    except diskreplay.StorageError:
        return False
    finally:
        sys.settrace(None)
    return False


def test_an_interrupt_while_a_refused_load_is_taken_back_loses_nothing(tmp_path: Path) -> None:
    with PrioritizedReplayBuffer(64, path=tmp_path / "saved") as saved:
        saved.extend(**columns(0, 5))
    with PrioritizedReplayBuffer(64, path=tmp_path / "b", seed=1, commit_interval=1e9) as buffer:
        buffer.extend(**columns(0, 60), priorities=PRIORITIES)
        buffer.flush()
        for line in itertools.count(1, 11):
            with commits_refused(buffer):
                again = interrupted_inside("restore", line, lambda: buffer.load(tmp_path / "saved"))
            if line % 2:
                numbers_of(buffer.sample(8))
            buffer.flush()
            assert buffer.priorities(range(60)).tolist() == PRIORITIES.tolist()
            assert (buffer.max_priority, buffer.count) == (60.0, 60)
            if not again:
                break
        assert line > 50


def test_an_interrupted_clear_is_done_by_the_next_call(tmp_path: Path) -> None:
    for line in itertools.count(1):
        with PrioritizedReplayBuffer(64, commit_interval=1e9) as buffer:
            buffer.extend(**columns(0, 60), priorities=PRIORITIES)
            again = interrupted_inside("clear", line, buffer.clear)
            assert (len(buffer), buffer.max_priority) in ((60, 60.0), (0, 1.0))
            if not again:
                break
    assert line > 10


@pytest.mark.parametrize("kind", [ReplayBuffer, PrioritizedReplayBuffer])
def test_an_interrupted_close_can_be_done_again(kind: type, tmp_path: Path, long: bool) -> None:
    gc.freeze()  # what is there before, or most of the time would be spent on looking at it
    for line in itertools.count(1, 1 if long else 17):
        buffer: Any = kind(64, path=tmp_path / f"{line}", commit_interval=1e9)
        buffer.extend(**columns(0, 5))
        again = interrupted_at(line, buffer.close)
        buffer.close()
        with diskreplay.open(tmp_path / f"{line}") as opened:  # while the closed one still exists
            assert len(opened) == 5
        del buffer, opened
        gc.collect()
        if not again:
            break
    gc.unfreeze()
    assert line > 200


def test_undo_keeps_what_was_left_out(tmp_path: Path) -> None:
    def drawn(refused: bool) -> Any:
        path = tmp_path / f"{refused}"
        with PrioritizedReplayBuffer(100, path=path, seed=1) as buffer:
            buffer.extend(**columns(0, 50))
        spoil(path, [3, 7, 20])
        buffer = diskreplay.open(path, on_damage="skip", window_bytes=0, commit_interval=0)
        for _ in range(5):
            buffer.sample(20)
        if refused:
            with commits_refused(buffer), pytest.raises(diskreplay.StorageError):
                buffer.push(**row(50))
        with buffer:
            return buffer.total_mass, [buffer.draw(20).indices.tolist() for _ in range(4)]

    assert drawn(True) == drawn(False)


def test_undo_takes_no_draw_of_a_shared_uniform_buffer_back(tmp_path: Path) -> None:
    path = tmp_path / "b"
    with ReplayBuffer(100, path=path, access="shared", seed=1, commit_interval=0) as buffer:
        buffer.extend(**columns(0, 50))
        found = [buffer.draw(4).indices.tolist() for _ in range(3)]
        with commits_refused(buffer), pytest.raises(diskreplay.StorageError):
            buffer.push(**row(50))
        found += [buffer.draw(4).indices.tolist() for _ in range(3)]
    assert len({*map(tuple, found)}) == 6


def test_a_new_seed_outlives_a_commit_that_is_refused(tmp_path: Path) -> None:
    with ReplayBuffer(100, path=tmp_path / "b", seed=1) as buffer:
        buffer.extend(**columns(0, 50))
    with diskreplay.open(tmp_path / "b", seed=7) as buffer:
        wanted = buffer.draw(8).indices.tolist()
    with diskreplay.open(tmp_path / "b", seed=7, commit_interval=0) as buffer:
        with commits_refused(buffer), pytest.raises(diskreplay.StorageError):
            buffer.push(**row(50))
        assert buffer.draw(8).indices.tolist() == wanted


def test_the_rows_of_a_run_are_right_after_a_commit_whose_end_was_interrupted(
    tmp_path: Path,
) -> None:
    def interrupted(real: Any) -> Iterator[Any]:
        with real() as txn:
            yield txn
        raise KeyboardInterrupt

    with ReplayBuffer(64, path=tmp_path / "b", commit_interval=0) as buffer:
        buffer.extend(**columns(0, 10))
        with transactions_that(buffer, interrupted), pytest.raises(KeyboardInterrupt):
            buffer.push(**row(10))
        buffer.push(**row(11))
        [run] = buffer.stats()["runs"]
    assert (run["first"], run["end"], run["rows"], run["live"]) == (0, 12, 12, (12, 12))


def test_a_run_whose_number_another_one_got_first_loses_no_rows(
    other: Other, tmp_path: Path
) -> None:
    with ReplayBuffer(100, path=tmp_path / "b", access="shared", commit_interval=1e9) as buffer:
        buffer.extend(**columns(0, 3))
        with commits_refused(buffer), pytest.raises(diskreplay.StorageError):
            buffer.flush()  # it had the number that the other process gets now
        other.open(kind="ReplayBuffer", capacity=100, access="shared", commit_interval=0)
        other.extend(50, 20)
        buffer.flush()
        assert sorted(numbers_of(buffer.get(range(buffer.count)))) == [0, 1, 2, *range(50, 70)]
        assert [run["rows"] for run in buffer.stats()["runs"]] == [20, 3]


def test_a_damaged_batch_counts_as_a_draw_after_reopening(tmp_path: Path) -> None:
    with ReplayBuffer(100, path=tmp_path / "b", seed=1, window_bytes=0) as buffer:
        buffer.extend(**columns(0, 100))
    spoil(tmp_path / "b", [*range(100)])
    with diskreplay.open(tmp_path / "b", commit_interval=1e9) as buffer:
        for _ in range(3):
            with pytest.raises(diskreplay.DamageError):
                buffer.sample(4)
        wanted = buffer.draw(4).indices.tolist()
    with ReplayBuffer(100, seed=1) as twin:
        twin.extend(**columns(0, 100))
        assert [twin.draw(4).indices.tolist() for _ in range(4)][3] == wanted
    with diskreplay.open(tmp_path / "b") as buffer, ReplayBuffer(100, seed=1) as twin:
        twin.extend(**columns(0, 100))
        assert [twin.draw(4).indices.tolist() for _ in range(5)][4] == (
            buffer.draw(4).indices.tolist()
        )


@pytest.mark.parametrize("who", ["itself", "another process"])
def test_clear_drops_the_batches_that_a_shared_buffer_drew_ahead(
    who: str, other: Other, tmp_path: Path
) -> None:
    with ReplayBuffer(
        100, path=tmp_path / "b", access="shared", seed=1, commit_interval=0
    ) as buffer:
        buffer.extend(**columns(0, 50))
        with buffer.batches(4, prefetch=3) as batches:
            next(batches)
            fill(batches)
            if who == "itself":
                buffer.clear()
            else:
                other.open(kind="ReplayBuffer", capacity=100, access="shared", commit_interval=0)
                other.clear()
            buffer.extend(**columns(70, 20))
            buffer.refresh()
            assert min(min(numbers_of(next(batches))) for _ in range(5)) >= 70


def test_load_takes_the_largest_priority(tmp_path: Path) -> None:
    with PrioritizedReplayBuffer(64, path=tmp_path / "saved") as saved:
        saved.extend(**columns(0, 5), priorities=[9.0, 1.0, 1.0, 1.0, 1.0])
        saved.update_priorities([0], [2.0])
    with PrioritizedReplayBuffer(64) as buffer:
        buffer.load(tmp_path / "saved")
        assert buffer.max_priority == 9.0
