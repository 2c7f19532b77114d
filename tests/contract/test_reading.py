"""What every Replay says and draws of its transitions."""

from __future__ import annotations

import functools
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from common import numbers_of
from replays import CAPACITY, COUNT, LIVE, REPLAYS, Exclusive, priorities_of

import diskreplay
from diskreplay import ArgumentError, ClosedError, NotLiveError, SampleError, SchemaError

FIELDS = ("states", "actions", "rewards", "next_states", "dones")
TYPES = ["float32", "int64", "float32", "float32", "float32"]
NO_NUMBERS = (0, -1, 1.5, "3", None, True)


def as_bytes(batch: Any) -> list[bytes]:
    return [batch.indices.tobytes(), *(column.tobytes() for column in batch)]


def test_batches_have_the_types_and_shapes_of_the_fields(replay: Exclusive, tmp_path: Path) -> None:
    with replay.filled(tmp_path / "b") as buffer:
        for batch in (buffer.sample(8), buffer.get(LIVE[:8]), next(iter(buffer.batches(8)))):
            assert batch._fields[:5] == FIELDS
            assert batch._fields[-1] == "x"
            assert [str(array.dtype) for array in batch[:5]] == TYPES
            assert [array.shape for array in batch[:5]] == [(8, 3), (8,), (8,), (8, 3), (8,)]
            assert set(batch.dones.tolist()) <= {0.0, 1.0}
            assert batch.indices.dtype == np.int64
            assert numbers_of(batch).tolist() == batch.indices.tolist() == batch.x.tolist()
            assert set(batch.indices.tolist()) <= set(LIVE)
            batch.states[:] = -1  # they are the caller's own
        assert numbers_of(buffer.get(LIVE)).tolist() == list(LIVE)


def test_it_counts_and_lists_what_is_live(replay: Exclusive, tmp_path: Path) -> None:
    with replay.filled(tmp_path / "b") as buffer:
        assert (len(buffer), buffer.capacity) == (CAPACITY, CAPACITY)
        assert (buffer.first, buffer.count) == (LIVE[0], COUNT)
        assert buffer.path == tmp_path / "b"
        assert buffer.schema.extra_names == ("x",)
        for n, is_ready in ((0, True), (CAPACITY, True), (CAPACITY + 1, False)):
            assert buffer.is_ready(n) is is_ready
        for bad in (-1, 1.5, "a", None):
            with pytest.raises(ArgumentError, match="n must be a whole number of at least 0"):
                buffer.is_ready(bad)
        buffer.flush()
        buffer.refresh()
        assert [experience.x for experience in buffer] == list(LIVE)
        masses = replay.draws.masses(priorities_of(LIVE))
        assert buffer.total_mass == pytest.approx(masses.sum(), rel=1e-12)
        buffer.check()
        assert f"capacity={CAPACITY}, size={CAPACITY}" in repr(buffer)


def test_asking_for_too_much_is_refused(replay: Exclusive, tmp_path: Path) -> None:
    with replay.filled(tmp_path / "b") as buffer, replay.filled(tmp_path / "twin") as twin:
        calls: dict[str, Callable[[Any], Any]] = {"batch_size": buffer.sample, "n": buffer.draw}
        for name, call in calls.items():
            with pytest.raises(SampleError, match=r"cannot draw 61 .* holds 60; .*is_ready\(61\)"):
                call(CAPACITY + 1)
            for bad in NO_NUMBERS:
                with pytest.raises(ArgumentError, match=f"{name} must be a whole number of at lea"):
                    call(bad)
        for bad in NO_NUMBERS:
            with pytest.raises(ArgumentError, match="batch_size must be a whole number"):
                buffer.batches(bad)
        for bad in (-1, 1.5):
            with pytest.raises(ArgumentError, match="prefetch must be a whole number"):
                buffer.batches(4, bad)
            with pytest.raises(ArgumentError, match="readers must be a whole number"):
                buffer.batches(4, 1, bad)
        with pytest.raises(ArgumentError, match="readers=1 needs prefetch of at least 1"):
            buffer.batches(4, readers=1)
        assert as_bytes(buffer.sample(8.0)) == as_bytes(twin.sample(8))  # no draw was counted


