"""Going back to a mark: the proof with a real kill, what is missing, and who sees it."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from common import columns, numbers_of, row, run_python
from drawn import KINDS
from others import Other
from stores import spoil

import diskreplay
from diskreplay import (
    MismatchError,
    PrioritizedReplayBuffer,
    ReplayBuffer,
    samplers,
    verify,
)

TRAIN = """
import hashlib, os, signal, sys
import numpy as np
import diskreplay
from common import columns, row

kind, path, layout, begin, end, how = sys.argv[1:]
settings = {"alpha": 0.7, "beta_frames": 150} if kind == "PrioritizedReplayBuffer" else {}
settings |= {"observations": layout, "keep_rows": 100, "commit_interval": 0.001}
buffer = getattr(diskreplay, kind)(350, seed=11, path=path, window_bytes=1 << 16, **settings)
if how == "rewind":
    mark = buffer.marks()[-1]
    assert buffer.rewind(mark.name) == 0
    begin = mark.data["step"]
# Readers draw exactly three batches ahead, so that updates take effect at a known time.
with buffer.batches(32, prefetch=3, readers=1) as batches:
    for step in range(int(begin), int(end)):
        if step == 150:
            buffer.mark("step-150", {"step": 150})
            batches.close()
            batches = buffer.batches(32, prefetch=3, readers=1)
        buffer.push(**row(2 * step))
        buffer.extend(**columns(2 * step + 1, 1))
        if len(buffer) >= 32:
            batch = next(batches)
            content = b"".join(a.tobytes() for a in batch)
            print(step, hashlib.sha256(content).hexdigest(), flush=True)
            if kind == "PrioritizedReplayBuffer":
                ids = np.concatenate([batch.indices, batch.indices, [0]])
                buffer.update_priorities(ids, np.abs(np.sin(ids + step)) * 3)
    batches.close()
if how == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize(("kind", "layout"), [(KINDS[0], "record"), (KINDS[1], "log")])
def test_a_killed_run_repeats_the_batches_after_the_mark(
    kind: type, layout: str, tmp_path: Path, long: bool
) -> None:
    def train(path: Path, end: int, how: str, check: bool = True) -> list[str]:
        done = run_python(TRAIN, kind.__name__, path, path.parent.name, 0, end, how, check=check)
        if not check:
            assert done.returncode == -signal.SIGKILL, done.stderr
        return done.stdout.splitlines()

    for place in ["record", "log"] if long else [layout]:
        paths = tmp_path / place / "whole", tmp_path / place / "killed"
        (tmp_path / place).mkdir()
        whole = train(paths[0], 200, "end")
        killed = train(paths[1], 193, "kill", check=False)
        assert killed == whole[: len(killed)]
        for _ in range(2):
            again = train(paths[1], 200, "rewind")
            assert again == whole[-50:]
        assert verify(paths[1]) == []
        for path in paths:
            with diskreplay.open(path) as buffer:
                ids = np.arange(buffer.first, buffer.count)
                assert numbers_of(buffer.get(ids)).tolist() == ids.tolist()
                buffer.check()


@pytest.mark.parametrize("log", [False, True])
def test_what_the_ring_has_overwritten_is_named(log: bool, tmp_path: Path) -> None:
    where = "log" if log else "record"
    with PrioritizedReplayBuffer(
        100, path=tmp_path / "s", keep_rows=40, observations=where
    ) as buffer:
        buffer.extend(**columns(0, 130), priorities=np.arange(130) % 7)
        buffer.mark("a")  # 30 to 129 are live
        buffer.extend(**columns(130, 40))
        buffer.flush()
        assert buffer.rewind("a") == 0
        assert (buffer.first, buffer.count) == (30, 130)
        for first in range(130, 200, 10):
            buffer.extend(**columns(first, 10))
            buffer.flush()
        # 200 - 140 = 60: 30 to 59 are overwritten.
        with pytest.raises(
            MismatchError,
            match=r"of the 100 transitions that were live then, the ring has overwritten 30, write "
            r"ids 30 to 59; rewind\('a', missing='drop'\) .* keep_rows=70 \(found 40\)",
        ):
            buffer.rewind("a")
        assert buffer.count == 200
        assert buffer.rewind("a", missing="drop") == 30
        assert (buffer.first, buffer.count, len(buffer)) == (60, 130, 70)
        ids = np.arange(60, 130)
        assert numbers_of(buffer.get(ids)).tolist() == ids.tolist()
        assert buffer.priorities(ids).tolist() == (ids % 7).tolist()
        buffer.check()
        # The count alone would say that they are there again.
        with pytest.raises(MismatchError, match="overwritten 30"):
            buffer.rewind("a")
    with diskreplay.open(tmp_path / "s") as buffer:
        for first in range(130, 130 + 3 * 140, 35):  # laps of the kept rows
            buffer.extend(**columns(first, 35))
            buffer.flush()
        with pytest.raises(MismatchError, match="overwritten 100, write ids 30 to 129;"):
            buffer.rewind("a")
        assert buffer.rewind("a", "drop") == 100
        assert (len(buffer), buffer.count) == (0, 130)
        buffer.extend(**columns(130, 150))
        buffer.check()
    assert verify(tmp_path / "s") == []


