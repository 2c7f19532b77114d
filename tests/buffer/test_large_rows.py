"""Large transitions, which are written field by field and put record by record."""

from __future__ import annotations

import itertools
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from interrupted import interrupted_at

import diskreplay
from diskreplay import ReplayBuffer, verify

CAPACITY = 7
SIZES = [4050, 4090, 8100, 8200, 28_224, 40_000]  # of a state: around each limit in the code


def row(number: int, size: int) -> dict[str, Any]:
    """Return the transition of a number; states are not contiguous, as those of wrappers are."""
    states = np.random.default_rng(number).integers(0, 256, (size, 4), np.uint8)
    return {
        "state": states[:, 0], "action": number, "reward": float(number),
        "next_state": states[:, 1], "done": number % 3 == 0, "truncated": number % 2 == 0,
    }  # fmt: skip


def columns(numbers: range, size: int) -> dict[str, Any]:
    rows = [row(number, size) for number in numbers]
    given = {name: np.array([one[name] for one in rows]) for name in rows[0]}
    return {f"{name}s": column for name, column in given.items()}


def assert_holds(buffer: Any, size: int) -> None:
    live = np.arange(max(0, buffer.count - CAPACITY), buffer.count)
    found = buffer.get(live)
    expected = columns(range(live[0], buffer.count), size)
    expected["truncated"] = expected.pop("truncateds")
    for name, column in expected.items():
        assert getattr(found, name).tolist() == column.tolist()


@pytest.mark.parametrize("access", ["exclusive", "shared"])
@pytest.mark.parametrize("size", SIZES)
def test_they_are_stored_bit_for_bit_on_every_lap(size: int, access: str, tmp_path: Path) -> None:
    path = tmp_path / "b"
    for number, n in enumerate([3, 1, 6, 2, 7, 1, 5, 4]):
        with ReplayBuffer(CAPACITY, path=path, access=access, commit_interval=1e9) as buffer:
            numbers = range(buffer.count, buffer.count + n)
            if number % 2:
                buffer.extend(**columns(numbers, size))
            else:
                for i in numbers:
                    buffer.push(**row(i, size))
            buffer.flush()
            assert_holds(buffer, size)
        with diskreplay.open(path, access="read", window_bytes=0) as buffer:
            assert buffer.count == numbers.stop
            assert_holds(buffer, size)
    assert verify(path) == []


def test_an_interrupt_at_any_line_of_a_push_leaves_all_or_nothing(tmp_path: Path) -> None:
    size = SIZES[-1]
    with ReplayBuffer(CAPACITY, path=tmp_path / "b", commit_interval=1e9) as buffer:
        buffer.extend(**columns(range(CAPACITY), size))
        for line in itertools.count(1):
            before = buffer.count
            again = interrupted_at(line, partial(buffer.push, **row(before, size)))
            assert buffer.count - before in (0, 1)
            if line % 3:  # some wait for the commit together
                buffer.flush()
            assert_holds(buffer, size)
            if not again:
                break
    assert line > 20
    with diskreplay.open(tmp_path / "b", window_bytes=0) as buffer:
        assert_holds(buffer, size)