def test_a_draw_is_that_of_sample_without_the_rows(replay: Exclusive, tmp_path: Path) -> None:
    with replay.filled(tmp_path / "b") as buffer, replay.filled(tmp_path / "twin") as twin:
        masses = replay.draws.masses(priorities_of(LIVE))
        for turn in range(6):
            sampled = buffer.sample(8)
            drawn = twin.draw(8) if turn % 2 else twin.sample(8)
            assert drawn.indices.tolist() == sampled.indices.tolist()
        indices, probabilities = found = twin.draw(50)
        assert isinstance(found, diskreplay.Draw)
        assert (indices.dtype, indices.shape) == (np.int64, (50,))
        assert (probabilities.dtype, probabilities.shape) == (np.float64, (50,))
        shares = masses[indices - LIVE[0]] / masses.sum()
        np.testing.assert_allclose(probabilities, shares, rtol=1e-12)


def test_a_batch_is_written_into_an_earlier_one(replay: Exclusive, tmp_path: Path) -> None:
    with replay.filled(tmp_path / "b") as buffer, replay.filled(tmp_path / "twin") as twin:
        out = buffer.sample(8)
        assert as_bytes(out) == as_bytes(twin.sample(8))
        read_only = out.x.copy()
        read_only.flags.writeable = False
        for _ in range(4):
            kept = as_bytes(out)
            assert buffer.sample(8, out=out) is out
            assert as_bytes(out) == as_bytes(twin.sample(8)) != kept
            with pytest.raises(
                ArgumentError, match=r"out\.states must be .*\(7, 3\) \(it is .*8, 3"
            ):
                buffer.sample(7, out=out)
            with pytest.raises(ArgumentError, match=r"out\.x must be .* \(it is read-only\)"):
                buffer.sample(8, out=out._replace(x=read_only))
            with pytest.raises(ArgumentError, match="out must be an earlier batch of this buffer"):
                buffer.sample(8, out=tuple(out))


@functools.cache
def sampled_by(name: str) -> list[list[bytes]]:
    """Return the first batches of the filled replay of a name, as `sample` draws them.

    No weights: beta follows the frame, which may count what is drawn ahead.
    """
    replay = next(kind for kind in REPLAYS if kind.name == name)
    with tempfile.TemporaryDirectory() as place, replay.filled(Path(place, "twin")) as twin:
        return [as_bytes(twin.sample(8))[:6] for _ in range(22)]


@pytest.mark.parametrize(("prefetch", "readers"), [(0, 0), (1, 0), (4, 0), (2, 1)])
@pytest.mark.parametrize("reuse", [False, True])
def test_batches_are_those_of_sample(
    replay: Exclusive, prefetch: int, readers: int, reuse: bool, tmp_path: Path
) -> None:
    wanted = sampled_by(replay.name)
    with replay.filled(tmp_path / "b") as buffer:
        found = []
        prepared: list[Any] = []

        def prepare(batch: Any) -> Any:
            prepared.append(as_bytes(batch)[:6])
            return batch

        with buffer.batches(8, prefetch, readers, reuse=reuse, prepare=prepare) as batches:
            assert iter(batches) is batches
            for _, batch in zip(range(21), batches, strict=False):
                found.append(as_bytes(batch)[:6])
        assert found == prepared[:21]
        found.append(as_bytes(buffer.sample(8))[:6])  # what was drawn ahead is given back
        assert found == wanted
        batches.close()
        with pytest.raises(ClosedError, match=r"call batches\(\) again"):
            next(batches)


@pytest.mark.parametrize("window_bytes", [0, 1 << 20])
def test_ids_have_any_shape_and_fields_are_chosen(
    replay: Exclusive, window_bytes: int, tmp_path: Path
) -> None:
    with replay.filled(tmp_path / "b", window_bytes=window_bytes) as buffer:
        names = list(buffer.schema.names)
        for ids in (
            np.arange(20, 80).reshape(3, 4, 5), [[25, 25]], [], 40, np.zeros((0, 3), int),
            np.array([79, 20, 50], np.uint16),
        ):  # fmt: skip
            shape = np.shape(ids)
            batch = buffer.get(ids)
            assert (batch.indices.shape, batch.indices.dtype) == (shape, np.int64)
            assert batch.states.shape == (*shape, 3)
            assert batch.x.shape == batch.rewards.shape == shape
            assert batch.x.tolist() == np.asarray(ids).tolist()
            flat = diskreplay.Batch(*(c.reshape(-1, *c.shape[len(shape) :]) for c in batch[:5]))
            assert numbers_of(flat).tolist() == np.ravel(ids).tolist()
            for wanted in (["x"], ["next_state", "x"], names[::-1]):
                found = buffer.get(ids, fields=iter(wanted))
                assert list(found) == wanted
                for name in wanted:
                    column = batch[names.index(name)]
                    assert (found[name].dtype, found[name].shape) == (column.dtype, column.shape)
                    assert found[name].tobytes() == column.tobytes()
        assert list(buffer.get([20], fields=("x", "x"))) == ["x"]