def test_a_clear_is_taken_back_with_the_observations(tmp_path: Path) -> None:
    with PrioritizedReplayBuffer(50, path=tmp_path / "s", observations="log") as buffer:
        buffer.extend(**columns(0, 40), priorities=np.arange(40))
        buffer.mark("a")
        buffer.clear()
        buffer.flush()
        assert len(buffer) == 0
        buffer.extend(**columns(40, 10))
        buffer.flush()
        assert buffer.rewind("a") == 0
        ids = np.arange(40)
        assert numbers_of(buffer.get(ids)).tolist() == ids.tolist()
        assert buffer.priorities(ids).tolist() == ids.tolist()
        assert buffer.max_priority == 39
        buffer.delete_mark("a")
        buffer.clear()
        buffer.flush()
        state = buffer._guard.replica.store
        with state.snapshot() as snapshot:  # nothing needs them now
            assert snapshot.entries("observations") <= 1
    assert verify(tmp_path / "s") == []


@pytest.mark.parametrize("kind", KINDS)
def test_changes_that_wait_and_batches_drawn_ahead_are_gone(kind: Any) -> None:
    with kind(50, commit_interval=1e9, seed=1) as buffer:
        buffer.extend(**columns(0, 20))
        buffer.mark("a")
        expected = [array.tobytes() for array in buffer.sample(8)]
        buffer.rewind("a")
        with buffer.batches(8, prefetch=3) as batches:
            assert [array.tobytes() for array in next(batches)] == expected
            buffer.extend(**columns(20, 9))
            next(batches)
            assert buffer.rewind("a") == 0
            assert buffer.count == 20
            assert [array.tobytes() for array in next(batches)] == expected
        buffer.extend(**columns(20, 3))
        ids = np.arange(23)
        assert numbers_of(buffer.get(ids)).tolist() == ids.tolist()
        buffer.flush()
        assert buffer.stats()["runs"][0]["rows"] == 23


SAMPLERS: list[Any] = [
    None, samplers.Newest(30), samplers.Recent(40), samplers.Epoch(), samplers.RankBased(0.7),
    samplers.Mixed(0.3), samplers.AtMost(3), samplers.Range(20, 90),
]  # fmt: skip


@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
def test_any_sampler_draws_the_same_again(sampler: Any) -> None:
    with PrioritizedReplayBuffer(80, seed=1, keep_rows=60, sampler=sampler) as buffer:
        buffer.extend(**columns(0, 70), priorities=np.arange(70) % 9)
        for _ in range(3):
            buffer.sample(16)
        buffer.mark("a")

        def train() -> list[list[int]]:
            drawn = []
            for step in range(12):
                buffer.extend(**columns(buffer.count, 4))
                batch = buffer.sample(16)
                numbers_of(batch)
                assert batch.indices.min() >= buffer.first
                buffer.update_priorities(batch.indices, np.abs(np.sin(batch.indices + step)))
                drawn.append(batch.indices.tolist())
            return drawn

        first = train()
        assert buffer.rewind("a") == 0
        assert train() == first
        buffer.check()


