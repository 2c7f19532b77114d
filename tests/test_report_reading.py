from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from common import columns
from diskreplay_tools import report_reading as reading
from others import Other, shared
from reports import pixels, report
from stores import change, stored

import diskreplay
from diskreplay import PrioritizedReplayBuffer, ReplayBuffer

pytest.importorskip("matplotlib")
draw = pytest.importorskip("diskreplay_tools.report_figures")


@pytest.fixture
def buffer(tmp_path: Path) -> PrioritizedReplayBuffer:
    return PrioritizedReplayBuffer(1000, path=tmp_path / "b", seed=1, commit_interval=1e9)


# Episodes


def naive_episodes(
    ids: list[int], rewards: list[float], dones: list[bool], follows: list[bool], starts: set[int]
) -> list[tuple[int, int, float, bool]]:
    """End, length, return and whether it was cut off, of whole episodes: row by row."""
    inner = [
        follows[i]
        for i in range(1, len(ids))
        if ids[i] == ids[i - 1] + 1 and not dones[i - 1] and ids[i] not in starts
    ]
    follow = bool(inner) and sum(inner) / len(inner) >= 0.5
    found = []
    length, total, whole = 0, 0.0, ids[0] in starts
    for i, write_id in enumerate(ids):
        length, total = length + 1, total + rewards[i]
        last = i + 1 == len(ids)
        gap = not last and ids[i + 1] != write_id + 1
        new_run = not last and ids[i + 1] in starts
        cut = follow and not (last or gap or new_run or dones[i] or follows[i + 1])
        if (dones[i] or cut) and whole:
            found.append((write_id, length, total, cut))
        if dones[i] or cut or gap or new_run:
            length, total, whole = 0, 0.0, not gap
    return found


def test_episodes_are_cut_as_a_naive_twin_cuts_them() -> None:
    rng = np.random.default_rng(0)
    sizes = []
    for _ in range(300):
        n = int(rng.integers(1, 40))
        ids = np.cumsum(rng.choice([1, 1, 1, 1, 1, 1, 1, 3], n)) + int(rng.integers(5))
        rewards = rng.integers(-3, 4, n).astype(np.float64)
        dones = rng.random(n) < rng.choice([0.1, 0.4])
        follows = rng.random(n) < rng.choice([0.3, 0.9])
        starts = rng.choice(ids, int(rng.integers(0, 3)))
        found = reading.episodes_of(ids, rewards, dones, follows, starts)
        wanted = naive_episodes(
            ids.tolist(), rewards.tolist(), dones.tolist(), follows.tolist(), set(starts.tolist())
        )
        assert found.ends.tolist() == [end for end, *_ in wanted]
        assert found.lengths.tolist() == [length for _, length, *_ in wanted]
        assert found.returns.tolist() == [total for *_, total, _ in wanted]
        assert found.cut_off == sum(cut for *_, cut in wanted)
        sizes.append(len(wanted))
    assert max(sizes) > 5


def walk(buffer: Any, ends: list[tuple[int, bool]]) -> None:
    """Push episodes of lengths, each of which is done or cut off."""
    for length, done in ends:
        for step in range(length):
            is_last = step == length - 1
            buffer.push([float(step)], 0, 1.0, [step + 1.0], done and is_last)


@pytest.mark.parametrize("rows_at_once", [1, 4, 1024])
def test_an_episode_that_was_cut_off_is_seen_by_its_states(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows_at_once: int
) -> None:
    monkeypatch.setattr(reading, "_BATCH_ROWS", rows_at_once)
    for ends in ([(5, True), (7, False), (3, True)], [(4, True), (6, True)]):
        with ReplayBuffer(100, path=tmp_path / "b") as buffer:
            walk(buffer, [*ends, (2, False)])  # the run is left in the middle of an episode
    with diskreplay.open(tmp_path / "b", access="read") as buffer:
        runs = [(0, 17), (17, 29)]
        found = reading.Reader(buffer, lambda done, total: None).episodes(runs)
    assert found.lengths.tolist() == [5, 7, 3, 4, 6]
    assert found.returns.tolist() == [5, 7, 3, 4, 6]
    assert found.cut_off == 1


def test_episodes_of_runs_that_took_turns_are_not_drawn(tmp_path: Path, other: Other) -> None:
    other.open(1000, access="shared")
    with shared(tmp_path / "b") as buffer:
        for first in range(0, 40, 20):
            buffer.extend(**columns(first, 10))
            buffer.flush()
            other.extend(first + 10, 10)
            other.flush()
    text = report(tmp_path / "b", tmp_path / "report.html").text
    assert "several runs wrote at the same time, or a merge interleaved them" in text
    assert "Where runs overlap they took turns" in text
    assert "at most 30" in text


# Images


