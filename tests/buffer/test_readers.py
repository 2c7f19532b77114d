"""Batches read by processes are those of `sample`, drawn exactly `prefetch` batches before."""

from __future__ import annotations

import itertools
import os
import signal
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from common import row
from drawn import KINDS, SIZE
from reading import (
    CAPACITY,
    WIDE,
    Twin,
    content,
    drawn,
    functions_of,
    pids_of,
    rows,
    stored,
    wait_for_reads,
    wait_until,
)

import diskreplay
from diskreplay import PrioritizedReplayBuffer, ReplayBuffer


@pytest.mark.parametrize("width", [0, WIDE])
@pytest.mark.parametrize("kind", KINDS)
def test_the_batches_are_those_of_sample(
    kind: type, width: int, tmp_path: Path, long: bool
) -> None:
    forms = [(1, 1, False), (2, 3, False), (1, 3, True), (2, 1, True)]
    if not long:  # each form of each kind, and of each width
        forms = forms[::3] if (kind is ReplayBuffer) == (width == 0) else forms[1:3]
    wanted = drawn(kind, 3 * len(forms) + 1, width)
    with stored(kind, tmp_path / "b", width) as buffer:
        found = []
        for readers, prefetch, reuse in forms:
            with buffer.batches(SIZE, prefetch, readers, reuse=reuse) as batches:
                for _, batch in zip(range(3), batches, strict=False):
                    found.append(content(batch))
                    assert buffer.stats()["memory_bytes"] >= batches._read_ahead.nbytes
                assert batches._read_ahead._slots.nbytes >= (prefetch + 1) * len(found[-1])
        assert [*found, content(buffer.sample(SIZE))] == wanted


@pytest.mark.parametrize("reuse", [False, True])
def test_each_batch_is_prepared_once_in_order_on_the_thread_that_asks(
    reuse: bool, tmp_path: Path
) -> None:
    seen: list[bytes] = []

    def prepare(batch: Any) -> Any:
        assert threading.current_thread() is threading.main_thread()
        seen.append(content(batch))
        return None if len(seen) == 2 else (batch.states.sum(), content(batch))

    wanted = drawn(ReplayBuffer, 10)
    with stored(ReplayBuffer, tmp_path / "b") as buffer:
        with buffer.batches(SIZE, 3, 2, reuse=reuse, prepare=prepare) as batches:
            found = []
            for _ in range(5):
                found.append(next(batches))
                wait_for_reads(batches)
            assert found[1] is None
            assert [content for _, content in (found[0], *found[2:])] == [wanted[0], *wanted[2:5]]
            next(batches)
        assert seen == wanted[: len(seen)]
        assert len(seen) > 6  # some before they were requested


def test_the_error_of_preparing_a_batch_comes_where_the_batch_would(tmp_path: Path) -> None:
    wanted = drawn(ReplayBuffer, 5)
    is_refused = True

    def prepare(batch: Any) -> Any:
        if is_refused and content(batch) == wanted[2]:
            raise RuntimeError("the device is full")
        return batch

    with stored(ReplayBuffer, tmp_path / "b") as buffer:
        for prefetch, readers in ((3, 1), (3, 0), (0, 0)):
            is_refused = True
            buffer._guard.replica.draws = 0
            with buffer.batches(SIZE, prefetch, readers, prepare=prepare) as batches:
                found = [content(next(batches))]
                if readers:
                    wait_for_reads(batches)
                found.append(content(next(batches)))
                if readers:
                    wait_for_reads(batches)
                with pytest.raises(RuntimeError, match="the device is full"):
                    next(batches)
                is_refused = False
                if prefetch:  # a batch that was not given does not count
                    found.append(content(next(batches)))
                    assert found == wanted[:3]
                else:
                    assert [*found, content(next(batches))] == [*wanted[:2], wanted[3]]


