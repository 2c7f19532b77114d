"""Large transitions of an exclusive writer: their observations have ids before the commit."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from inside import flush_interrupted
from interrupted import interrupted_at
from numpy.typing import NDArray
from refused import writes_refused
from test_log import count_in

import diskreplay
from diskreplay import ReplayBuffer, StorageError

CAPACITY = 64
SETTINGS: dict[str, Any] = {"frame_axis": 0, "window_bytes": 0, "commit_interval": 1e9}


def frames_at(numbers: Any) -> NDArray[np.uint8]:
    """Return a frame of 1600 bytes for each number."""
    frames = np.zeros((len(numbers), 1600), np.uint8)
    frames[:, 100:108] = np.array(numbers, np.int64)[:, None].view(np.uint8)
    return frames.reshape(-1, 40, 40)


def row_of(number: int, first: int = 0) -> dict[str, Any]:
    """Return a transition of stacks of four that moves on by a frame."""
    frames = frames_at(range(first + number, first + number + 5))
    return {
        "state": frames[:4], "action": number, "reward": 1.0, "next_state": frames[1:],
        "done": False,
    }  # fmt: skip


def columns_of(begin: int, n: int) -> dict[str, Any]:
    rows = [row_of(number) for number in range(begin, begin + n)]
    return {f"{name}s": np.stack([row[name] for row in rows]) for name in rows[0]}


def check_rows(buffer: ReplayBuffer, write_ids: range, first: int = 0) -> None:
    """Check that transitions are those of their write ids, or of other frames."""
    found = buffer.get(write_ids)
    assert found.actions.tolist() == list(write_ids)
    frames = frames_at(range(first + write_ids[0], first + write_ids[-1] + 5))
    for number, name in enumerate(("states", "next_states")):
        wanted = np.stack([frames[i + number : i + number + 4] for i in range(len(write_ids))])
        np.testing.assert_array_equal(getattr(found, name), wanted)


def live_of(buffer: ReplayBuffer) -> range:
    return range(buffer.first, buffer.count)


CALLS: dict[str, Callable[[ReplayBuffer], Any]] = {
    "push": lambda b: b.push(**row_of(b.count)),
    "extend": lambda b: b.extend(**columns_of(b.count, 5)),
    "large extend": lambda b: b.extend(**columns_of(b.count, 70)),
    "flush": lambda b: b.flush(),
    "clear": lambda b: b.clear(),
    "sample": lambda b: b.sample(4),
}


@pytest.mark.parametrize("name", CALLS)
def test_an_interrupt_at_any_line_leaves_all_or_nothing(
    name: str, tmp_path: Path, long: bool
) -> None:
    step = 1 if long else 3 if name in ("push", "clear") else 61 if name == "large extend" else 11
    buffer = ReplayBuffer(CAPACITY, path=tmp_path / "b", seed=1, **SETTINGS)
    buffer.extend(**columns_of(0, CAPACITY))
    line, came_so_far = 1, True
    while came_so_far:
        before = buffer.count
        CALLS["push"](buffer)  # so that there is something to commit
        came_so_far = interrupted_at(line, partial(CALLS[name], buffer))
        assert (buffer.count - before) in (1, 2, 6, 71)
        CALLS["push"](buffer)
        check_rows(buffer, live_of(buffer))
        buffer.check()
        if line % 5 == 1:
            buffer.close()
            buffer = ReplayBuffer(CAPACITY, path=tmp_path / "b", **SETTINGS)
            check_rows(buffer, live_of(buffer))
        line += step
    assert line > 10
    buffer.close()
    assert diskreplay.verify(tmp_path / "b") == []


def test_a_frame_adds_one_entry_whatever_was_interrupted(tmp_path: Path) -> None:
    path = tmp_path / "b"
    buffer = ReplayBuffer(1000, path=path, **SETTINGS)
    for _ in range(3):
        buffer.push(**row_of(buffer.count))
        flush_interrupted(buffer)  # after its end: the commit is there, and not noted
        buffer.push(**row_of(buffer.count))
        buffer.flush()
    check_rows(buffer, range(6))
    buffer.close()
    assert count_in(path) == 4 + 6


def test_a_call_that_was_undone_leaves_no_frames(tmp_path: Path) -> None:
    """Others get its ids, and are read as they were pushed."""
    path = tmp_path / "b"
    settings = {**SETTINGS, "commit_interval": 0.0, "window_bytes": 1 << 20}
    with ReplayBuffer(1000, path=path, **settings) as buffer:
        buffer.push(**row_of(0))
        with writes_refused(), pytest.raises(StorageError):
            buffer.push(**row_of(1, first=500))
        for number in (1, 2):
            buffer.push(**row_of(number))
        check_rows(buffer, range(3))
        with writes_refused(), pytest.raises(StorageError):
            buffer.extend(**columns_of(900, 5))
        buffer.push(**row_of(3))
        check_rows(buffer, range(4))
    assert count_in(path) == 4 + 4
    assert diskreplay.verify(path) == []


def test_frames_wait_for_a_commit_that_fails(tmp_path: Path) -> None:
    path = tmp_path / "b"
    with ReplayBuffer(1000, path=path, **SETTINGS) as buffer:
        for number in range(9):
            buffer.push(**row_of(number))
            if number % 3 == 1:
                with writes_refused(), pytest.raises(StorageError):
                    buffer.flush()
                check_rows(buffer, range(number + 1))
        buffer.flush()
        check_rows(buffer, range(9))
    assert count_in(path) == 4 + 9
    assert diskreplay.verify(path) == []


def test_frames_from_before_a_clear_that_was_not_noted_are_stored_anew(tmp_path: Path) -> None:
    path = tmp_path / "b"
    buffer = ReplayBuffer(1000, path=path, **SETTINGS)
    for number in range(40):
        buffer.push(**row_of(number))
    buffer.flush()
    buffer.clear()
    flush_interrupted(buffer)  # after its end: the log is empty, and that is not noted
    buffer.push(**row_of(38))
    buffer.close()
    assert count_in(path) == 4 + 40 + 5
    assert diskreplay.verify(path) == []


def test_transitions_in_the_window_refer_to_frames_of_any_age(tmp_path: Path) -> None:
    """Frames of 40 kB, of which a window without memory of its own holds some 200."""
    rng = np.random.default_rng(1)
    frames = np.zeros((700, 40_000), np.uint8)
    frames[:, 5000:5002] = np.arange(700, dtype=np.uint16)[:, None].view(np.uint8)
    settings = {**SETTINGS, "frame_axis": None, "observations": "log"}
    with ReplayBuffer(1 << 17, path=tmp_path / "b", **settings) as buffer:
        numbers: list[tuple[int, int]] = []
        for number in range(700):
            # Some refer far back: to the oldest frame that may be found, and beyond.
            back = number - int(rng.integers(0, min(number, 300) + 1))
            numbers.append((number, back))
            buffer.push(frames[number], 0, 0.0, frames[back], False)
            if number % 50 == 49:
                ids = np.arange(buffer.count)
                found = buffer.get(ids, fields=["state", "next_state"])
                for name, place in (("state", 0), ("next_state", 1)):
                    expected = [pair[place] for pair in numbers]
                    of_numbers = found[name][:, 5000:5002].copy().view(np.uint16)[:, 0]
                    assert of_numbers.tolist() == expected
    assert diskreplay.verify(tmp_path / "b") == []


def test_frames_that_are_read_take_no_place_of_those_that_wait(tmp_path: Path) -> None:
    """Each transition has eight frames of its own, more than the window counts on."""
    frames = np.zeros((500 * 8, 20_000), np.uint8)
    frames[:, :2] = np.arange(500 * 8, dtype=np.uint16)[:, None].view(np.uint8)
    stacks = frames.reshape(500, 2, 4, 20_000)
    settings = {"frame_axis": 0, "window_bytes": 64 << 20, "commit_interval": 1e9}
    with ReplayBuffer(200, path=tmp_path / "b", **settings) as buffer:
        for state, next_state in stacks[:200]:
            buffer.push(state, 0, 0.0, next_state, False)
    with diskreplay.open(tmp_path / "b", window_bytes=64 << 20, commit_interval=1e9) as buffer:
        for number in range(200, 500):
            state, next_state = stacks[number]
            buffer.push(state, 0, 0.0, next_state, False)
            if number % 10 == 0:
                ids = np.arange(buffer.first, buffer.count)
                found = buffer.get(ids)
                np.testing.assert_array_equal(found.states[..., :2], stacks[ids, 0, :, :2])
                np.testing.assert_array_equal(found.next_states[..., :2], stacks[ids, 1, :, :2])


@pytest.mark.parametrize("dtype", ["uint8", "float32", "bool"])
def test_stacks_are_stored_however_they_lie_in_memory(dtype: str, tmp_path: Path) -> None:
    frames = np.random.default_rng(2).integers(0, 2, (60, 50, 50)).astype(dtype)
    pairs = [
        (frames[:8:2], frames[2:10:2]),  # every second frame
        (frames[8:4:-1], frames[9:5:-1]),
        (frames[4:8].swapaxes(1, 2), frames[5:9].swapaxes(1, 2)),
        (np.asfortranarray(frames[5:9]), np.asfortranarray(frames[6:10])),
    ]
    with ReplayBuffer(100, path=tmp_path / "b", **SETTINGS) as buffer:
        for state, next_state in pairs:
            buffer.push(state, 0, 0.0, next_state, False)
        for _ in range(2):
            found = buffer.get(range(len(pairs)))
            for place, (state, next_state) in enumerate(pairs):
                np.testing.assert_array_equal(found.states[place], state)
                np.testing.assert_array_equal(found.next_states[place], next_state)
            buffer.flush()
    assert diskreplay.verify(tmp_path / "b") == []


@pytest.mark.parametrize("axis", [0, 2])
def test_stacks_continue_an_episode_however_they_come(axis: int, tmp_path: Path) -> None:
    """One by one or together, in any order in memory, in arrays that are written to again."""
    frames = np.random.default_rng(3).integers(0, 256, (45, 40, 60)).astype(np.uint8)
    settings = {**SETTINGS, "frame_axis": axis}

    def stacks(number: int) -> NDArray[np.uint8]:
        return np.stack(frames[number : number + 4], axis)

    number, used = 0, [np.empty_like(stacks(0), order=order) for order in ("C", "C", "F")]
    with ReplayBuffer(100, path=tmp_path / "b", **settings) as buffer, warnings.catch_warnings():
        warnings.simplefilter("error", diskreplay.EpisodeWarning)
        for first in [*used, *used[::-1]]:
            for second in used:
                if first is second:
                    pairs = [stacks(number + i) for i in range(3)]
                    columns = np.stack(pairs[:2]), [0, 0], [0.0, 0.0], np.stack(pairs[1:])
                    buffer.extend(*columns, [False, False])
                    number += 2
                    continue
                for _ in range(2):  # the second time both change, also what was pushed last
                    first[...], second[...] = stacks(number), stacks(number + 1)
                    buffer.push(first, 0, 0.0, second, False)
                    number += 1
        assert buffer.stats()["cuts"] == 0
        for number_of_state, found in enumerate(buffer.get(range(buffer.count)).states):
            np.testing.assert_array_equal(found, stacks(number_of_state))
        changed = stacks(number)
        changed[3, 39, 3] ^= 1
        with pytest.warns(diskreplay.EpisodeWarning):
            buffer.push(changed, 0, 0.0, stacks(number + 1), False)
        assert buffer.stats()["cuts"] == 1
    assert diskreplay.verify(tmp_path / "b") == []
