"""Several processes that write to one store at once, with access="shared"."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from common import columns, numbers_of, row
from inside import flush_interrupted
from others import Other, priorities, shared
from refused import writes_refused
from stores import stream_of

import diskreplay
from diskreplay import PrioritizedReplayBuffer, ReplayBuffer


def test_a_push_is_there_for_all_at_its_commit(tmp_path: Path, other: Other) -> None:
    buffer = shared(tmp_path / "b")
    assert buffer.push(**row(0)) == -1
    assert buffer.extend(**columns(1, 4)).tolist() == [-1] * 4
    assert len(buffer) == 0
    assert other.open(1000, access="shared") == 0
    buffer.flush()
    assert len(buffer) == other.size() == 5
    other.extend(5, 3)
    assert len(buffer) == 5
    other.flush()
    buffer.refresh()
    assert [int(e.reward * 8) for e in buffer] == list(range(8))
    assert numbers_of(buffer.get(np.arange(8))).tolist() == list(range(8))
    assert set(numbers_of(buffer.sample(8)).tolist()) == set(range(8))


def test_priorities_merge_slot_by_slot_and_the_last_committed_wins(
    tmp_path: Path, other: Other
) -> None:
    buffer = shared(tmp_path / "b")
    buffer.extend(**columns(0, 6), priorities=[1, 1, 1, 1, 1, 1])
    buffer.flush()
    other.open(1000, access="shared")
    assert buffer.update_priorities([0, 1, 2], [10, 11, 12]) == 3
    assert other.update([2, 3, 4], [22, 23, 24]) == 3
    other.flush()
    buffer.refresh()
    assert priorities(buffer) == [10, 11, 12, 23, 24, 1]  # one's own at once
    assert other.priorities() == [1, 1, 22, 23, 24, 1]
    buffer.flush()
    assert other.priorities() == priorities(buffer) == [10, 11, 12, 23, 24, 1]
    assert other.max_priority() == buffer.max_priority == 24
    other.update([1, 1], [5, 31])  # the last of duplicates
    other.flush()
    assert priorities(buffer) == [10, 31, 12, 23, 24, 1]
    buffer.extend(**columns(6, 1))  # gets the largest so far, as of the commit
    other.update([5], [50])
    other.flush()
    buffer.flush()
    assert priorities(buffer) == [10, 31, 12, 23, 24, 50, 50]
    buffer.check()


def test_updates_of_what_others_evict_are_dropped_and_counted(tmp_path: Path, other: Other) -> None:
    buffer = shared(tmp_path / "b", capacity=10)
    buffer.extend(**columns(0, 10), priorities=np.arange(10) + 1)
    buffer.flush()
    other.open(10, access="shared")
    assert buffer.update_priorities([0, 1, 9, 10], [90, 91, 99, 1]) == 3  # 10 is still to come
    assert buffer.stats()["stale_updates"] == 1
    other.extend(10, 2)  # evicts 0 and 1
    other.flush()
    buffer.flush()
    assert buffer.stats()["stale_updates"] == 3
    assert priorities(buffer) == [*range(3, 10), 99, 10, 10]
    buffer.check()


def test_a_buffer_without_transitions_has_statistics(tmp_path: Path) -> None:
    buffer = shared(tmp_path / "b")
    before = buffer.stats()["memory_bytes"]
    buffer.extend(**columns(0, 1))
    assert 0 < before < buffer.stats()["memory_bytes"]


def test_an_update_of_the_oldest_is_committed_and_one_of_what_it_evicts_is_not(
    tmp_path: Path,
) -> None:
    buffer = shared(tmp_path / "b", capacity=10)
    buffer.extend(**columns(0, 10), priorities=np.arange(10) + 1)
    buffer.flush()
    buffer.update_priorities([4, 5], [40, 50])
    buffer.extend(**columns(10, 5), priorities=[2] * 5)  # evicts 0 to 4 at the commit
    buffer.flush()
    assert buffer.stats()["stale_updates"] == 1
    assert priorities(buffer) == [50, *range(7, 11), *[2] * 5]
    buffer.close()
    with diskreplay.open(tmp_path / "b") as again:
        again.check()
        assert again.priorities(np.arange(5, 15)).tolist() == [50, *range(7, 11), *[2] * 5]


@pytest.mark.parametrize("n", [1, 20_000])  # so many are kept as one
def test_the_largest_priority_is_that_of_any_update_that_waited(
    n: int, tmp_path: Path, other: Other
) -> None:
    buffer = shared(tmp_path / "b")
    buffer.extend(**columns(0, 3), priorities=[1, 1, 1])
    buffer.flush()
    buffer.update_priorities([0] * n, [9] * n)
    buffer.update_priorities([0] * n, [3] * n)
    buffer.update_priorities([1] * n, [2] * n)
    assert buffer.max_priority == 9
    buffer.flush()
    assert buffer.max_priority == 9
    other.open(1000, access="shared")
    other.extend(3, 1)
    other.flush()
    assert priorities(buffer) == [3, 2, 1, 9]


def test_draws_of_all_processes_advance_beta(tmp_path: Path, other: Other) -> None:
    buffer = shared(tmp_path / "b", beta_frames=100)
    buffer.extend(**columns(0, 50))
    buffer.flush()
    other.open(1000, access="shared", beta_frames=100)
    for _ in range(7):
        buffer.sample(5)
        other.sample(5)
    assert buffer.frame == 7
    other.flush()
    assert buffer.frame == 14
    buffer.flush()
    buffer.flush()
    assert (buffer.frame, other.frame()) == (14, 14)
    buffer.close()
    other.close()
    with diskreplay.open(tmp_path / "b") as alone:
        assert isinstance(alone, PrioritizedReplayBuffer)
        assert alone.frame == 14


def test_a_commit_whose_end_was_interrupted_is_not_done_twice(tmp_path: Path) -> None:
    buffer = shared(tmp_path / "b")
    buffer.extend(**columns(0, 5))
    flush_interrupted(buffer)
    buffer.push(**row(5))
    buffer.sample(2)
    assert buffer.frame == 1
    flush_interrupted(buffer)
    buffer.extend(**columns(6, 4))
    assert buffer.frame == 1
    buffer.flush()
    assert [int(e.reward * 8) for e in buffer] == list(range(10))
    assert (buffer.frame, buffer.stats()["runs"][0]["rows"]) == (1, 10)
    buffer.check()


@pytest.mark.parametrize("kind", [ReplayBuffer, PrioritizedReplayBuffer])
def test_a_commit_that_fails_keeps_the_rows(kind: Any, tmp_path: Path) -> None:
    buffer = kind(5000, path=tmp_path / "b", access="shared", commit_interval=1e9)
    buffer.extend(**columns(0, 100))
    buffer.flush()
    buffer.extend(**columns(100, 3000))
    if kind is PrioritizedReplayBuffer:
        buffer.update_priorities([3], [9.0])
    for _ in range(2):
        with writes_refused(), pytest.raises(diskreplay.StorageError):
            buffer.flush()
        assert [int(e.reward * 8) for e in buffer] == list(range(100))
        buffer.check()
    buffer.flush()
    assert [int(e.reward * 8) for e in buffer] == list(range(3100))
    if kind is PrioritizedReplayBuffer:
        assert priorities(buffer)[:5] == [1, 1, 1, 9, 1]
    buffer.check()


def test_an_extend_larger_than_the_outbox_is_one_commit(tmp_path: Path, other: Other) -> None:
    buffer = shared(tmp_path / "b", 70_000)
    buffer.push(**row(0))
    buffer.extend(**columns(1, 60_000), priorities=np.arange(60_000) % 7)
    assert other.open(70_000, access="shared") == 60_001
    assert other.extend(60_001, 65_000) == 65_000
    assert [int(e.reward * 8) for e in buffer] == list(range(55_001, 125_001))
    assert priorities(buffer)[:3] == [55_000 % 7, 55_001 % 7, 55_002 % 7]
    buffer.check()


def test_clear_removes_what_all_have_committed(tmp_path: Path, other: Other) -> None:
    buffer = shared(tmp_path / "b", 100)
    buffer.extend(**columns(0, 40), priorities=np.full(40, 7.0))
    buffer.flush()
    other.open(100, access="shared")
    other.extend(40, 10)
    other.update([3], [50.0])
    buffer.push(**row(50))
    buffer.clear()
    assert (len(buffer), other.size(), buffer.count, buffer.max_priority) == (0, 0, 41, 1.0)
    other.flush()
    assert (len(buffer), buffer.count) == (10, 51)
    assert [int(e.reward * 8) for e in buffer] == list(range(40, 50))
    assert priorities(buffer) == [1.0] * 10
    buffer.check()


def test_the_schema_is_that_of_the_first_push_of_any(tmp_path: Path, other: Other) -> None:
    buffer = shared(tmp_path / "b")
    other.open(1000, access="shared")
    other.extend(0, 1)  # not committed, but its schema is
    assert buffer.schema is not None
    with pytest.raises(diskreplay.SchemaError, match="state"):
        buffer.push([0.0] * 7, 0, 0.0, [0.0] * 7, False)
    buffer.push(**row(1))
    buffer.flush()
    assert len(buffer) == 1


@pytest.mark.parametrize(
    ("mine", "yours", "works"),
    [
        ("shared", "shared", True),
        ("shared", "read", True),
        ("shared", "exclusive", False),
        ("exclusive", "shared", False),
    ],
)
def test_who_may_write_beside_whom(
    mine: str, yours: str, works: bool, tmp_path: Path, other: Other
) -> None:
    buffer = PrioritizedReplayBuffer(10, path=tmp_path / "b", access=mine)
    if works:
        other.open(10, access=yours)
        return
    ways_out = {"shared": "write beside it with access='shared'", "exclusive": "access='read'"}
    with pytest.raises(RuntimeError, match=rf"LockedError: .*held by pid .*{ways_out[mine]}"):
        other.open(10, access=yours)
    buffer.close()
    other.open(10, access=yours)


def test_what_shared_does_not_do(tmp_path: Path) -> None:
    buffer = shared(tmp_path / "b")
    buffer.save(tmp_path / "saved")
    with pytest.raises(diskreplay.ReadOnlyError, match="access='exclusive'"):
        buffer.load(tmp_path / "saved")


def test_an_exclusive_run_goes_on_after_shared_ones(tmp_path: Path, other: Other) -> None:
    with PrioritizedReplayBuffer(100, path=tmp_path / "b", seed=5) as alone:
        alone.extend(**columns(0, 20))
        state = stream_of(alone)
    other.open(100, access="shared")
    other.extend(20, 5)
    other.sample(3)
    other.close()
    with diskreplay.open(tmp_path / "b") as alone:
        assert stream_of(alone) == state  # shared has its own
        assert alone.push(**row(25)) == 25
        assert [int(e.reward * 8) for e in alone] == list(range(26))


@pytest.mark.parametrize("kind", [ReplayBuffer, PrioritizedReplayBuffer])
def test_a_thread_commits_and_close_does(kind: Callable[..., Any], tmp_path: Path) -> None:
    buffer = kind(100, path=tmp_path / "b", access="shared", commit_interval=0.01)
    buffer.extend(**columns(0, 7))
    while len(buffer) == 0:
        pass
    assert len(buffer) == 7
    buffer.push(**row(7))
    buffer.close()
    with diskreplay.open(tmp_path / "b", access="read") as reader:
        assert numbers_of(reader.get(np.arange(8))).tolist() == list(range(8))


def test_ones_own_update_is_forgotten_when_its_transition_is_evicted(tmp_path: Path) -> None:
    buffer = shared(tmp_path / "b", 7)
    buffer.extend(**columns(0, 7))
    buffer.flush()
    buffer.refresh()
    buffer.update_priorities([2], [0.0])
    buffer.extend(**columns(7, 30))  # the block is as it was before the update
    assert priorities(buffer) == [1.0] * 7
    buffer.check()


def test_priorities_of_rows_that_go_round_the_outbox_are_theirs(tmp_path: Path) -> None:
    buffer = shared(tmp_path / "b", capacity=100)
    for first in range(0, 350, 35):
        numbers = np.arange(first, first + 35)
        if first % 2:
            buffer.extend(**columns(first, 35), priorities=numbers % 7 + 1)
        else:
            for i in numbers:
                buffer.push(**row(i), priority=i % 7 + 1)
        buffer.flush()
        live = np.arange(max(0, first + 35 - 100), first + 35)
        assert priorities(buffer) == (live % 7 + 1).tolist()
        assert numbers_of(buffer.get(live)).tolist() == live.tolist()
