"""Groups of rows are stored once, whatever comes again, and whenever the server ends."""

from __future__ import annotations

from pathlib import Path

import pytest
from common import columns, numbers_of

import diskreplay
from diskreplay import ArgumentError, ReplayBuffer, SchemaError
from diskreplay.service.groups import Groups


def push(groups: Groups, buffer: ReplayBuffer, number: int, first: int, n: int = 5) -> int:
    """Push a group of rows, and return its first write id."""
    write_id, _ = groups.store("a", number, n, lambda: buffer.extend(**columns(first, n)))
    return write_id


@pytest.mark.parametrize("commit_interval", [0.0, 1e9])
def test_a_group_that_comes_again_is_stored_once(commit_interval: float, tmp_path: Path) -> None:
    settings = {"path": tmp_path / "b", "commit_interval": commit_interval}
    with ReplayBuffer(100, **settings) as buffer:
        groups = Groups(buffer)
        assert [push(groups, buffer, 1, 0), push(groups, buffer, 1, 0)] == [0, 0]
        assert push(groups, buffer, 2, 5) == 5
    with ReplayBuffer(100, **settings) as buffer:
        groups = Groups(buffer)
        assert push(groups, buffer, 2, 5) == 5
        assert push(groups, buffer, 3, 10) == 10
        assert numbers_of(buffer.get(range(15))).tolist() == list(range(15))
        assert (buffer.count, groups.repeated) == (15, 1)


def test_a_note_without_its_rows_is_no_group(tmp_path: Path) -> None:
    with ReplayBuffer(100, path=tmp_path / "b") as buffer:
        groups = Groups(buffer)
        push(groups, buffer, 1, 0)
        [(name, [number, _, n, when])] = buffer.notes().items()
        # As a kill leaves it that comes after the commit of the note, before the one of the rows.
        buffer.set_note(name, [number + 1, 5, n, when])
    with ReplayBuffer(100, path=tmp_path / "b") as buffer:
        Groups(buffer).store("other", 1, 5, lambda: buffer.extend(**columns(50, 5)))
    with ReplayBuffer(100, path=tmp_path / "b") as buffer:
        groups = Groups(buffer)
        assert push(groups, buffer, 2, 5) == 10
        assert numbers_of(buffer.get(range(10, 15))).tolist() == list(range(5, 10))


def test_a_refused_group_may_come_again_with_other_rows(tmp_path: Path) -> None:
    with ReplayBuffer(100, path=tmp_path / "b") as buffer:
        groups = Groups(buffer)
        push(groups, buffer, 1, 0)
        bad = {**columns(5, 5), "rewards": [float("nan")] * 5}
        with pytest.raises(SchemaError, match="finite"):
            groups.store("a", 2, 5, lambda: buffer.extend(**bad))
        groups.store("other", 1, 5, lambda: buffer.extend(**columns(50, 5)))
    with ReplayBuffer(100, path=tmp_path / "b") as buffer:
        assert push(Groups(buffer), buffer, 2, 5) == 10


def test_a_rewind_takes_the_groups_back_with_their_rows(tmp_path: Path) -> None:
    with ReplayBuffer(100, path=tmp_path / "b", keep_rows=100) as buffer:
        groups = Groups(buffer)
        push(groups, buffer, 1, 0)
        buffer.mark("begin")
        push(groups, buffer, 2, 5)
        buffer.rewind("begin")
        groups.recover()
        assert push(groups, buffer, 2, 5) == 5
        assert buffer.count == 10
        groups.forget("a")
        assert buffer.notes() == {}


def test_a_server_is_the_only_one_to_push(tmp_path: Path) -> None:
    ReplayBuffer(100, path=tmp_path / "b").close()
    with (
        diskreplay.open(tmp_path / "b", access="shared") as buffer,
        pytest.raises(ArgumentError, match="open it with access='exclusive', or 'read'"),
    ):
        Groups(buffer)
    with diskreplay.open(tmp_path / "b", access="read") as buffer:
        Groups(buffer)


@pytest.mark.parametrize(("client", "error"), [("bad", SchemaError), ("x" * 300, ArgumentError)])
def test_a_client_that_fails_and_leaves_stops_no_other(
    client: str, error: type[Exception], tmp_path: Path
) -> None:
    with ReplayBuffer(100, path=tmp_path / "b") as buffer:
        groups = Groups(buffer)
        push(groups, buffer, 1, 0)
        bad = {**columns(5, 5), "rewards": [float("nan")] * 5}
        with pytest.raises(error):
            groups.store(client, 1, 5, lambda: buffer.extend(**bad))
        push(groups, buffer, 2, 5)
        with pytest.raises(error):
            groups.store(client, 2, 5, lambda: buffer.extend(**bad))
        groups.forget(client)
        push(groups, buffer, 3, 10)
        assert numbers_of(buffer.get(range(15))).tolist() == list(range(15))