@pytest.mark.parametrize(("readers", "reuse"), [(0, False), (0, True), (1, False), (1, True)])
def test_an_interrupt_of_preparing_loses_no_batch(
    readers: int, reuse: bool, tmp_path: Path
) -> None:
    calls = itertools.count()

    def prepare(batch: Any) -> bytes:
        if next(calls) % 3 == 1:  # also those that are prepared in the request of an earlier one
            raise KeyboardInterrupt
        return content(batch)

    found = []
    with (
        stored(ReplayBuffer, tmp_path / "b") as buffer,
        buffer.batches(SIZE, 3, readers, reuse=reuse, prepare=prepare) as batches,
    ):
        while len(found) < 12:
            if readers and found:
                wait_for_reads(batches)
            try:
                found.append(next(batches))
            except KeyboardInterrupt:
                assert buffer._guard.replica.draws == len(found)
    assert found == drawn(ReplayBuffer, 12)


@pytest.mark.parametrize("interval", [0, 0.001, 1e9])
@pytest.mark.parametrize("kind", KINDS)
def test_pushes_and_updates_take_effect_exactly_so_many_batches_later(
    kind: Any, interval: float, tmp_path: Path
) -> None:
    """The ring goes round several times, and commits come while batches are read."""
    rng = np.random.default_rng(7)
    width = WIDE if interval else 0
    with (
        stored(kind, tmp_path / "b", width, commit_interval=interval) as buffer,
        stored(kind, None, width, window_bytes=1 << 30) as other,
        buffer.batches(SIZE, 2, 2, reuse=True) as batches,
    ):
        twin = Twin(other, 2)
        for step in range(120):
            batch = next(batches)
            assert content(batch) == next(twin), step
            ids = batch.indices.copy()
            n, count = int(rng.integers(0, 9)), buffer.count
            for one in (buffer, other):
                if n:
                    one.extend(**rows(count, n, width))
                if kind is PrioritizedReplayBuffer:
                    one.update_priorities(ids, np.abs(np.sin(ids + step)) * 3)
            if step % 7 == 0:
                buffer.flush()
        assert buffer.count > 3 * CAPACITY
        assert buffer.stats().get("stale_updates") == other.stats().get("stale_updates")


def test_a_commit_waits_for_the_reads_of_rows_that_it_evicts(tmp_path: Path) -> None:
    wanted = drawn(PrioritizedReplayBuffer, 3)
    with (
        stored(PrioritizedReplayBuffer, tmp_path / "b") as buffer,
        buffer.batches(SIZE, 1, 1, reuse=True) as batches,
    ):
        found = [content(next(batches))]
        wait_for_reads(batches)
        [reader] = pids_of(batches)
        os.kill(reader, signal.SIGSTOP)
        found.append(content(next(batches)))  # and asks the stopped reader for the third
        committed = threading.Event()

        def commit() -> None:
            buffer.extend(**rows(CAPACITY, CAPACITY))
            buffer.flush()
            committed.set()

        writer = threading.Thread(target=commit)
        writer.start()
        wait_until(lambda: committed.is_set() or "finish_reads" in functions_of(writer))
        assert not committed.is_set()
        os.kill(reader, signal.SIGCONT)
        writer.join()
        assert [*found, content(next(batches))] == wanted
        assert next(batches).indices.min() >= CAPACITY


def test_rows_that_are_not_committed_are_in_the_batches(tmp_path: Path) -> None:
    """Also those of a store without a schema, for which no reader is started."""
    with (
        PrioritizedReplayBuffer(
            CAPACITY, path=tmp_path / "b", seed=3, commit_interval=1e9
        ) as buffer,
        PrioritizedReplayBuffer(CAPACITY, seed=3, commit_interval=1e9) as other,
        buffer.batches(SIZE, 2, 1) as batches,
    ):
        with pytest.raises(diskreplay.SampleError, match=r"cannot draw 16 .* holds 0"):
            next(batches)
        twin = Twin(other, 2)
        for step in range(40):
            for one in (buffer, other):
                if step == 0:
                    one.extend(**rows(0, 20))
                one.push(**row(20 + step), x=step)
            assert content(next(batches)) == next(twin)
            if step == 10:
                assert pids_of(batches) == []
                buffer.flush()
            if step == 20:
                assert len(pids_of(batches)) == 1
                buffer.flush()


