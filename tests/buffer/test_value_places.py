"""Remembered places of values: as of each commit they are those that the engine looks up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from common import run_python
from inside import commits_refused, replica_of, store_of
from numbered_rows import CAPACITY, assert_rows, rows

from diskreplay import DamageError, ReplayBuffer, StorageError, open
from diskreplay.store import Store

WIDTHS = [60, 400, 7000]  # of states: records share a value, are alone in one, are large


def remembered(buffer: Any) -> int:
    """Check that each remembered place is where the engine finds the value; return their number."""
    replica = replica_of(buffer)
    grouping, store = replica.rows._grouping, store_of(buffer)
    places = store._env.places
    keys = np.arange(grouping.groups(buffer.capacity))
    with store.snapshot() as snapshot:
        found = places.starts(keys, grouping.value_bytes, snapshot._txn.id())
        if found is None:
            return 0
        starts, known = found
        values = snapshot._values(keys[known])
        for start, value, view in zip(
            starts[known],
            values,
            places.views(starts[known], grouping.value_bytes),
            strict=True,
        ):
            address = np.frombuffer(value, np.uint8).__array_interface__["data"][0]
            assert start == snapshot._read_ahead.offset_of(address)
            assert view == value
    return int(known.sum())


@pytest.mark.parametrize("width", WIDTHS)
def test_places_are_those_of_the_engine_after_any_calls(tmp_path: Path, width: int) -> None:
    """Pushes of some rows, commits, failed commits, clears, openings, and reads between them."""
    generator = np.random.default_rng(width)
    numbers: dict[int, int] = {}  # by write id
    most, n = 0, 0
    buffer = ReplayBuffer(CAPACITY, path=tmp_path / "b", window_bytes=0, commit_interval=1e9)
    buffer.extend(*rows(range(CAPACITY), width))
    numbers.update({i: i for i in range(CAPACITY)})
    for _ in range(150 if width < 1000 else 60):
        what = generator.choice(["extend", "get", "get", "get", "flush", "fail", "clear", "open"],
                                p=[0.2, 0.2, 0.2, 0.2, 0.08, 0.06, 0.02, 0.04])  # fmt: skip
        if what == "extend":
            n = int(generator.integers(1, 90))
            new = generator.integers(0, 1000, n)
            ids = buffer.extend(*rows(new, width))
            numbers.update(zip(ids.tolist(), new.tolist(), strict=True))
        elif what == "flush":
            buffer.flush()
        elif what == "fail":
            new = generator.integers(0, 1000, 30)
            ids = buffer.extend(*rows(new, width))
            numbers.update(zip(ids.tolist(), new.tolist(), strict=True))
            with commits_refused(buffer), pytest.raises(StorageError, match="refused"):
                buffer.flush()
        elif what == "clear":
            buffer.clear()
            new = generator.integers(0, 1000, CAPACITY)
            ids = buffer.extend(*rows(new, width))
            numbers.update(zip(ids.tolist(), new.tolist(), strict=True))
        elif what == "open":
            buffer.close()
            buffer = open(tmp_path / "b", window_bytes=0, commit_interval=1e9)
        else:
            ids = generator.integers(buffer.first, buffer.count, 120)
            assert_rows(buffer.get(ids), [numbers[i] for i in ids.tolist()], width)
        most = max(most, remembered(buffer))
    values = replica_of(buffer).rows._grouping.groups(CAPACITY)
    assert most > values // 2
    buffer.close()


@pytest.mark.parametrize("width", WIDTHS)
def test_a_place_that_is_wrong_is_noticed(tmp_path: Path, width: int) -> None:
    with ReplayBuffer(CAPACITY, path=tmp_path / "b", window_bytes=0) as buffer:
        buffer.extend(*rows(range(CAPACITY), width))
        buffer.flush()
        ids = np.arange(300)
        assert_rows(buffer.get(ids), ids, width)
        places = store_of(buffer)._env.places
        right = places._pages.copy()
        assert right.any()
        for wrong in (np.roll(right, 1), np.full_like(right, 1), np.full_like(right, 2)):
            places._pages[:] = wrong
            assert_rows(buffer.get(ids), ids, width)
            places._pages[:] = np.where(np.arange(right.size) % 2, wrong, right)
            assert_rows(buffer.get(ids), ids, width)


def test_small_values_have_no_places(tmp_path: Path) -> None:
    with ReplayBuffer(CAPACITY, path=tmp_path / "b", window_bytes=0) as buffer:
        buffer.extend(*rows(range(CAPACITY), 4))
        buffer.flush()
        buffer.get(np.arange(300))
        assert remembered(buffer) == 0
        assert_rows(buffer.get(np.arange(300)), np.arange(300), 4)


def test_a_commit_of_another_process_makes_all_places_unknown(tmp_path: Path) -> None:
    with ReplayBuffer(CAPACITY, path=tmp_path / "b", access="shared", window_bytes=0) as buffer:
        buffer.extend(*rows(range(CAPACITY), 60))
        buffer.flush()
        ids = np.arange(300)
        assert_rows(buffer.get(ids), ids, 60)
        assert remembered(buffer) > 15
        buffer.extend(*rows([7], 60))
        buffer.flush()
        assert remembered(buffer) > 15
        code = """
            import sys, diskreplay, inside, numbered_rows as t
            with diskreplay.open(sys.argv[1], access="shared") as other:
                other.extend(*t.rows([8], 60))
        """
        run_python(code, tmp_path / "b")
        assert remembered(buffer) == 0
        buffer.get([200])  # of the others nothing may be believed afterwards
        assert remembered(buffer) == 1
        assert_rows(buffer.get(ids + 2), [*range(2, 302)], 60)
        assert_rows(buffer.get([CAPACITY, CAPACITY + 1]), [7, 8], 60)
        assert remembered(buffer) > 15


def test_damage_is_told_as_it_is_without_places(tmp_path: Path) -> None:
    with ReplayBuffer(CAPACITY, path=tmp_path / "b", window_bytes=0) as buffer:
        buffer.extend(*rows(range(CAPACITY), 60))
        buffer.flush()
        ids = np.arange(300)
        buffer.get(ids)
        store, grouping = store_of(buffer), replica_of(buffer).rows._grouping
        with store.snapshot() as snapshot:
            starts, _ = store._env.places.starts(
                np.array([3]), grouping.value_bytes, snapshot._txn.id()
            )
        with (tmp_path / "b" / "data.mdb").open("r+b") as file:
            file.seek(int(starts[0]) + 100)
            file.write(b"\xff\xfe\xfd")
        with pytest.raises(DamageError, match=r"write id 45 in slot 45 is damaged: its checksum"):
            buffer.get(ids)


def test_without_address_space_for_a_second_map_values_are_looked_up(tmp_path: Path) -> None:
    code = """
        import os, resource, sys, numpy as np, diskreplay, inside, numbered_rows as t
        with diskreplay.ReplayBuffer(t.CAPACITY, path=sys.argv[1], window_bytes=0) as buffer:
            buffer.extend(*t.rows(range(t.CAPACITY), 7000))
            buffer.flush()
            buffer.get(np.arange(100))
            pages = int(open("/proc/self/statm").read().split()[0])
            limit = pages * os.sysconf("SC_PAGE_SIZE") + (12 << 20)
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
            ids = np.arange(100)
            t.assert_rows(buffer.get(ids), ids, 7000)
            places = inside.store_of(buffer)._env.places
            assert places._has_no_map
            t.assert_rows(buffer.get(ids), ids, 7000)
    """
    run_python(code, tmp_path / "b")


def test_places_follow_only_the_commit_before(tmp_path: Path) -> None:
    """An opening that has not seen a commit of its own process takes nothing over it."""
    with ReplayBuffer(CAPACITY, path=tmp_path / "b", window_bytes=0) as buffer:
        buffer.extend(*rows(range(CAPACITY), 60))
        buffer.flush()
        buffer.get(np.arange(300))
        places = store_of(buffer)._env.places
        commit = places._commit
        places.follow(commit + 2)
        assert places._commit == commit
        places.follow(commit + 1)
        assert places._commit == commit + 1


def test_a_read_of_an_older_commit_teaches_nothing(tmp_path: Path) -> None:
    with ReplayBuffer(CAPACITY, path=tmp_path / "b", window_bytes=0) as buffer:
        buffer.extend(*rows(range(CAPACITY), 60))
        buffer.flush()
        grouping = replica_of(buffer).rows._grouping
        store: Store = store_of(buffer)
        with store.snapshot() as old:
            buffer.extend(*rows(range(100), 60))
            buffer.flush()
            buffer.get(np.arange(100, 400))
            known = remembered(buffer)
            assert known
            old.remembered_records(np.arange(CAPACITY), grouping)
            assert remembered(buffer) == known