def test_chains_after_a_rewind_are_those_of_the_transitions_that_are_left() -> None:
    with ReplayBuffer(80, seed=1, keep_rows=60) as buffer:

        def push(first: int, n: int) -> None:
            for number in range(first, first + n):
                given = row(number) | {"done": number % 10 == 9 and number != 39}
                buffer.push(**given, env=0)

        push(0, 40)
        buffer.mark("a")
        push(40, 30)
        assert buffer.sample(16, n_step=3).discounts.min() < 0.98  # builds what follows the links
        assert buffer.rewind("a") == 0
        push(40, 25)
        batch = buffer.sample(60, n_step=3, gamma=0.5)
        ends = np.array([9, 19, 29, 39, 49, 59, 64])  # of the episodes, and the newest
        left = ends[np.searchsorted(ends, batch.indices)] - batch.indices + 1
        np.testing.assert_array_equal(batch.discounts, 0.5 ** np.minimum(left, 3))
        buffer.check()


def test_a_rewind_before_the_first_push_keeps_the_schema(tmp_path: Path) -> None:
    with ReplayBuffer(50, path=tmp_path / "s", seed=1) as buffer:
        buffer.mark("begin")
        buffer.extend(**columns(0, 20))
        first = buffer.sample(4).indices.tolist()
        buffer.flush()
        assert buffer.rewind("begin") == 0
        assert (len(buffer), buffer.count) == (0, 0)
        assert buffer.schema is not None
        buffer.extend(**columns(0, 20))
        assert buffer.sample(4).indices.tolist() == first
    assert verify(tmp_path / "s") == []


@pytest.mark.parametrize("log", [False, True])
def test_a_reader_follows_a_rewind(log: bool, tmp_path: Path, other: Other) -> None:
    where = "log" if log else "record"
    other.open(200, keep_rows=50, observations=where)
    other.extend(0, 80, np.arange(80).tolist())
    other.mark("a")
    with diskreplay.open(tmp_path / "b", access="read") as reader:
        assert isinstance(reader, PrioritizedReplayBuffer)
        with reader.batches(8, prefetch=2) as batches:
            for second in (False, True):
                other.extend(200, 60, np.arange(60).tolist())  # not the rows that come next time
                other.flush()
                assert reader.count == 140
                numbers = numbers_of(reader.get(range(80, 140)))
                assert numbers.tolist() == list(range(200, 260))
                next(batches)
                if second:
                    other.rewind("a")
                    other.extend(80, 60, np.ones(60).tolist())
                    other.flush()  # the count is the same again
                    assert reader.count == 140
                    assert numbers_of(reader.get(range(80, 140))).tolist() == list(range(80, 140))
                    assert reader.priorities(range(80, 140)).tolist() == [1.0] * 60
                else:
                    other.rewind("a")
                    assert reader.count == 80
                    assert reader.priorities(range(80)).tolist() == list(range(80))
                assert numbers_of(reader.get(range(80))).tolist() == list(range(80))
                assert next(batches).indices.max() < reader.count
                reader.check()


