"""What a buffer offers to those who build on it: draws alone, some fields, masses, a beta."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from common import columns, numbers_of, row, run_python
from stores import RECORD_BYTES, spoil
from test_batches import fill

import diskreplay
from diskreplay import (
    ArgumentError,
    Draw,
    NotLiveError,
    PrioritizedReplayBuffer,
    ReplayBuffer,
    SampleError,
    SchemaError,
)

KINDS = [ReplayBuffer, PrioritizedReplayBuffer]
ACCESS = ["exclusive", "shared", "read"]
N = 60


def filled(kind: Any, path: Path | None = None, **arguments: Any) -> Any:
    if kind is PrioritizedReplayBuffer:
        arguments = {"beta_frames": 50, **arguments}
    buffer = kind(N, seed=3, path=path, **{"commit_interval": 1e9, **arguments})
    more = {"priorities": np.arange(80) % 7} if kind is PrioritizedReplayBuffer else {}
    buffer.extend(**columns(0, 80), x=np.arange(80), **more)
    return buffer


def opened(kind: Any, access: str, path: Path, **arguments: Any) -> Any:
    """A filled buffer, opened in one of the three ways, with a random stream of its own."""
    if not path.exists():
        filled(kind, path).close()
    return diskreplay.open(path, access=access, seed=5, commit_interval=1e9, **arguments)


# draw


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("access", ACCESS)
def test_a_draw_is_that_of_sample_without_the_rows(kind: Any, access: str, tmp_path: Path) -> None:
    with opened(kind, access, tmp_path / "b") as buffer:
        sampled = [buffer.sample(8).indices.tolist() for _ in range(6)]
        frames = getattr(buffer, "frame", None)
    with opened(kind, access, tmp_path / "c") as buffer:
        drawn = [(buffer.draw(8) if k % 2 else buffer.sample(8)).indices.tolist() for k in range(6)]
        assert drawn == sampled
        assert getattr(buffer, "frame", None) == frames
        found = buffer.draw(8)
        assert isinstance(found, Draw)
        assert found.indices.dtype == np.int64
        assert (found.probabilities.dtype, found.probabilities.shape) == (np.float64, (8,))


def test_probabilities_are_the_shares_of_the_mass() -> None:
    with filled(PrioritizedReplayBuffer) as buffer:
        indices, probabilities = buffer.draw(50)
        masses = (np.arange(20, 80) % 7 + 1e-6) ** 0.6
        np.testing.assert_allclose(probabilities, masses[indices - 20] / masses.sum(), rtol=1e-12)
        assert buffer.total_mass == pytest.approx(masses.sum(), rel=1e-12)
        twin = filled(PrioritizedReplayBuffer, beta_start=0.8).sample(50)
        weights = diskreplay.importance_weights(probabilities, len(buffer), 0.8)
        assert weights.tobytes() == twin.weights.tobytes()
        buffer.push(**row(80), x=80, priority=1000.0)  # evicts write id 20, of priority 6
        more = (1000.0 + 1e-6) ** 0.6 - (6 + 1e-6) ** 0.6
        assert buffer.total_mass == pytest.approx(masses.sum() + more, rel=1e-12)
    with filled(ReplayBuffer) as buffer:
        assert buffer.draw(60).probabilities.tolist() == [1 / 60] * 60
        assert sorted(buffer.draw(60).indices.tolist()) == list(range(20, 80))
        assert buffer.total_mass == 60.0


@pytest.mark.parametrize("kind", KINDS)
def test_a_draw_of_too_many_or_of_no_number_is_refused(kind: Any) -> None:
    with (
        kind(10) as buffer,
        pytest.raises(SampleError, match=r"cannot draw 1 transition: .*holds 0"),
    ):
        buffer.draw(1)
    with filled(kind) as buffer:
        twin = filled(kind)
        for bad in (0, -1, 1.5, True, None, "3"):
            with pytest.raises(ArgumentError, match="n must be a whole number of at least 1"):
                buffer.draw(bad)
        with pytest.raises(SampleError, match=r"cannot draw 61 .* is_ready\(61\)"):
            buffer.draw(61)
        assert buffer.draw(8.0).indices.tolist() == twin.sample(8).indices.tolist()


TRAIN = """
import os, sys
import diskreplay
from common import columns

