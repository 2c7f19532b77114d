"""Shared buffers whose calls are refused or interrupted, or that others overtake."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from common import columns, numbers_of, row
from inside import commits_refused, flush_interrupted, replica_of, store_of, transactions_that
from interrupted import COMPUTING, interrupted_at
from others import Other, priorities, shared
from reading import wait_until

import diskreplay
from diskreplay import PrioritizedReplayBuffer, ReplayBuffer


def test_the_first_commit_of_a_run_that_is_refused_changes_nothing(tmp_path: Path) -> None:
    with shared(tmp_path / "b", 60, commit_interval=0) as buffer:
        buffer.extend(**columns(0, 50))
    buffer = shared(tmp_path / "b", 60, commit_interval=0)
    before = buffer.stats()
    with commits_refused(buffer), pytest.raises(diskreplay.StorageError, match="refused"):
        buffer.sample(5)
    assert buffer.stats() == before
    buffer.sample(5)
    buffer.close()
    with diskreplay.open(tmp_path / "b") as again:
        assert isinstance(again, PrioritizedReplayBuffer)
        assert (again.frame, again.stats()["stale_updates"]) == (1, 0)


def test_what_others_clear_is_forgotten_with_its_updates(tmp_path: Path, other: Other) -> None:
    buffer = shared(tmp_path / "b")
    buffer.extend(**columns(0, 20), priorities=np.full(20, 5.0))
    buffer.flush()
    other.open(1000, access="shared")
    buffer.update_priorities([3, 4], [50.0, 60.0])
    other.clear()
    buffer.extend(**columns(20, 4))
    buffer.flush()  # without having looked at the store since
    assert priorities(buffer) == [1.0] * 4
    assert (buffer.max_priority, buffer.stats()["stale_updates"]) == (1.0, 2)
    buffer.flush()
    buffer.update_priorities([900], [1.0])
    buffer.flush()
    buffer.update_priorities([20], [1.0])
    buffer.flush()
    assert buffer.stats()["stale_updates"] == 3  # each once, however often it commits
    other.clear()
    other.extend(24, 4, [1.0] * 4)  # the same block as before, in other slots
    other.flush()
    assert priorities(buffer) == [1.0] * 4
    buffer.check()


def test_an_interrupted_commit_does_not_put_old_priorities_back(
    tmp_path: Path, other: Other
) -> None:
    buffer = shared(tmp_path / "b")
    buffer.extend(**columns(0, 5))
    buffer.flush()
    other.open(1000, access="shared")
    buffer.update_priorities([2], [5.0])
    flush_interrupted(buffer)
    other.update([2], [7.0])
    other.flush()
    buffer.flush()
    assert priorities(buffer)[2] == 7.0


def test_the_first_of_two_first_pushes_fixes_the_schema(tmp_path: Path, other: Other) -> None:
    for number, (mine, works) in enumerate([({"x": 1, "y": 2}, True), ({"x": 1}, False)]):
        buffer = ReplayBuffer(10, path=tmp_path / f"s{number}", access="shared")

        def beaten(real: Any) -> Iterator[Any]:
            with real() as txn:  # another was faster, with its fields in another order
                names = ["state", "action", "reward", "next_state", "done", "y", "x"]
                types = ["<f4", "<i8", "<f4", "<f4", "<f4", "<i8", "<i8"]
                shapes = [[3], [], [], [3], [], [], []]
                plain = [list(field) for field in zip(names, types, shapes, strict=True)]
                txn.put_meta({"schema": plain})
            with real() as txn:
                yield txn

        with transactions_that(buffer, beaten):
            if works:
                buffer.push(**row(0), **mine)
            else:
                with pytest.raises(diskreplay.SchemaError, match="y"):
                    buffer.push(**row(0), **mine)
        if works:
            buffer.flush()
            batch = buffer.get([0])
            assert (batch.x, batch.y) == (1, 2)
        assert buffer.schema is not None
        assert buffer.schema.extra_names == ("y", "x")


def test_updates_that_wait_for_a_commit_take_bounded_memory(tmp_path: Path) -> None:
    buffer = shared(tmp_path / "b", 300)
    buffer.extend(**columns(0, 300))
    buffer.flush()
    ids = np.arange(256)
    for step in range(1000):
        buffer.update_priorities(ids, np.full(256, float(step)))
    outbox = replica_of(buffer)._pending
    assert sum(update.write_ids.size for update in outbox._updates) < 20_000
    assert buffer.stats()["memory_bytes"] < 1 << 20
    buffer.flush()
    assert priorities(buffer)[:300] == [999.0] * 256 + [1.0] * 44


@pytest.mark.parametrize("what", ["clear", "update"])
@pytest.mark.parametrize("access", ["shared", "read"])
def test_an_interrupt_while_following_leaves_nothing_of_before(
    access: str, what: str, tmp_path: Path, other: Other, long: bool
) -> None:
    rng = np.random.default_rng(5)
    other.open(100, access="shared")
    other.extend(0, 64)
    other.flush()
    step, was_interrupted = 1, True
    while was_interrupted:
        buffer = diskreplay.open(tmp_path / "b", access=access, window_bytes=0)
        assert isinstance(buffer, PrioritizedReplayBuffer)
        buffer.sample(len(buffer))
        if what == "clear":
            other.clear()
        else:
            other.update(list(range(buffer.count - 20, buffer.count)), rng.random(20).tolist())
        other.extend(64, 8)
        other.flush()
        was_interrupted = interrupted_at(step, buffer.refresh, over=COMPUTING)
        assert priorities(buffer) == other.priorities()
        assert len(buffer) == other.size()
        buffer.check()
        numbers_of(buffer.sample(8))
        buffer.close()
        other.extend(72, 56)
        other.flush()
        step += 1 if long else 7
    assert step > 20


def test_an_interrupt_while_following_a_clear_leaves_no_block_of_before(
    tmp_path: Path, other: Other
) -> None:
    other.open(10_000, access="shared")
    other.extend(0, 9000)
    other.flush()
    buffer = diskreplay.open(tmp_path / "b", access="read", window_bytes=0)
    assert isinstance(buffer, PrioritizedReplayBuffer)
    for step in itertools.count(1):
        other.clear()
        other.extend(0, 5)
        other.flush()
        # Of the room of the buffer alone, as where it has noted a part of the new state.
        was_interrupted = interrupted_at(
            step, buffer.refresh, over=(*COMPUTING, "store", "sampling", "observations", "episodes")
        )
        buffer.check()
        assert len(buffer) == 5
        assert buffer.total_mass == pytest.approx(5, rel=1e-5)
        if not was_interrupted:
            break
        other.extend(0, 5000)
        other.flush()
        buffer.refresh()
    assert step > 50
    buffer.close()


def committed(buffer: Any) -> int:
    with store_of(buffer).snapshot() as snapshot:
        return int(snapshot.meta("state")["count"])


@pytest.mark.parametrize("access", ["exclusive", "shared"])
def test_an_interrupt_in_the_first_push_leaves_a_buffer_that_works(
    access: str, tmp_path: Path, long: bool
) -> None:
    PrioritizedReplayBuffer(9, path=tmp_path / "empty").close()
    line, came_so_far = 1, True
    while came_so_far:
        path = tmp_path / str(line)
        shutil.copytree(tmp_path / "empty", path)
        buffer = PrioritizedReplayBuffer(9, path=path, access=access, commit_interval=0.002)
        push = partial(buffer.push, **row(0))
        came_so_far = interrupted_at(line, push, over=COMPUTING)
        buffer.push(**row(1))
        wait_until(lambda: committed(buffer))  # by its thread, still  # noqa: B023
        buffer.close()
        with diskreplay.open(path) as found:
            assert [int(e.reward * 8) for e in found] in ([0, 1], [1])
        line += 1 if long else 13
    assert line > 60