def test_with_reuse_the_arrays_change_when_the_next_batch_is_requested(tmp_path: Path) -> None:
    with stored(PrioritizedReplayBuffer, tmp_path / "b") as buffer:
        for readers in (0, 2):
            addresses = []
            with buffer.batches(SIZE, 2, readers, reuse=True) as batches:
                for _ in range(12):
                    batch = next(batches)
                    before = content(batch)
                    if readers:
                        wait_for_reads(batches)
                    buffer.sample(SIZE)
                    buffer.extend(**rows(buffer.count, CAPACITY // 3))
                    buffer.flush()
                    assert content(batch) == before
                    addresses.append(batch.states.ctypes.data)
                before = content(batch)
            assert content(batch) == before
            assert len(set(addresses)) <= 3 + 1  # of prefetch=2, and one that was drawn here


def test_without_reuse_a_batch_never_changes(tmp_path: Path) -> None:
    wanted = drawn(ReplayBuffer, 12)
    with stored(ReplayBuffer, tmp_path / "b") as buffer:
        with buffer.batches(SIZE, 2, 2) as batches:
            kept = [next(batches) for _ in range(12)]
        assert [content(batch) for batch in kept] == wanted
        kept[0].states[:] = 7  # they are the user's own
        assert [content(batch) for batch in kept[1:]] == wanted[1:]
        for a, b in itertools.pairwise(kept):
            assert not np.shares_memory(a.states, b.states)


@pytest.mark.parametrize("kind", KINDS)
def test_other_calls_may_come_in_between(kind: Any, tmp_path: Path) -> None:
    with stored(kind, tmp_path / "saved", seed=8) as saved:
        saved.sample(3)
    with (
        stored(kind, tmp_path / "b") as buffer,
        stored(kind, None, window_bytes=1 << 30) as other,
        buffer.batches(SIZE, 2, 2) as batches,
    ):
        twin = Twin(other, 2)

        def both(call: str, *arguments: Any) -> None:
            for one in (buffer, other):
                getattr(one, call)(*arguments)

        def go_on(n: int) -> None:
            for _ in range(n):
                assert content(next(batches)) == next(twin)

        go_on(3)
        both("flush")
        buffer.refresh()
        buffer.save(tmp_path / "copy")
        go_on(3)
        twin.drop()
        both("load", tmp_path / "saved")
        go_on(3)
        twin.drop()
        both("clear")
        with pytest.raises(diskreplay.SampleError):
            next(batches)
        for one in (buffer, other):
            one.extend(**rows(one.count, 50))
        go_on(3)
        buffer.flush()
        go_on(3)
        # The batch of a draw that another call was given is dropped, and the rest stay.
        assert content(buffer.sample(SIZE)) == next(twin)
        go_on(4)
    with diskreplay.open(tmp_path / "copy") as copy:
        copy.check()


def test_a_batch_of_more_than_there_is_is_an_error_until_there_is_enough(tmp_path: Path) -> None:
    with (
        ReplayBuffer(CAPACITY, seed=3, path=tmp_path / "b", commit_interval=0) as buffer,
        buffer.batches(SIZE, 3, 1) as batches,
    ):
        for n in range(3):
            with pytest.raises(diskreplay.SampleError, match=f"cannot draw 16 .* holds {5 * n}"):
                next(batches)
            buffer.extend(**rows(5 * n, 5))
        buffer.extend(**rows(15, CAPACITY - 15))
        assert [content(next(batches)) for _ in range(6)] == drawn(ReplayBuffer, 6)


@pytest.mark.parametrize("reuse", [False, True])
def test_several_iterators_are_given_the_draws_in_their_order(reuse: bool, tmp_path: Path) -> None:
    wanted = drawn(PrioritizedReplayBuffer, 9)
    with (
        stored(PrioritizedReplayBuffer, tmp_path / "b") as buffer,
        buffer.batches(SIZE, 2, 1, reuse=reuse) as first,
        buffer.batches(SIZE, 3, 1, reuse=reuse) as second,
        buffer.batches(SIZE, 2) as third,
    ):
        order = (first, second, third, second, first, first, third, second, second)
        assert [content(next(batches)) for batches in order] == wanted


def test_readers_are_refused_without_prefetch_and_where_no_number_is_given() -> None:
    with stored(ReplayBuffer, None) as buffer:
        with pytest.raises(
            diskreplay.ArgumentError, match="readers=2 needs prefetch of at least 1"
        ):
            buffer.batches(SIZE, readers=2)
        for wrong in (-1, 1.5, "2"):
            with pytest.raises(diskreplay.ArgumentError, match="readers"):
                buffer.batches(SIZE, 1, wrong)