kind, path, begin, end, how = sys.argv[1:]
more = {"beta_frames": 50} if kind == "PrioritizedReplayBuffer" else {}
buffer = getattr(diskreplay, kind)(60, seed=3, path=path, commit_interval=1e9, **more)
for step in range(int(begin), int(end)):
    buffer.extend(**columns(4 * step, 4))
    if how == "batches":
        print(buffer.sample(4).indices.tolist(), getattr(buffer, "beta", 1.0))
    else:
        print(buffer.draw(4).indices.tolist(), getattr(buffer, "beta", 1.0))
buffer.flush()
if how == "draws":
    print(buffer.draw(4).indices.tolist(), "is not committed", flush=True)
    os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("kind", ["ReplayBuffer", "PrioritizedReplayBuffer"])
def test_a_commit_saves_draws_as_it_saves_samples(kind: str, tmp_path: Path) -> None:
    def train(path: str, begin: int, end: int, how: str) -> list[str]:
        done = run_python(TRAIN, kind, tmp_path / path, begin, end, how, check=False)
        assert done.returncode == (-signal.SIGKILL if how == "draws" else 0), done.stderr
        return done.stdout.splitlines()

    whole = train("whole", 0, 30, "batches")
    first = train("parts", 0, 20, "draws")
    assert first.pop().endswith("is not committed")
    assert [*first, *train("parts", 20, 30, "batches")] == whole


@pytest.mark.parametrize("kind", KINDS)
def test_each_draw_is_committed_where_every_call_is(kind: Any, tmp_path: Path) -> None:
    with filled(kind, tmp_path / "b", commit_interval=0) as buffer:
        before = buffer.stats()["commits"]
        buffer.draw(4)
        assert buffer.stats()["commits"] == before + 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("access", ACCESS)
def test_draws_beside_batches_that_wait(kind: Any, access: str, tmp_path: Path) -> None:
    with opened(kind, access, tmp_path / "b") as buffer:
        expected = [buffer.sample(8).indices.tolist() for _ in range(6)]
    with opened(kind, access, tmp_path / "c") as buffer:
        with buffer.batches(8, prefetch=2) as batches:
            found = [next(batches).indices.tolist()]
            fill(batches)
            found.append(buffer.draw(8).indices.tolist())  # and the two that wait are drawn anew
            found += [next(batches).indices.tolist() for _ in range(2)]
            fill(batches)
        found.append(buffer.draw(8).indices.tolist())
        found.append(buffer.sample(8).indices.tolist())
        assert found == expected


@pytest.mark.parametrize("kind", KINDS)
def test_a_draw_reads_nothing_so_it_meets_no_damage(kind: Any, tmp_path: Path) -> None:
    path = tmp_path / "b"
    filled(kind, path).close()
    spoil(path, [4, 30], RECORD_BYTES + 9)  # write ids 64 and 30
    with diskreplay.open(path, window_bytes=0, on_damage="skip", seed=1) as buffer:
        drawn = {i for _ in range(40) for i in buffer.draw(20).indices.tolist()}
        assert {64, 30} <= drawn
        assert buffer.stats()["damaged"] == 0
        while buffer.stats()["damaged"] < 2:
            buffer.sample(20)
        for _ in range(40):
            indices, probabilities = buffer.draw(20)
            assert not {64, 30} & set(indices.tolist())
        if kind is ReplayBuffer:
            assert probabilities.tolist() == [1 / 58] * 20
            assert buffer.total_mass == 58.0
        else:
            masses = (np.delete(np.arange(20, 80), [10, 44]) % 7 + 1e-6) ** 0.6
            assert buffer.total_mass == pytest.approx(masses.sum())


# get


