"""The observation log of a buffer: what is kept once, for how long, and what is said about it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import facts, shown
from common import run_python
from env_streams import STACK, EnvStream, columns_of, frame_of

import diskreplay
from diskreplay import ReplayBuffer, Schema
from diskreplay.records import Codec, layout_of
from diskreplay.store import State, Store


def log_of(path: Path) -> tuple[State, dict[str, Any]]:
    """Return the state of a store, and the layout of its log."""
    store = Store(path)
    try:
        with store.snapshot() as snapshot:
            state = State.parse(snapshot.meta("state"), store.identity)
            return state, snapshot.meta("layout").get("observations", {})
    finally:
        store.close()


def count_in(path: Path) -> int:
    return log_of(path)[0].observations.count


def single(number: int) -> dict[str, Any]:
    """Return a transition between two frames, without a stack."""
    return {
        "state": frame_of(number), "action": 0, "reward": 1.0, "next_state": frame_of(number + 1),
        "done": False,
    }  # fmt: skip


@pytest.mark.parametrize("access", ["exclusive", "shared"])
def test_a_step_adds_one_frame(access: str, tmp_path: Path) -> None:
    envs = [EnvStream() for _ in range(4)]
    path = tmp_path / "b"
    with ReplayBuffer(1000, path=path, access=access, frame_axis=0) as buffer:
        for env, stream in enumerate(envs):
            stream.reset(env)
        for step in range(10):
            rows = [stream.step(4 + 4 * step + env) for env, stream in enumerate(envs)]
            buffer.extend(**columns_of(rows))
    assert count_in(path) == 4 + 40  # the first frame of each environment, and one for each step


@pytest.mark.parametrize("access", ["exclusive", "shared"])
def test_the_last_observations_are_found_after_opening(access: str, tmp_path: Path) -> None:
    stream, path = EnvStream(), tmp_path / "b"
    for opening in range(5):
        with ReplayBuffer(1000, path=path, access=access, frame_axis=0) as buffer:
            for step in range(3):
                buffer.push(**stream.step(1 + 3 * opening + step))
        assert count_in(path) == 1 + 3 * (opening + 1)


def test_the_last_observations_are_found_after_a_kill(tmp_path: Path) -> None:
    run_python(
        f"""
        import os, signal
        from env_streams import EnvStream
        from diskreplay import ReplayBuffer
        buffer, stream = ReplayBuffer(1000, path={str(tmp_path / "b")!r}, frame_axis=0), EnvStream()
        for step in range(1, 8):
            buffer.push(**stream.step(step))
        buffer.flush()
        os.kill(os.getpid(), signal.SIGKILL)
        """,
        check=False,
    )
    stream = EnvStream()
    for step in range(1, 8):
        stream.step(step)
    assert count_in(tmp_path / "b") == 8
    with ReplayBuffer(1000, path=tmp_path / "b", frame_axis=0) as buffer:
        buffer.push(**stream.step(8))
    assert count_in(tmp_path / "b") == 9


def test_a_frame_that_differs_in_one_bit_is_another_one(tmp_path: Path) -> None:
    with ReplayBuffer(10, path=tmp_path / "b", observations="log") as buffer:
        buffer.push(**single(6))  # the frames 6 and 7 differ in one bit
        batch = buffer.get([0])
        np.testing.assert_array_equal(batch.states[0], frame_of(6))
        np.testing.assert_array_equal(batch.next_states[0], frame_of(7))
    assert count_in(tmp_path / "b") == 2


@pytest.mark.parametrize("rows_in_commit", [1, 7, 200])
@pytest.mark.parametrize("period", [16, 30, 33, 62, 63, 64, 65, 66, 97])
def test_no_live_record_needs_what_is_removed(
    period: int, rows_in_commit: int, tmp_path: Path
) -> None:
    """Frames that come again after a period around the reach of 64."""
    path = tmp_path / "b"
    settings = {"path": path, "observations": "log", "window_bytes": 0, "commit_interval": 1e9}
    buffer = ReplayBuffer(3, **settings)  # type: ignore[arg-type]
    for begin in range(0, 250, rows_in_commit):
        rows = [single(number % period) for number in range(begin, begin + rows_in_commit)]
        ids = buffer.extend(**columns_of(rows))[-3:]
        if rows_in_commit == 1 and begin % 7:
            continue
        buffer.close()
        buffer = ReplayBuffer(3, **settings)  # type: ignore[arg-type]
        found = buffer.get(ids)
        for state, next_state, row in zip(
            found.states, found.next_states, rows[-len(ids) :], strict=True
        ):
            np.testing.assert_array_equal(state, row["state"])
            np.testing.assert_array_equal(next_state, row["next_state"])
    buffer.close()
    state, layout = log_of(path)
    assert layout["reach"] == 64
    assert state.observations.count - state.observations.first <= 2 * 64
    assert diskreplay.verify(path) == []


@pytest.mark.parametrize("back", [1, 15, 28, 31, 40, 64])
def test_live_records_that_refer_far_back_keep_their_entries(back: int, tmp_path: Path) -> None:
    """Each next state is the state of some rows before; each frame has a value of its own."""
    path, frames = tmp_path / "b", np.zeros((200, 40_000), np.uint8)
    frames[:, 7] = range(200)
    with ReplayBuffer(
        4, path=path, observations="log", window_bytes=0, commit_interval=0.0
    ) as buffer:
        for row in range(200):
            buffer.push(frames[row], 0, 0.0, frames[max(0, row - back)], False)
            if row > 150:
                found = buffer.get(range(row - 3, row + 1))
                assert found.next_states[:, 7].tolist() == [
                    n - back for n in range(row - 3, row + 1)
                ]
                buffer.check()
    assert log_of(path)[1] == {"entries_per_value": 1, "reach": 64}
    assert (count_in(path) == 200) == (back < 64)
    assert diskreplay.verify(path) == []


def records_of(path: Path) -> list[Any]:
    """Return the columns of all live records, oldest first."""
    store = Store(path)
    try:
        with store.snapshot() as snapshot:
            live = State.parse(snapshot.meta("state"), store.identity).live(store.identity)
            codec = Codec(Schema.from_stored(snapshot.meta("schema"), "").record_schema)
            grouping = layout_of(snapshot.meta("layout"), "").grouping(codec.record_bytes)
            ids = np.arange(live.first, live.count)
            slots = live.slots(ids)
            return codec.decode(snapshot.records(slots, grouping), ids, slots)
    finally:
        store.close()


@pytest.mark.parametrize("before", range(0, 17, 2))
def test_no_record_refers_further_back_than_the_reach(before: int, tmp_path: Path) -> None:
    """One state again and again, with next states that are all new: its entry gets old."""
    n = before + 150
    numbers = np.arange(n, dtype=np.float64)[:, None]
    states = np.where(numbers < before, numbers + 1000, 2000)
    with ReplayBuffer(200, path=tmp_path / "b", observations="log") as buffer:
        buffer.extend(states, [0] * n, [0.0] * n, numbers, [False] * n)
    old, _, _, new, _ = records_of(tmp_path / "b")
    assert log_of(tmp_path / "b")[1]["reach"] == 64
    count = np.maximum.accumulate(np.maximum(old, new)) + 1  # of the log, after each record
    assert (np.minimum(old, new) >= count - 64).all()
    assert len(np.unique(old)) < before + 8  # it is found again, for most of a reach


def test_a_clear_empties_the_log(tmp_path: Path) -> None:
    path, stream = tmp_path / "b", EnvStream()
    with ReplayBuffer(100, path=path, frame_axis=0) as buffer:
        for step in range(1, 50):
            buffer.push(**stream.step(step))
        buffer.flush()
        buffer.clear()
    state, _ = log_of(path)
    assert state.observations.first == state.observations.count == 50
    with ReplayBuffer(100, path=path, frame_axis=0) as buffer:
        row = stream.step(60)
        buffer.push(**row)
        np.testing.assert_array_equal(buffer.sample(1).states[0], row["state"])
    assert count_in(path) == 50 + STACK + 1  # nothing is referred to from before the clear


def test_the_file_is_flat_from_the_second_lap_on(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    sizes = []
    with ReplayBuffer(300, path=tmp_path / "b", frame_axis=0, codec=None) as buffer:
        stack = rng.integers(0, 255, (4, 40, 40), dtype=np.uint8)
        for step in range(6 * 300):
            frame = rng.integers(0, 255, (1, 40, 40), dtype=np.uint8)
            stack, last = np.concatenate([stack[1:], frame]), stack
            buffer.push(last, 0, 0.0, stack, False)
            if step % 300 == 299:
                buffer.flush()
                sizes.append(buffer.stats()["disk_bytes"])
        assert buffer.stats()["observations_bytes"] <= 1.5 * 300 * 40 * 40
    assert sizes[-1] <= 1.05 * sizes[2]


def test_the_layout_of_a_store_is_its_own(tmp_path: Path) -> None:
    path = tmp_path / "b"
    row = EnvStream().step(3)
    with ReplayBuffer(10, path=path, frame_axis=0) as buffer:
        buffer.push(**row)
    for same in ({}, {"frame_axis": 0}, {"frame_axis": 0, "observations": "log"}):
        with ReplayBuffer(10, path=path, **same) as buffer:  # type: ignore[arg-type]
            assert buffer.schema is not None
            assert buffer.schema["state"].place == "in the log, frame axis 0"
    for other, place in (
        ({"observations": "record"}, "in the record"),
        ({"observations": "log"}, "in the log"),
        ({"frame_axis": 1}, "in the log, frame axis 1"),
        (
            {"schema": {"state": diskreplay.Field("state", "u1", (3, 2, 400), log=True)}},
            "in the log",
        ),
    ):
        with pytest.raises(diskreplay.MismatchError, match=f"frame axis 0 in .*expected.*{place}"):
            ReplayBuffer(10, path=path, **other)  # type: ignore[arg-type]


def test_a_schema_says_it_for_a_field(tmp_path: Path) -> None:
    fields = {"state": diskreplay.Field("state", "uint8", (3, 2, 400), frame_axis=0)}
    with ReplayBuffer(10, path=tmp_path / "b", schema=fields) as buffer:
        buffer.push(**EnvStream().step(3), mask=np.zeros(4))
        assert buffer.schema is not None
        assert [field.log for field in buffer.schema.fields] == [True, False, False, True] + [
            False
        ] * 2
        assert buffer.schema["next_state"].frame_axis == 0


def test_refused_arguments() -> None:
    with pytest.raises(diskreplay.ArgumentError, match="observations must be one of record, log"):
        ReplayBuffer(10, observations="file")
    with pytest.raises(diskreplay.ArgumentError, match="found observations='record'"):
        ReplayBuffer(10, observations="record", codec="lz4")
    with pytest.raises(diskreplay.ArgumentError, match="number of an axis of the states"):
        ReplayBuffer(10, frame_axis=0.5)  # type: ignore[arg-type]
    with ReplayBuffer(10, frame_axis=0) as buffer:
        with pytest.raises(diskreplay.SchemaError, match="states with several dimensions"):
            buffer.push([0.0, 1.0], 0, 1.0, [0.0, 1.0], False)
        assert len(buffer) == 0
    with (
        ReplayBuffer(10, frame_axis=3) as buffer,
        pytest.raises(diskreplay.SchemaError, match=r"axis of the shape \(3, 2, 400\)"),
    ):
        buffer.push(**EnvStream().step(1))


@pytest.mark.parametrize("has_schema", [False, True])
def test_load_puts_a_store_into_another_layout(has_schema: bool, tmp_path: Path) -> None:
    stream = EnvStream()
    rows = [stream.step(number % 9) for number in range(40)]
    with ReplayBuffer(30, path=tmp_path / "plain") as plain:
        plain.extend(**columns_of(rows))
    layouts: dict[str, dict[str, Any]] = {
        "frames": {"frame_axis": 0}, "whole": {"observations": "log"},
        "back": {"observations": "record"}, "own": {},
    }  # fmt: skip
    source = tmp_path / "plain"
    for name, layout in layouts.items():
        with ReplayBuffer(30, path=tmp_path / name, **layout) as buffer:
            if has_schema:
                buffer.push(**rows[0])
            buffer.load(source)
            assert buffer.schema is not None
            field = buffer.schema["state"]
            assert field.log == (name in ("frames", "whole"))
            assert field.frame_axis == layout.get("frame_axis")
            np.testing.assert_array_equal(
                buffer.get(range(buffer.first, buffer.count)).next_states,
                [row["next_state"] for row in rows[10:]],
            )
            buffer.check()
        assert diskreplay.verify(tmp_path / name) == []
        source = tmp_path / name


def test_the_tools_say_where_observations_are(tmp_path: Path) -> None:
    path, stream = tmp_path / "b", EnvStream()
    with ReplayBuffer(100, path=path, frame_axis=0) as buffer:
        for step in range(20):
            buffer.push(**stream.step(step))
    text = shown(path)
    assert re.search(r"state +uint8\[3, 2, 400\].*\n +in the log, frame axis 0\n", text)
    assert re.search(r"observations +\d.* kB, for .* of payload", text)
    assert facts(path)["observations_bytes"] > 0
