"""`diskreplay inspect` of some transitions, also beside a writer that evicts them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stores
from commands import WIDTHS, facts, refused, shown
from common import columns, row
from diskreplay_tools import stores as reading
from others import Other

import diskreplay
from diskreplay import PrioritizedReplayBuffer, ReplayBuffer


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Write ids 1000 to 1349 are live, with the priorities 0, 1/3, 2/3, ..."""
    return stores.prioritized(tmp_path / "b")


def test_the_largest_and_the_smallest_priorities(store: Path) -> None:
    found = facts(store, "--top", 3)
    assert [each["write_id"] for each in found["transitions"]] == [1349, 1348, 1347]
    priorities = [each["priority"] for each in found["transitions"]]
    np.testing.assert_allclose(priorities, [349 / 3, 116, 347 / 3])
    expected = {
        name: np.asarray(value).astype(np.float32 if name != "action" else np.int64).tolist()
        for name, value in row(1349).items()
    }
    assert found["transitions"][0]["fields"] == expected
    assert (found["count"], found["evicted"]) == (1350, 0)

    found = facts(store, "--bottom", 2)
    assert [each["write_id"] for each in found["transitions"]] == [1000, 1001]
    text = shown(store, "--bottom", 2)
    assert "2 of 350 transitions: the smallest priorities" in text
    assert "write id 1,001, priority 0.3333, age 348" in text
    assert text.index("write id 1,000") < text.index("write id 1,001")


def test_the_newest_and_a_single_one(store: Path) -> None:
    found = facts(store, "--last", 4)
    assert [each["write_id"] for each in found["transitions"]] == [1349, 1348, 1347, 1346]
    assert [each["age"] for each in found["transitions"]] == [0, 1, 2, 3]
    assert len(facts(store, "--last", 1000)["transitions"]) == 350
    (one,) = facts(store, "--at", 1003)["transitions"]
    assert (one["write_id"], one["priority"], one["fields"]["reward"]) == (1003, 1.0, 1003 / 8)
    assert "state       float32[3]  3,009 3,010 3,011" in shown(store, "--at", 1003)


def test_views_that_cannot_be_had(store: Path, tmp_path: Path) -> None:
    stores.uniform(tmp_path / "u")
    for view in ("--top", "--bottom"):
        message = refused("inspect", tmp_path / "u", view, 3)
        assert "holds a uniform buffer, which has no priorities" in message
        assert "--last 3" in message
    message = refused("inspect", store, "--at", 999)
    assert "write id 999 was evicted, or cleared: 1000 to 1349 are live in" in message
    message = refused("inspect", store, "--at", 1350)
    assert "write id 1350 was not written yet: 1000 to 1349 are live in" in message
    message = refused("inspect", store, "--top", 3, "--last", 3, status=2)
    assert "--top and --last are two views" in message
    assert "x>=0" in refused("inspect", store, "--at", -1, status=2)
    assert "1<=x<=1000" in refused("inspect", store, "--last", 1001, status=2)


def test_long_arrays_are_abbreviated_and_described(tmp_path: Path) -> None:
    state = np.arange(500, dtype=np.float32)
    state[3] = np.nan
    with ReplayBuffer(10, path=tmp_path / "b") as buffer:
        buffer.push(state, 0, 0.0, state, False, mask=np.arange(500) % 2 == 0, none=np.zeros(0))
    for width in WIDTHS:
        text = shown(tmp_path / "b", "--last", 1, columns=width)
        assert "0 1 2 nan " in text
        assert " ... 499" in text
        assert "0 to 499, mean 250" in text.replace("\n", " ")
        assert "1 NaN" in text
        assert "250 of 500 true" in text
        assert "(empty)" in text


@pytest.mark.parametrize(
    ("shape", "what"),
    [
        ((84, 84), "image"),
        ((84, 84, 4), "frame 4 of 4"),
        ((4, 84, 84), "frame 4 of 4"),
        ((1, 84, 84), "image"),
        ((84, 84, 3), "mean of 3 channels"),
        ((8, 8), "image"),
    ],
)
def test_images_are_shown_as_pictures(shape: tuple[int, ...], what: str, tmp_path: Path) -> None:
    frames = np.full(shape, 7, np.uint8)
    last: tuple[Any, ...] = {"frame 4 of 4": 3}.get(what, slice(None)),  # type: ignore[assignment]  # fmt: skip
    place = (..., *last) if shape[-1] < 8 else (*last, ...) if shape[0] < 8 else (...,)
    half = frames[place].reshape(shape[-2] if shape[0] < 8 else shape[0], -1).shape[0] // 2
    picture = frames[place]
    if shape[0] == 1:
        picture = frames[0]
    picture[:half] = 200
    with ReplayBuffer(10, path=tmp_path / "b") as buffer:
        buffer.push(frames, 0, 0.0, frames, False)
    text = shown(tmp_path / "b", "--last", 1)
    assert f"{what}, 7 to 200" in text
    lines = text[text.index("  state  ", text.index("done")) :].splitlines()
    assert re.fullmatch(r"  state +next_state", lines[0])
    drawn = lines[1:]
    assert all("█" in line for line in drawn[: len(drawn) // 2])
    assert not any(line.strip(" │") for line in drawn[-(-len(drawn) // 2) :])


@pytest.mark.parametrize("shape", [(7, 84), (84, 84, 84, 1), (4, 4, 84), (64,)])
def test_what_is_no_image_is_shown_as_numbers(shape: tuple[int, ...], tmp_path: Path) -> None:
    with ReplayBuffer(10, path=tmp_path / "b") as buffer:
        buffer.push(np.zeros(shape, np.uint8), 0, 0.0, np.zeros(shape, np.uint8), False)
    assert "0 0 0" in shown(tmp_path / "b", "--last", 1)


# Beside a writer


def test_who_has_it_open_is_told_without_oneself(store: Path) -> None:
    with Other(store) as writer:
        assert writer.open(1100) == 350
        pid = writer.process.pid
        (who,) = facts(store)["openers"]
        assert (who["pid"], who["access"]) == (pid, "exclusive")
        text = shown(store)
        assert re.search(rf"Open now\n  pid {pid} on \S+\n    exclusive, since 20", text), text


def test_a_look_has_the_newest_priorities(tmp_path: Path, other: Other) -> None:
    other.open(20)
    other.extend(0, 20, list(range(20)))
    other.flush()
    with diskreplay.open(tmp_path / "b", access="read") as reader:
        assert isinstance(reader, PrioritizedReplayBuffer)
        assert len(reader) == 20
        other.extend(20, 5, [50, 51, 52, 53, 54])
        other.flush()
        found = reading.newest_priorities(reader, 0, 20)
        assert found.tolist() == list(range(5, 20))
        summary = reading.summarise(reader)
        assert (summary.first, summary.count) == (5, 25)
        assert [summary.priority(n) for n in (5, 19, 24)] == [5, 19, 54]
        stale = reading.Summary(summary.stats, found[-4:])  # of write ids 21 to 24
        assert stale.priority(20) is None
        assert stale.priority(21) == 16


def test_equal_priorities_are_shown_oldest_first(tmp_path: Path) -> None:
    with PrioritizedReplayBuffer(100, path=tmp_path / "b") as buffer:
        buffer.extend(**columns(0, 100), priorities=np.arange(100) % 2)
    for view in ("--top", "--bottom"):
        found = [each["write_id"] for each in facts(tmp_path / "b", view, 20)["transitions"]]
        assert found == list(range(view == "--top", 40, 2))
