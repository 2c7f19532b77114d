"""A store that was made for a log and has no fields yet keeps that wish for its first push."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from others import Other
from stores import change, stored

import diskreplay
from diskreplay import DamageError, ReplayBuffer
from diskreplay.records.seals import seal, unseal

LOG: dict[str, Any] = {"observations": "log", "frame_axis": 0}
STATE = [[0.0], [1.0]]


def made(path: Path) -> Path:
    ReplayBuffer(9, path=path, **LOG).close()
    return path


def place_of(buffer: Any) -> tuple[bool, int | None]:
    field = buffer.schema["state"]
    return field.log, field.frame_axis


def pushed(buffer: Any) -> tuple[bool, int | None]:
    buffer.push(STATE, 0, 1.0, STATE, False)
    buffer.flush()
    return place_of(buffer)


@pytest.mark.parametrize("access", ["exclusive", "shared"])
def test_the_first_push_goes_into_the_log(access: str, tmp_path: Path) -> None:
    path = made(tmp_path / "b")
    with diskreplay.open(path, access=access) as buffer:
        assert pushed(buffer) == (True, 0)
    with ReplayBuffer(9, path=path, **LOG) as buffer:  # equals the store
        assert buffer.get([0]).states.tolist() == [STATE]


def test_arguments_count_more_than_the_wish(tmp_path: Path) -> None:
    path = made(tmp_path / "b")
    with ReplayBuffer(9, path=path) as buffer:
        assert len(buffer) == 0
    with ReplayBuffer(9, path=path, observations="record") as buffer:
        assert pushed(buffer) == (False, None)
    with diskreplay.open(path) as buffer:
        assert place_of(buffer) == (False, None)


def test_a_reader_takes_the_fields_as_they_come(tmp_path: Path) -> None:
    path = made(tmp_path / "b")
    with Other(path) as writer, diskreplay.open(path, access="read") as reader:
        writer.open(9, kind="ReplayBuffer", observations="record")
        writer.extend(0, 3)
        writer.flush()
        reader.refresh()
        assert len(reader) == 3
        assert not reader.schema["state"].log


def test_it_is_kept_by_copies_of_the_empty_store(tmp_path: Path) -> None:
    path = made(tmp_path / "b")
    diskreplay.resize(path, 20)
    diskreplay.compact(path)
    with diskreplay.open(path) as buffer:
        assert buffer.capacity == 20
        assert pushed(buffer) == (True, 0)


@pytest.mark.parametrize("wish", [3, {"observations": 5}, {"observations": "log", "codec": [1]}])
def test_a_wish_that_is_none_is_damage(wish: Any, tmp_path: Path) -> None:
    path = made(tmp_path / "b")
    plain = unseal(stored(path, "meta", "identity"), "identity", "identity")
    change(path, "meta", "identity", seal("identity", {**plain, "log": wish}))
    with pytest.raises(DamageError, match="the identity of"):
        diskreplay.open(path)
