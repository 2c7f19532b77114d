"""What every Replay that can be written to does with what is pushed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from common import columns, numbers_of, row
from replays import COUNT, LIVE, Exclusive

import diskreplay
from diskreplay import (
    ArgumentError,
    ClosedError,
    LockedError,
    NotLiveError,
    SampleError,
    SchemaError,
)


def numbers_in(replay: Any) -> list[int]:
    """The numbers of all transitions, oldest first."""
    return [int(experience.reward * 8) for experience in replay]


def test_push_and_extend_give_write_ids_and_the_oldest_go(
    writer: Exclusive, tmp_path: Path
) -> None:
    with writer.make(tmp_path / "b", 8) as buffer:
        assert (buffer.capacity, len(buffer), buffer.first, buffer.count) == (8, 0, 0, 0)
        assert (buffer.schema, buffer.total_mass, list(buffer)) == (None, 0.0, [])
        for call in (buffer.sample, buffer.draw):
            with pytest.raises(SampleError, match=r"cannot draw 1 transition: .* holds 0"):
                call(1)
        with pytest.raises(SampleError, match="is empty"):
            buffer.get([], fields=["reward"])
        found = [buffer.push(**row(0)), *buffer.extend(**columns(1, 5)).tolist()]
        found += [buffer.push(**row(i)) for i in range(6, 20)]
        found += buffer.extend(**columns(0, 0)).tolist()  # none are as good as any
        assert found == writer.ids(0, 20)
        writer.settle(buffer)
        assert (len(buffer), buffer.first, buffer.count) == (8, 12, 20)
        assert numbers_of(buffer.get(range(12, 20))).tolist() == list(range(12, 20))
        for dead in (11, 20, -1, 2**62):
            message = rf"write id {dead} is not live .*\[12, 20\)"
            with pytest.raises(NotLiveError, match=message):
                buffer.get([15, dead])


@pytest.mark.parametrize("n", [1, 7, 8, 9, 50, 1000])
def test_extend_of_any_length_keeps_the_newest(writer: Exclusive, n: int, tmp_path: Path) -> None:
    newest = list(range(max(0, n + 3 - 8), n + 3))
    with writer.make(tmp_path / "b", 8) as buffer:
        buffer.extend(**columns(0, 3))
        assert buffer.extend(**columns(3, n)).tolist() == writer.ids(3, n)
        writer.settle(buffer)
        assert numbers_in(buffer) == newest
        buffer.check()
    with writer.open(tmp_path / "b") as again:
        assert numbers_in(again) == newest
        again.check()


@pytest.mark.parametrize("durability", ["system", "full", "process"])
def test_reopening_goes_on(writer: Exclusive, durability: str, tmp_path: Path) -> None:
    path = tmp_path / "a" / "b"
    for lap in range(4):
        with writer.make(path, 50, seed=3, durability=durability) as buffer:
            assert len(buffer) == min(50, lap * 30)
            buffer.extend(**columns(lap * 30, 30))
            buffer.check()
            kind = buffer.stats()["kind"]
    with writer.open(path) as buffer:
        assert buffer.stats()["kind"] == kind
        assert (buffer.capacity, buffer.count) == (50, 120)
        assert numbers_in(buffer) == list(range(70, 120))
        stats = buffer.stats()
        assert stats["durability"] == durability
        assert [(run["first"], run["rows"]) for run in stats["runs"]] == [
            (0, 30), (30, 30), (60, 30), (90, 30)
        ]  # fmt: skip


def test_flush_makes_a_commit_that_all_can_read(writer: Exclusive, tmp_path: Path) -> None:
    with writer.make(tmp_path / "b") as buffer:
        for commits, first in enumerate(range(0, 30, 10), 1):
            buffer.extend(**columns(first, 10))
            buffer.flush()
            buffer.flush()  # of nothing, which is none
            buffer.refresh()
            assert buffer.stats()["commits"] == commits
            buffer.save(tmp_path / f"copy-{first}")
            assert numbers_in(buffer) == list(range(first + 10))
    with writer.open(tmp_path / "copy-20") as copy:
        assert numbers_in(copy) == list(range(30))


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"state": np.zeros(4)}, r"field 'state': expected shape \(3,\) \(found \(4,\), float64\)"),
    ({"action": 1.5}, "field 'action': expected int64 .found float64"),
    ({"reward": float("nan")}, "field 'reward': expected finite numbers"),
    ({"reward": np.float64("inf")}, "field 'reward': expected finite numbers"),
    ({"next_state": None}, "field 'next_state' is None .at the end of an episode"),
    ({"done": 0.5}, "field 'done': expected True or False"),
    ({"state": [1e300] * 3}, "field 'state': a number is beyond float32"),
    ({"log_prob": 0.5}, "new: log_prob"),
]


def test_a_refused_transition_changes_nothing(writer: Exclusive, tmp_path: Path) -> None:
    with writer.make(tmp_path / "b", 10) as buffer:
        buffer.push(**row(0))
        writer.settle(buffer)
        before = buffer.stats()
        for change, message in REFUSED:
            with pytest.raises(SchemaError, match=message):
                buffer.push(**{**row(1), **change})
        with pytest.raises(SchemaError, match="expected columns of one length"):
            buffer.extend(**{**columns(1, 3), "actions": [1, 2]})
        with pytest.raises(SchemaError, match="finite"):
            buffer.extend(**{**columns(1, 3), "rewards": [1, 2, float("nan")]})
        assert buffer.stats() == before
        assert buffer.push(**row(1)) == writer.ids(1, 1)[0]
        writer.settle(buffer)
        assert numbers_in(buffer) == [0, 1]


def test_a_refused_first_transition_fixes_no_schema(writer: Exclusive, tmp_path: Path) -> None:
    with writer.make(tmp_path / "b", 10) as buffer:
        with pytest.raises(SchemaError, match="extend takes 'state' as states"):
            buffer.extend(**columns(0, 1), state=[[9.0, 9.0, 9.0]])
        for name in ("priorities", "states"):
            with pytest.raises(SchemaError, match=f"with one value \\(found {name}=\\)"):
                buffer.push(**row(0), **{name: 1.0})
        with pytest.raises(SchemaError, match="'weights' cannot name a field"):
            buffer.push(**row(0), weights=1.0)
        with pytest.raises(SchemaError, match="field 'state': a number is beyond float32"):
            buffer.push([1e300], 0, 0.0, [0.0], False)
        assert (len(buffer), buffer.schema) == (0, None)
        buffer.push(**row(0))
        assert buffer.schema is not None


def test_values_are_kept_bit_for_bit(writer: Exclusive, tmp_path: Path) -> None:
    state = np.array([np.nan, np.inf, -np.inf], np.float32)
    frame = np.arange(84 * 84 * 4, dtype=np.uint8).reshape(84, 84, 4)
    extra = {"log_prob": np.linspace(0, 1, 6), "arm": np.arange(6), "mask": np.eye(6) > 0}
    with writer.make(tmp_path / "b") as buffer:
        more = {name: values[:5] for name, values in extra.items()}
        buffer.extend(**columns(0, 5), frame=[frame] * 5, **more)
        last = {**row(5), "state": state}
        buffer.push(**last, frame=frame[::-1], log_prob=1.0, arm=5, mask=np.eye(6)[5] > 0)
    with writer.open(tmp_path / "b", window_bytes=0) as buffer:
        batch = buffer.get(np.arange(6))
        assert batch._fields[5:] == ("frame", "log_prob", "arm", "mask")
        assert batch.states[5].tobytes() == state.tobytes()
        assert batch.frame.dtype == np.uint8
        assert batch.frame[5].tobytes() == frame[::-1].tobytes()
        np.testing.assert_array_equal(batch.log_prob, extra["log_prob"].astype("f4"))
        np.testing.assert_array_equal(batch.mask, extra["mask"])
        assert batch.arm.dtype == np.int64
        assert [e.arm for e in buffer] == list(range(6))
        drawn = buffer.sample(4)
        assert drawn.arm.tolist() == drawn.indices.tolist()


def test_a_given_schema_overrides_each_default(writer: Exclusive, tmp_path: Path) -> None:
    schema = {"state": ("float64", (2,)), "action": ("float32", (1,)), "done": "bool"}
    with writer.make(tmp_path / "b", 4, schema=schema) as buffer:
        assert buffer.schema is None  # the rest is still open
        buffer.push([0.1, 0.2], [0.3], 1, [0.4, 0.5], True)
        writer.settle(buffer)
        batch = buffer.sample(1)
        types = ["float64", "float32", "float32", "float64", "bool"]
        assert [str(array.dtype) for array in batch[:5]] == types
        assert batch.states.tolist() == [[0.1, 0.2]]


def test_the_arrays_of_the_caller_are_not_kept(writer: Exclusive, tmp_path: Path) -> None:
    with writer.make(tmp_path / "b") as buffer:
        data = columns(0, 5)
        buffer.extend(**data)
        data["states"][:] = -1
        writer.settle(buffer)
        batch = buffer.sample(5)
        batch.states[:] = -2
        assert numbers_of(buffer.get(range(5))).tolist() == list(range(5))


@pytest.mark.parametrize("window_bytes", [0, 1 << 20])
def test_clear_empties_and_write_ids_go_on(
    writer: Exclusive, window_bytes: int, tmp_path: Path
) -> None:
    with writer.filled(tmp_path / "b", window_bytes=window_bytes) as buffer:
        schema = buffer.schema
        buffer.clear()
        assert (len(buffer), buffer.first, buffer.count) == (0, COUNT, COUNT)
        assert (buffer.total_mass, list(buffer), buffer.schema) == (0.0, [], schema)
        with pytest.raises(SampleError):
            buffer.sample(1)
        with pytest.raises(NotLiveError):
            buffer.get([COUNT - 1])
        assert buffer.push(**row(COUNT), x=COUNT) == writer.ids(COUNT, 1)[0]
        buffer.check()
    with writer.open(tmp_path / "b", window_bytes=window_bytes) as buffer:
        assert numbers_in(buffer) == [COUNT]
        buffer.extend(**columns(COUNT + 1, 20), x=range(20))
        writer.settle(buffer)
        assert set(numbers_of(buffer.sample(21)).tolist()) <= set(range(COUNT, COUNT + 21))
        with pytest.raises(NotLiveError):
            buffer.get([COUNT - 1])
        buffer.check()


def test_first_and_total_mass_follow_what_is_live(writer: Exclusive, tmp_path: Path) -> None:
    one = writer.draws.masses([2.0])[0]
    with writer.make(tmp_path / "b", 4) as buffer:
        for first, (count, oldest) in {0: (3, 0), 3: (6, 2)}.items():
            buffer.extend(**columns(first, 3), **writer.draws.given([2.0] * 3))
            writer.settle(buffer)
            assert (buffer.first, buffer.count) == (oldest, count)
            assert buffer.total_mass == pytest.approx((count - oldest) * one)


def test_iterating_goes_on_while_transitions_are_evicted(writer: Exclusive, tmp_path: Path) -> None:
    with writer.make(tmp_path / "b", 600) as buffer:
        buffer.extend(**columns(0, 600))
        writer.settle(buffer)
        seen = []
        for experience in buffer:
            assert isinstance(experience, diskreplay.Experience)
            seen.append(int(experience.reward * 8))
            if len(seen) == 10:
                buffer.extend(**columns(600, 400))
                writer.settle(buffer)
        # A part was read already; after it comes what is still live.
        assert seen == [*range(256), *range(400, 600)]


def test_save_makes_a_store_that_goes_on_alike(writer: Exclusive, tmp_path: Path) -> None:
    with writer.filled(tmp_path / "b") as buffer:
        buffer.push(**row(COUNT), x=COUNT)  # which it commits first
        buffer.save(tmp_path / "copy")
        assert numbers_in(buffer) == [*LIVE[1:], COUNT]
        for place in (tmp_path / "copy", tmp_path / "b"):
            with pytest.raises(diskreplay.StorageError, match="holds a store already"):
                buffer.save(place)
        with pytest.raises(ArgumentError, match="a path must be a string"):
            buffer.save(5)
    with writer.open(tmp_path / "copy") as copy:
        copy.check()
        assert (copy.capacity, copy.count) == (buffer.capacity, COUNT + 1)
        assert numbers_in(copy) == [*LIVE[1:], COUNT]
        copy.push(**row(COUNT + 1), x=0)
        writer.settle(copy)
        assert copy.count == COUNT + 2


def test_a_closed_replay_takes_nothing(writer: Exclusive, tmp_path: Path) -> None:
    with writer.filled(tmp_path / "b") as buffer:
        pass
    for call in (
        lambda: buffer.push(**row(0)),
        lambda: buffer.extend(**columns(0, 2)),
        buffer.clear,
    ):
        with pytest.raises(ClosedError, match="is closed: open it again"):
            call()


def test_of_two_openings_in_one_process_the_second_is_refused(
    writer: Exclusive, tmp_path: Path
) -> None:
    with writer.make(tmp_path / "b") as buffer:
        for access in ("exclusive", "shared", "read"):
            with pytest.raises(LockedError, match="is open in this process already"):
                diskreplay.open(tmp_path / "b", access=access)
        buffer.push(**row(0))
    with writer.open(tmp_path / "b") as again:
        assert numbers_in(again) == [0]