@pytest.mark.parametrize(
    ("shape", "sides", "part"),
    [
        ((9, 12), (9, 12), ""),
        ((9, 12, 1), (9, 12), ""),
        ((1, 9, 12), (9, 12), ""),
        ((9, 12, 3), (9, 12, 3), ""),
        ((3, 9, 12), (9, 12, 3), ""),
        ((9, 12, 4), (9, 12), "of 4 stacked frames"),
        ((4, 9, 12), (9, 12), "of 4 stacked frames"),
        ((9, 12, 9), (9, 12, 3), "of 3 stacked frames"),
        ((2, 9, 12, 3), (9, 12, 3), "of 2 stacked frames"),
        ((2, 1, 9, 12), (9, 12), "of 2 stacked frames"),
        ((210, 400), (70, 134), ""),
        ((7, 12), None, ""),
        ((9, 3, 12), None, ""),
        ((0, 9, 12), None, ""),
        ((60,), None, ""),
    ],
)
def test_images_are_known_by_their_shape(
    shape: tuple[int, ...], sides: tuple[int, ...] | None, part: str
) -> None:
    assert draw.is_image(np.dtype(np.uint8), shape) is (sides is not None)
    assert not draw.is_image(np.dtype(np.float32), shape)
    if sides is not None:
        state = np.zeros(shape, np.uint8)
        frame = draw.frame_of(state)
        assert frame.shape == sides
        assert part in draw.how_stacked(shape)
        assert bool(part) is bool(draw.how_stacked(shape))


def test_the_channels_keep_their_order() -> None:
    last = np.arange(9 * 12 * 3, dtype=np.uint8).reshape(9, 12, 3)
    for state in (last, np.moveaxis(last, 2, 0), np.stack([last * 0, last])):
        np.testing.assert_array_equal(draw.frame_of(state), last)
    stack = np.arange(4 * 9 * 12, dtype=np.uint8).reshape(4, 9, 12)
    for state in (stack, np.moveaxis(stack, 0, 2)):
        np.testing.assert_array_equal(draw.frame_of(state), stack[3])


# What is read


def test_of_a_large_store_a_part_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with PrioritizedReplayBuffer(5000, path=tmp_path / "b") as buffer:
        buffer.extend(**columns(0, 4000), priorities=np.arange(4000) % 999)
    monkeypatch.setattr(reading, "SPREAD_ROWS", 400)
    monkeypatch.setattr(reading, "PRIORITIES", 1000)
    monkeypatch.setattr(reading, "READ_BYTES", 500 * 40)
    text = report(tmp_path / "b", tmp_path / "report.html").text
    assert re.search(r"400 of 4,000 transitions, spread evenly: from [\d.]+ to 49[89]", text)
    assert "1,000 of 4,000 transitions, spread evenly: from 0 to 998" in text
    assert "From the newest 500 of 4,000 transitions" in text
    assert "Length of 100 whole episodes: every one is 5" not in text  # the first is cut
    assert "Length of 99 whole episodes: every one is 5" in text


def test_the_highest_and_lowest_are_found_among_all(
    buffer: PrioritizedReplayBuffer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "PRIORITIES", 10)
    monkeypatch.setattr(reading, "_PRIORITIES_AT_ONCE", 64)
    rng = np.random.default_rng(0)
    values = rng.permutation(900).astype(np.float32) + 1
    buffer.extend(**columns(0, 900), priorities=values)
    found = reading.Reader(buffer, lambda done, total: None).priorities()
    assert found.highest.tolist() == np.argsort(-values)[:12].tolist()
    assert found.lowest.tolist() == np.argsort(values)[:12].tolist()
    assert found.write_ids.tolist() == list(range(0, 900, 90))
    np.testing.assert_array_equal(found.values, values[::90])


def test_what_a_writer_evicts_meanwhile_is_left_out(tmp_path: Path, other: Other) -> None:
    other.open(2000)
    other.extend(0, 2000)
    other.flush()
    writes = iter([(2000, 500), (2500, 1500)])

    def write(done: int, total: int) -> None:
        for numbers in [next(writes, None)]:
            if numbers:
                other.extend(*numbers)
                other.flush()

    with diskreplay.open(tmp_path / "b", access="read", window_bytes=0) as buffer:
        reader = reading.Reader(buffer, write)
        seen = [ids for ids, _ in reader.batches(np.arange(2000)[::-1])]
        assert [(ids[0], ids[-1]) for ids in seen] == [(1999, 976), (975, 500)]
        assert reader.spread().rows == 2000
        assert reader.damaged == set()


def test_a_damaged_record_is_left_out_and_told(tmp_path: Path) -> None:
    path = pixels(tmp_path / "b")
    with diskreplay.open(path, access="read") as buffer:
        per_value = buffer._ring._packing.per_value
    raw = bytearray(stored(path, "transitions", 2))
    raw[-200] ^= 1
    change(path, "transitions", 2, bytes(raw))
    slot = 3 * per_value - 1
    write_id = slot if slot >= 10 else slot + 50
    page = report(path, tmp_path / "report.html")
    told = f"1 transition could not be read and is left out (write id {write_id})"
    assert told in page.text
    assert "diskreplay repair" in page.text
    assert "49 of 50 transitions" in page.text