@pytest.mark.parametrize("window_bytes", [0, 1 << 20])
@pytest.mark.parametrize("access", ACCESS)
def test_ids_have_any_shape_and_fields_are_chosen(
    access: str, window_bytes: int, tmp_path: Path
) -> None:
    with opened(ReplayBuffer, access, tmp_path / "b", window_bytes=window_bytes) as buffer:
        for ids in (
            np.arange(20, 80).reshape(3, 4, 5), [[25, 25]], [], 40, np.zeros((0, 3), int),
            np.array([79, 20, 50], np.uint16),
        ):  # fmt: skip
            shape = np.shape(ids)
            batch = buffer.get(ids)
            assert batch.indices.shape == shape
            assert batch.indices.dtype == np.int64
            assert batch.states.shape == (*shape, 3)
            assert batch.x.shape == batch.rewards.shape == shape
            assert batch.x.tolist() == np.asarray(ids).tolist()
            flat = diskreplay.Batch(*(c.reshape(-1, *c.shape[len(shape) :]) for c in batch[:5]))
            assert numbers_of(flat).tolist() == np.ravel(ids).tolist()
            for fields in (["x"], ("next_state", "x"), [*buffer.schema.names][::-1], iter(["x"])):
                names = list(fields) if not hasattr(fields, "__next__") else ["x"]
                found = buffer.get(ids, fields=fields)
                assert list(found) == names
                for name in names:
                    column = batch[buffer.schema.names.index(name)]
                    assert (found[name].dtype, found[name].shape) == (column.dtype, column.shape)
                    assert found[name].tobytes() == column.tobytes()
        assert list(buffer.get([20], fields=["x", "x"])) == ["x"]


def test_fields_that_there_are_not_are_refused(tmp_path: Path) -> None:
    with filled(ReplayBuffer, tmp_path / "b") as buffer:
        for bad in ("states", "indices", "y", 3, None):
            with pytest.raises(
                SchemaError, match=r"has no field .*: expected some of state, act.* x"
            ):
                buffer.get([20], fields=["x", bad])
        for bad in ("x", [], 3):
            with pytest.raises(ArgumentError, match="fields must be a list of names"):
                buffer.get([20], fields=bad)  # type: ignore[call-overload]
        with pytest.raises(NotLiveError, match="write id 19 is not live"):
            buffer.get([[20], [19]], fields=["x"])
        with pytest.raises(ArgumentError, match=r"indices must be whole numbers \(found float64 "):
            buffer.get(0.5)
    with ReplayBuffer(4) as empty, pytest.raises(SampleError, match="is empty"):
        empty.get([], fields=["x"])


def test_a_record_is_checked_whichever_fields_are_asked_for(tmp_path: Path) -> None:
    filled(ReplayBuffer, tmp_path / "b").close()
    spoil(tmp_path / "b", [3], RECORD_BYTES + 9)  # a byte of x, of write id 63
    with diskreplay.open(tmp_path / "b") as buffer:
        with pytest.raises(diskreplay.DamageError, match="write id 63 in slot 3 is damaged"):
            buffer.get([62, 63], fields=["reward"])
        assert buffer.get([62], fields=["reward"])["reward"] == 62 / 8


def test_rows_of_which_some_fields_were_read_are_whole_later(tmp_path: Path) -> None:
    with opened(ReplayBuffer, "read", tmp_path / "b") as buffer:
        ids = np.arange(20, 80)
        for names in (["x"], ["reward", "state"]):
            buffer.get(ids[::2], fields=names)
            assert numbers_of(buffer.get(ids[::3])).tolist() == ids[::3].tolist()
            buffer.get(ids, fields=names)
        assert numbers_of(buffer.get(ids)).tolist() == ids.tolist()
        assert buffer.get(ids).x.tolist() == ids.tolist()


def test_large_rows_are_read_field_by_field() -> None:
    with ReplayBuffer(10) as buffer:
        frames = np.arange(8 * 2000, dtype=np.uint8).reshape(8, 2000)
        buffer.extend(frames, range(8), range(8), frames + 1, [0] * 8)
        found = buffer.get([[7], [0]], fields=["next_state", "action"])
        assert found["action"].tolist() == [[7], [0]]
        assert found["next_state"].tobytes() == (frames + 1)[[7, 0]].tobytes()