def test_ids_and_fields_that_there_are_not_are_refused(replay: Exclusive, tmp_path: Path) -> None:
    with replay.filled(tmp_path / "b") as buffer:
        for bad in ("states", "indices", "y", 3, None):
            message = r"has no field .*: expected some of state, act.* x"
            with pytest.raises(SchemaError, match=message):
                buffer.get([20], fields=["x", bad])
        for bad in ("x", [], 3):
            with pytest.raises(ArgumentError, match="fields must be a list of names"):
                buffer.get([20], fields=bad)
        for dead in (LIVE[0] - 1, COUNT, -1):
            with pytest.raises(NotLiveError, match=rf"write id {dead} is not .*\[20, 80\)"):
                buffer.get([[20], [dead]], fields=["x"])
        for bad in (0.5, [[1], [1, 2]], "1"):
            with pytest.raises(ArgumentError, match="indices must be whole numbers"):
                buffer.get(bad)


def test_stats_is_plain_and_tells_the_same_as_the_rest(replay: Exclusive, tmp_path: Path) -> None:
    with replay.filled(tmp_path / "b") as buffer:
        stats = buffer.stats()
        json.dumps(stats)
        assert stats.keys() == replay.draws.more_stats | {
            "kind", "path", "size", "capacity", "count", "schema", "disk_bytes", "memory_bytes",
            "oldest_reader", "payload_bytes", "records_bytes", "priorities_bytes",
            "observations_bytes", "free_bytes", "durability", "commit_interval", "openers",
            "commits", "stale_updates", "cuts", "damaged", "runs", "links_bytes",
            "marks", "marks_bytes", "notes", "notes_bytes", "keep_rows", "draws",
        }  # fmt: skip
        assert (stats["size"], stats["count"], stats["capacity"]) == (CAPACITY, COUNT, CAPACITY)
        assert (stats["stale_updates"], stats["damaged"]) == (0, 0)
        assert stats["path"] == str(tmp_path / "b")
        assert stats["disk_bytes"] == (tmp_path / "b" / "data.mdb").stat().st_size
        assert [(run["first"], run["end"], run["rows"]) for run in stats["runs"]] == [
            (0, COUNT, COUNT)
        ]
        assert stats["payload_bytes"] == CAPACITY * buffer.schema.payload_bytes
        assert stats["schema"] == buffer.schema.to_plain()
        assert [opener["pid"] for opener in stats["openers"]].count(os.getpid()) == 1
        assert buffer.stats() == stats  # to look changes nothing


def test_a_saved_copy_holds_the_same(replay: Exclusive, tmp_path: Path) -> None:
    with replay.filled(tmp_path / "b") as buffer:
        buffer.save(tmp_path / "copy")
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "file").touch()
        with pytest.raises(diskreplay.NotAStoreError):
            buffer.save(tmp_path / "mine")
        with diskreplay.open(tmp_path / "copy") as copy:
            assert copy.stats()["kind"] == buffer.stats()["kind"]
            assert as_bytes(copy.get(LIVE)) == as_bytes(buffer.get(LIVE))
            assert copy.total_mass == buffer.total_mass
            assert copy.schema == buffer.schema
            copy.check()
        assert {p.name for p in tmp_path.iterdir()} == {"b", "copy", "mine"}


def test_a_closed_replay_says_so(replay: Exclusive, tmp_path: Path) -> None:
    with replay.filled(tmp_path / "b") as buffer:
        batches = buffer.batches(4)
    buffer.close()
    for call in (
        lambda: buffer.sample(1),
        lambda: buffer.draw(1),
        lambda: buffer.get([20]),
        lambda: list(buffer),
        lambda: len(buffer),
        lambda: buffer.is_ready(1),
        lambda: buffer.first,
        lambda: buffer.count,
        lambda: buffer.total_mass,
        lambda: buffer.schema,
        lambda: buffer.batches(4),
        lambda: next(batches),
        lambda: buffer.save(tmp_path / "c"),
        buffer.flush,
        buffer.refresh,
        buffer.stats,
        buffer.check,
    ):
        with pytest.raises(ClosedError, match="is closed: open it again"):
            call()
    assert "closed" in repr(buffer)
    assert not (tmp_path / "c").exists()
