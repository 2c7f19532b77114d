"""Damaged records met while sampling: reported, or left out until they are written over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from common import columns, numbers_of
from others import Other
from stores import spoil

import diskreplay
from diskreplay import PrioritizedReplayBuffer, ReplayBuffer

KINDS = [ReplayBuffer, PrioritizedReplayBuffer]
ACCESS = ["exclusive", "shared", "read"]


def damaged(kind: Any, path: Path, n: int, slots: list[int], capacity: int = 10) -> Path:
    """Make a store of n transitions, and spoil the records in some slots."""
    with kind(capacity, path=path) as buffer:
        buffer.extend(**columns(0, n))
    spoil(path, slots)
    return path


def drawn(buffer: Any, n: int, times: int) -> set[int]:
    """Return the numbers of all transitions in some batches of n."""
    return {number for _ in range(times) for number in numbers_of(buffer.sample(n)).tolist()}


@pytest.mark.parametrize("access", ACCESS)
@pytest.mark.parametrize("kind", KINDS)
def test_skip_draws_all_but_the_damaged(kind: Any, access: str, tmp_path: Path) -> None:
    path = damaged(kind, tmp_path / "b", 80, [3, 30, 31, 49], capacity=50)
    sound = set(range(30, 80)) - {53, 30, 31, 49}
    arguments: dict[str, Any] = {"access": access, "window_bytes": 0, "seed": 1}
    with diskreplay.open(path, **arguments) as buffer:
        with pytest.raises(diskreplay.DamageError, match=r"write id \d+ in slot \d+ is damaged"):
            drawn(buffer, 20, times=50)
        assert buffer.stats()["damaged"] == 0
    with diskreplay.open(path, on_damage="skip", **arguments) as buffer:
        assert drawn(buffer, 20, times=200) == sound
        assert buffer.stats()["damaged"] == 4
        with pytest.raises(diskreplay.DamageError, match="write id 53 in slot 3"):
            buffer.get([53])
        with pytest.raises(diskreplay.DamageError):
            list(buffer)
        if isinstance(buffer, PrioritizedReplayBuffer):
            if access != "read":
                buffer.update_priorities([53, 54], [1000.0, 1.0])
            assert drawn(buffer, 20, times=1) <= sound
            buffer._table.check(buffer._live)
        else:
            assert sorted(numbers_of(buffer.sample(46)).tolist()) == sorted(sound)
            with pytest.raises(diskreplay.SampleError, match=r"47 .* of 50, of which damaged: 4"):
                buffer.sample(47)


@pytest.mark.parametrize("access", ACCESS)
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_over_a_damaged_record_is_drawn(
    kind: Any, access: str, tmp_path: Path, other: Other
) -> None:
    """By the buffer itself, or by another whom it follows."""
    path = damaged(kind, tmp_path / "b", 10, [0, 4])
    with diskreplay.open(path, access=access, window_bytes=0, on_damage="skip") as buffer:
        drawn(buffer, 8, times=20)
        assert buffer.stats()["damaged"] == 2
        writer: Any = buffer
        if access != "exclusive":
            writer, theirs = other, {"shared": "shared", "read": "exclusive"}[access]
            other.open(10, access=theirs, kind=kind.__name__)
        for first, n, expected in ((10, 3, {3, *range(5, 13)}), (13, 7, {*range(10, 20)})):
            if writer is other:
                other.extend(first, n)
            else:
                buffer.extend(**columns(first, n))
            writer.flush()
            assert drawn(buffer, 8, times=50) == expected
        buffer.check()


@pytest.mark.parametrize("kind", KINDS)
def test_when_all_are_damaged_there_is_nothing_to_draw(kind: Any, tmp_path: Path) -> None:
    path = damaged(kind, tmp_path / "b", 5, [*range(5)])
    buffer = diskreplay.open(path, window_bytes=0, on_damage="skip")
    with buffer, pytest.raises(diskreplay.SampleError):
        buffer.sample(1)


def test_priorities_of_the_damaged_count_again_after_reopening(tmp_path: Path) -> None:
    path = damaged(PrioritizedReplayBuffer, tmp_path / "b", 10, [9])
    with PrioritizedReplayBuffer(10, path=path, window_bytes=0, on_damage="skip") as buffer:
        buffer.update_priorities(range(10), np.arange(10) + 1.0)
        drawn(buffer, 4, times=10)
        assert buffer.stats()["damaged"] == 1
        assert buffer._table.tree.masses([9]) == [0.0]
    with PrioritizedReplayBuffer(10, path=path) as buffer:
        assert buffer.stats()["priority_max"] == 10.0
        assert buffer._table.tree.masses([9])[0] > 0.0


def test_a_file_with_damaged_pages_is_refused_before_the_engine_dies_of_it(tmp_path: Path) -> None:
    with ReplayBuffer(1000, path=tmp_path / "b") as buffer:
        buffer.extend(**columns(0, 1000))
    file = tmp_path / "b" / "data.mdb"
    sound = file.read_bytes()
    refused = 0
    for page in range(2, len(sound) // 4096):
        spoilt = bytearray(sound)
        spoilt[page * 4096 : (page + 1) * 4096] = bytes(4096)
        file.write_bytes(spoilt)
        try:
            diskreplay.open(tmp_path / "b").close()
        except diskreplay.DamageError as error:
            message = str(error)
            refused += f"page {page}" in message and "diskreplay.repair(" in message
    assert refused > 20  # the others are free
    file.write_bytes(sound)
    with diskreplay.open(tmp_path / "b") as buffer:
        assert len(buffer) == 1000
