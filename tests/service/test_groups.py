"""Groups of rows are stored once, whatever comes again, and whenever the server ends."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from common import columns, numbers_of
from interrupted import COMPUTING, interrupted_at
from kills import at_each_step
from noted import committed, stored
from refused import writes_refused

import diskreplay
from diskreplay import ArgumentError, ReplayBuffer, SchemaError, StorageError
from diskreplay.service.groups import Groups

MANY = 400  # rows that are more than can wait for a commit
PASSED_OVER = (*COMPUTING, "store", "sampling", "episodes")
INTERVALS = pytest.mark.parametrize("commit_interval", [0.0, 1e9])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "b"


def opened(path: Path, **settings: Any) -> ReplayBuffer:
    return ReplayBuffer(1000, path=path, window_bytes=0, durability="process", **settings)


def push(groups: Groups, buffer: ReplayBuffer, number: int, first: int, n: int = 5) -> int:
    """Push a group of rows, and return its first write id."""
    write_id, _ = groups.store("a", number, n, partial(buffer.extend, **columns(first, n)))
    return write_id


def rows_of(buffer: ReplayBuffer) -> list[int]:
    buffer.check()
    return numbers_of(buffer.get(range(buffer.first, buffer.count))).tolist()


def last_of(notes: dict[str, Any]) -> list[int]:
    """Return what the note of the client says of its last group: number, first write id, size."""
    return [int(part) for part in notes["service.client.a"][:3]]


@INTERVALS
@pytest.mark.parametrize("n", [5, MANY])
def test_a_group_that_comes_again_is_stored_once(
    commit_interval: float, n: int, path: Path
) -> None:
    with opened(path, commit_interval=commit_interval) as buffer:
        groups = Groups(buffer)
        assert [push(groups, buffer, 1, 0), push(groups, buffer, 1, 0)] == [0, 0]
        assert push(groups, buffer, 2, 5, n) == 5
        assert last_of(committed(buffer)) == [2, 5, n]
    with opened(path, commit_interval=commit_interval) as buffer:
        groups = Groups(buffer)
        assert push(groups, buffer, 2, 5, n) == 5
        assert push(groups, buffer, 3, 5 + n) == 5 + n
        assert rows_of(buffer) == list(range(10 + n))
        assert (groups.stored, groups.rows, groups.repeated) == (1, 5, 1)


def store_three(path: Path) -> None:
    with opened(path) as buffer:
        groups = Groups(buffer)
        for number, first, n in ((1, 0, 5), (2, 5, MANY), (3, 5 + MANY, 5)):
            push(groups, buffer, number, first, n)


def test_the_rows_and_the_note_of_a_group_are_in_one_commit(path: Path) -> None:
    found = set()
    for _ in at_each_step(lambda: store_three(path)):
        if (path / "diskreplay.json").exists():
            with diskreplay.open(path, access="read") as buffer:
                end = sum(last_of(buffer.notes())[1:]) if buffer.notes() else 0
                assert end == buffer.count
                found.add(end)
    assert found >= {0, 5, 5 + MANY}
    assert stored(path).keys() == {"service.client.a"}


@INTERVALS
@pytest.mark.parametrize("n", [5, MANY])
def test_a_group_is_stored_once_after_an_error_at_any_line(
    commit_interval: float, n: int, path: Path
) -> None:
    with opened(path, commit_interval=commit_interval) as buffer:
        groups = Groups(buffer)
        push(groups, buffer, 1, 0)
        line, was_interrupted, number = 1, True, 1
        while was_interrupted:
            number += 1
            again = partial(push, groups, buffer, number, number, n)
            first = buffer.count
            was_interrupted = interrupted_at(line, again, over=PASSED_OVER)
            assert again() == first
            assert buffer.count == first + n
            assert last_of(committed(buffer)) == [number, first, n]
            line += 1 if n == 5 else 7
    assert line > 50
    assert groups.repeated > 1


@INTERVALS
@pytest.mark.parametrize("n", [5, MANY])
def test_a_group_that_the_disk_refused_may_come_again(
    commit_interval: float, n: int, path: Path
) -> None:
    with opened(path, commit_interval=commit_interval) as buffer:
        groups = Groups(buffer)
        push(groups, buffer, 1, 0)
        for _ in range(2):
            with writes_refused(), pytest.raises(StorageError):
                push(groups, buffer, 2, 5, n)
        assert last_of(committed(buffer)) == [1, 0, 5]
        assert push(groups, buffer, 2, 5, n) == 5
        assert last_of(committed(buffer)) == [2, 5, n]
        assert rows_of(buffer) == list(range(5 + n))


def test_a_commit_that_failed_acknowledges_no_group_that_waited_for_it(path: Path) -> None:
    with opened(path, commit_interval=1e9) as buffer, ThreadPoolExecutor() as pool:
        groups = Groups(buffer)
        push(groups, buffer, 1, 0)
        add = partial(buffer.extend, **columns(5, 5))
        with writes_refused():
            with groups._committing:
                waiting = [pool.submit(groups.store, client, 1, 5, add) for client in "bc"]
                while groups.waiting < 2:
                    pass
            for one in waiting:
                with pytest.raises(StorageError):
                    one.result()


class Flushing(ReplayBuffer):
    """A buffer in whose next commit something happens, after its rows are chosen."""

    at_next: Callable[[], None] | None = None

    def flush(self) -> None:
        """Commit."""
        super().flush()
        act, self.at_next = self.at_next, None
        if act is not None:
            act()


def test_a_group_that_comes_in_a_commit_waits_for_the_next_one(path: Path) -> None:
    with Flushing(100, path=path, commit_interval=1e9) as buffer, ThreadPoolExecutor() as pool:
        groups = Groups(buffer)
        second = []

        def come() -> None:
            add = partial(buffer.extend, **columns(5, 5))
            second.append(pool.submit(groups.store, "b", 1, 5, add))
            while groups.waiting < 2:
                pass

        buffer.at_next = come
        push(groups, buffer, 1, 0)
        assert second[0].result() == (5, 5)
        assert committed(buffer).keys() == {"service.client.a", "service.client.b"}


@pytest.mark.parametrize(("client", "error"), [("bad", SchemaError), ("x" * 300, ArgumentError)])
def test_a_client_that_fails_and_leaves_stops_no_other(
    client: str, error: type[Exception], path: Path
) -> None:
    with opened(path) as buffer:
        groups = Groups(buffer)
        push(groups, buffer, 1, 0)
        bad = partial(buffer.extend, **{**columns(5, 5), "rewards": [float("nan")] * 5})
        for number in (1, 2):
            with pytest.raises(error):
                groups.store(client, number, 5, bad)
            push(groups, buffer, 1 + number, 5 * number)
        groups.forget(client)
        assert rows_of(buffer) == list(range(15))
        assert last_of(committed(buffer)) == [3, 10, 5]


def test_a_refused_group_may_come_again_with_other_rows(path: Path) -> None:
    with opened(path) as buffer:
        groups = Groups(buffer)
        push(groups, buffer, 1, 0)
        bad = {**columns(5, 5), "rewards": [float("nan")] * 5}
        with pytest.raises(SchemaError, match="finite"):
            groups.store("a", 2, 5, partial(buffer.extend, **bad))
        groups.store("other", 1, 5, partial(buffer.extend, **columns(50, 5)))
    with opened(path) as buffer:
        assert push(Groups(buffer), buffer, 2, 5) == 10


def test_the_first_write_id_stays_when_the_rows_are_gone(path: Path) -> None:
    with opened(path) as buffer:
        groups = Groups(buffer)
        push(groups, buffer, 1, 0, 10)
        groups.store("other", 1, 3 * MANY, partial(buffer.extend, **columns(10, 3 * MANY)))
        assert buffer.first > 10
        assert push(groups, buffer, 1, 0, 10) == 0
        buffer.clear()
        assert push(groups, buffer, 1, 0, 10) == 0
        assert push(groups, buffer, 2, 10) == 10 + 3 * MANY
    with opened(path) as buffer:
        assert push(Groups(buffer), buffer, 2, 10) == 10 + 3 * MANY


def test_a_rewind_takes_the_groups_back_with_their_rows(path: Path) -> None:
    with opened(path, keep_rows=100) as buffer:
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


def test_a_group_that_comes_again_after_its_client_has_left_is_stored_once(path: Path) -> None:
    with opened(path) as buffer:
        groups = Groups(buffer)
        push(groups, buffer, 1, 0)
        for _ in range(2):
            groups.forget("a")
            assert push(groups, buffer, 1, 0) == 0
            assert buffer.notes() == {}
        assert buffer.count == 5


def test_a_group_without_rows_is_one(path: Path) -> None:
    with opened(path) as buffer:
        groups = Groups(buffer)
        push(groups, buffer, 1, 0)
        assert push(groups, buffer, 2, 5, 0) == 5
        assert last_of(committed(buffer)) == [2, 5, 0]
        assert push(groups, buffer, 3, 5) == 5


# Notes of earlier servers, which committed them before the rows


@pytest.fixture
def by_an_earlier_server(path: Path) -> Path:
    """A store with the groups 1 and 2 of a client, of which the second came without its rows."""
    with opened(path) as buffer:
        buffer.set_note("service.client.a", [1, 0, 5, time.time()])
        buffer.extend(**columns(0, 5))
        buffer.set_note("service.client.b", [1, 5, 5, time.time()])
        buffer.extend(**columns(50, 5))
        buffer.set_note("service.client.a", [2, 10, 5, time.time()])
    return path


def test_a_group_without_its_rows_is_stored_when_it_comes_again(
    by_an_earlier_server: Path,
) -> None:
    with opened(by_an_earlier_server) as buffer:
        groups = Groups(buffer)
        other = partial(buffer.extend, **columns(50, 5))
        assert groups.store("b", 1, 5, other) == (5, 5)
        assert groups.store("b", 2, 5, other) == (10, 5)  # where the missing rows would be
    with opened(by_an_earlier_server) as buffer:
        groups = Groups(buffer)
        assert push(groups, buffer, 2, 5) == 15
        assert push(groups, buffer, 2, 5) == 15
        assert rows_of(buffer)[15:] == list(range(5, 10))


def test_a_reader_of_such_a_store_can_be_served(by_an_earlier_server: Path) -> None:
    with diskreplay.open(by_an_earlier_server, access="read") as buffer:
        Groups(buffer)
        assert last_of(buffer.notes()) == [2, 10, 5]


def test_the_note_of_a_client_that_never_left_is_deleted_one_day(path: Path) -> None:
    with opened(path) as buffer:
        push(Groups(buffer), buffer, 1, 0)
        days = time.time() - 31 * 86400
        buffer.set_note("service.client.gone", [1, 0, 5, days])
        buffer.set_note("own", [1, 0, 5, days])
        Groups(buffer)
        assert buffer.notes().keys() == {"service.client.a", "own"}


def test_a_server_is_the_only_one_to_push(path: Path) -> None:
    ReplayBuffer(100, path=path).close()
    with (
        diskreplay.open(path, access="shared") as buffer,
        pytest.raises(ArgumentError, match="open it with access='exclusive', or 'read'"),
    ):
        Groups(buffer)
    with diskreplay.open(path, access="read") as buffer:
        Groups(buffer)