@pytest.mark.parametrize("access", ACCESS)
def test_priorities_have_the_shape_of_the_ids(access: str, tmp_path: Path) -> None:
    with opened(PrioritizedReplayBuffer, access, tmp_path / "b") as buffer:
        for ids in (np.arange(20, 80).reshape(4, 15), [], 79, [[21]]):
            found = buffer.priorities(ids)
            assert (found.dtype, found.shape) == (np.float32, np.shape(ids))
            assert found.tolist() == (np.asarray(ids) % 7).tolist()
        with pytest.raises(NotLiveError, match="write id 80 is not live"):
            buffer.priorities([[20, 80]])
        with pytest.raises(NotLiveError, match="write id 19 is not live"):
            buffer.priorities(19)


# first, total_mass, beta


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("access", ["exclusive", "shared"])
def test_first_and_total_mass_follow_what_is_live(kind: Any, access: str, tmp_path: Path) -> None:
    with kind(5, path=tmp_path / "b", access=access, commit_interval=0) as buffer:
        assert (buffer.first, buffer.total_mass) == (0, 0.0)
        given = {"priorities": [2.0] * 3} if kind is PrioritizedReplayBuffer else {}
        one = (2.0 + 1e-6) ** 0.6 if given else 1.0
        buffer.extend(**columns(0, 3), **given)
        assert (buffer.first, buffer.total_mass) == (0, pytest.approx(3 * one))
        buffer.extend(**columns(3, 3), **given)
        assert (buffer.first, buffer.count) == (1, 6)
        assert buffer.total_mass == pytest.approx(5 * one)
        if given:
            buffer.update_priorities([5, 4], [0.0, 0.0])
            assert buffer.total_mass == pytest.approx(3 * one + 2 * 1e-6**0.6)
        buffer.clear()
        assert (buffer.first, buffer.count, buffer.total_mass) == (6, 6, 0.0)


def test_a_reader_follows_first_and_total_mass(other: Any, tmp_path: Path) -> None:
    other.open(50)
    with diskreplay.open(tmp_path / "b", access="read") as buffer:
        for n, first in ((30, 0), (30, 10), (100, 110)):
            other.extend(buffer.count, n, [3.0] * n)
            other.flush()
            assert (buffer.first, buffer.count - len(buffer)) == (first, first)
            assert buffer.total_mass == pytest.approx(len(buffer) * (3.0 + 1e-6) ** 0.6)


def test_beta_for_one_call() -> None:
    with filled(PrioritizedReplayBuffer) as buffer, filled(PrioritizedReplayBuffer) as twin:
        probabilities = twin.draw(20).probabilities
        batch = buffer.sample(20, beta=1)
        wanted = diskreplay.importance_weights(probabilities, 60, 1.0)
        assert batch.weights.tobytes() == wanted.tobytes()
        assert buffer.sample(20, beta=0.0).weights.tolist() == [1.0] * 20
        twin.sample(20)
        assert (buffer.frame, buffer.beta) == (twin.frame, twin.beta) == (2, 0.4 + 0.6 * 2 / 50)
        assert buffer.sample(20).weights.tobytes() == twin.sample(20).weights.tobytes()
        for bad in (-0.1, 1.1, float("nan"), "1", True):
            with pytest.raises(ArgumentError, match=r"beta must be a number in \[0, 1\]"):
                buffer.sample(20, beta=bad)
        assert buffer.sample(20).weights.tobytes() == twin.sample(20).weights.tobytes()
    with filled(ReplayBuffer) as uniform, pytest.raises(TypeError, match="beta"):
        uniform.sample(4, beta=0.5)


def test_a_forked_child_draws_and_looks_up_too(tmp_path: Path) -> None:
    with filled(PrioritizedReplayBuffer, tmp_path / "b") as buffer:
        buffer.flush()
        child = os.fork()
        if not child:
            status = 1
            try:
                drawn = buffer.draw(8)
                found = buffer.get(drawn.indices, fields=["x"])["x"]
                status = 0 if (found == drawn.indices).all() and buffer.first == 20 else 2
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