def test_a_saved_copy_has_the_marks_and_rewritten_stores_do_not(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with PrioritizedReplayBuffer(50, path=path, keep_rows=20, observations="log") as buffer:
        buffer.extend(**columns(0, 60))
        buffer.mark("a", 5)
        buffer.extend(**columns(60, 15))
        buffer.save(tmp_path / "saved")
    with diskreplay.open(tmp_path / "saved") as buffer:
        assert buffer.rewind("a") == 0
        assert (buffer.first, buffer.count) == (10, 60)
    diskreplay.repair(path, tmp_path / "repaired")
    diskreplay.merge([path], tmp_path / "merged")
    diskreplay.compact(path)
    for place in (path, tmp_path / "saved", tmp_path / "repaired", tmp_path / "merged"):
        assert verify(place) == []
        with diskreplay.open(place) as buffer:
            assert [mark.name for mark in buffer.marks()] == ["a"] * (place.name == "saved")
            assert len(buffer) == 50
            buffer.mark("new")
            buffer.extend(**columns(75, 20))
            buffer.rewind("new")
            buffer.check()
        assert verify(place) == []


def test_load_keeps_the_marks_of_the_buffer(tmp_path: Path) -> None:
    with PrioritizedReplayBuffer(50, path=tmp_path / "other") as buffer:
        buffer.extend(**columns(500, 30))
    with PrioritizedReplayBuffer(50, path=tmp_path / "s", keep_rows=100) as buffer:
        buffer.extend(**columns(0, 40), priorities=np.arange(40))
        buffer.mark("a")
        buffer.load(tmp_path / "other")  # into the slots of the first rows
        assert len(buffer) == 30
        with pytest.raises(MismatchError, match="overwritten 30, write ids 0 to 29"):
            buffer.rewind("a")
        assert buffer.rewind("a", "drop") == 30
        assert numbers_of(buffer.get(range(30, 40))).tolist() == list(range(30, 40))
        assert buffer.priorities(range(30, 40)).tolist() == list(range(30, 40))
    assert verify(tmp_path / "s") == []


def test_write_ids_of_damaged_records_are_drawn_once_they_are_given_again(tmp_path: Path) -> None:
    with ReplayBuffer(20, path=tmp_path / "b") as buffer:
        buffer.extend(**columns(0, 5))
        buffer.mark("five")
        buffer.extend(**columns(5, 5))
    spoil(tmp_path / "b", [7])
    with diskreplay.open(tmp_path / "b", window_bytes=0, on_damage="skip") as buffer:
        assert 7 not in [i for _ in range(20) for i in buffer.sample(5).indices.tolist()]
        assert buffer.stats()["damaged"] == 1
        buffer.rewind("five")
        buffer.extend(**columns(5, 5), env=0)
        batch = buffer.sample(10, n_step=2)
        assert sorted(batch.indices.tolist()) == list(range(10))
        assert batch.discounts[batch.indices.tolist().index(6)] == np.float32(0.99**2)
        assert buffer.stats()["damaged"] == 0


@pytest.mark.parametrize("access", ["exclusive", "shared"])
def test_episodes_from_before_a_clear_come_back(access: str, tmp_path: Path) -> None:
    with ReplayBuffer(20, path=tmp_path / "b", access=access) as buffer:
        zeros = np.zeros(10)
        buffer.extend(zeros[:, None], zeros, zeros, zeros[:, None], zeros, env=0)
        buffer.mark("ten")
        buffer.clear()
        buffer.push([0.0], 0.0, 0.0, [0.0], False)
    with ReplayBuffer(20, path=tmp_path / "b") as buffer:
        assert buffer.rewind("ten") == 0
        batch = buffer.sample_sequences(10, 10)
        assert sorted(batch.mask.sum(axis=1).tolist()) == list(range(1, 11))
        assert sorted(batch.indices[batch.firsts].tolist()) == [0]


@pytest.mark.parametrize("access", ["exclusive", "shared"])
def test_priorities_that_changed_after_the_mark_come_back(access: str, tmp_path: Path) -> None:
    settings = {"path": tmp_path / "b", "alpha": 1.0}
    with PrioritizedReplayBuffer(20, access=access, **settings) as buffer:
        buffer.extend(**columns(0, 10), priorities=np.arange(1.0, 11.0))
        buffer.mark("ten")
        buffer.update_priorities(range(10), np.full(10, 50.0))
    with PrioritizedReplayBuffer(20, **settings) as buffer:
        assert buffer.priorities(range(10)).tolist() == [50.0] * 10
        buffer.rewind("ten")
        assert buffer.priorities(range(10)).tolist() == [*range(1, 11)]
        buffer.push(**row(10))
        assert buffer.priorities([10]).tolist() == [10.0]


def test_a_mark_goes_back_as_before_once_a_later_one_is_deleted(tmp_path: Path) -> None:
    with PrioritizedReplayBuffer(20, path=tmp_path / "b", alpha=1.0) as buffer:
        buffer.extend(**columns(0, 10), priorities=np.arange(1.0, 11.0))
        buffer.mark("first")
        buffer.mark("second")
        buffer.update_priorities(range(10), np.full(10, 50.0))
        buffer.delete_mark("second")
        buffer.rewind("first")
        assert buffer.priorities(range(10)).tolist() == [*range(1, 11)]
