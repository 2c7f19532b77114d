"""Remembered places of values: as of each commit they are those that the engine looks up."""

from __future__ import annotations

import os
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from common import run_python
from inside import commits_refused, replica_of, store_of
from numbered_rows import CAPACITY, assert_rows, rows

from diskreplay import DamageError, ReplayBuffer, StorageError, open
from diskreplay.store import Store
from diskreplay.store.environment import Environment

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


def test_scans_learn_no_places(tmp_path: Path) -> None:
    """To learn each place would take longer than to look the values of a scan up."""
    with ReplayBuffer(CAPACITY, path=tmp_path / "b", window_bytes=0) as buffer:
        buffer.extend(*rows(range(CAPACITY), 60))
        buffer.flush()
        ids = np.tile(np.arange(CAPACITY), 3)
        assert_rows(buffer.get(ids), ids, 60)
        assert remembered(buffer) == 0
        buffer.get(ids[:300])
        assert remembered(buffer) > 0


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
        assert remembered(buffer) <= 1  # none where the system had to read its page
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


def know_all(buffer: Any, width: int) -> None:
    """Read all rows until all places are known and the last values were in memory."""
    ids = np.arange(buffer.first, buffer.count)
    values = replica_of(buffer).rows._grouping.groups(buffer.capacity)
    for _ in range(1000):
        assert_rows(buffer.get(ids), ids, width)
        if not store_of(buffer)._env.read_ahead.was_cold and remembered(buffer) >= values - 1:
            return
    raise AssertionError("not all places became known")


@pytest.mark.parametrize("width", WIDTHS)
def test_a_read_with_nothing_to_look_up_is_not_taken_for_a_slow_one(
    tmp_path: Path, width: int
) -> None:
    with ReplayBuffer(CAPACITY, path=tmp_path / "b", window_bytes=0) as buffer:
        buffer.extend(*rows(range(CAPACITY), width))
        buffer.flush()
        know_all(buffer, width)
        buffer.get(np.arange(300))
        assert not store_of(buffer)._env.read_ahead.was_cold


def test_a_closed_buffer_keeps_no_map_and_no_descriptor(tmp_path: Path) -> None:
    def kept() -> list[str]:
        numbers = os.listdir("/proc/self/fd")
        files = [f"/proc/self/fd/{number}" for number in numbers]
        names = [os.readlink(file) for file in files if os.path.islink(file)]
        return [one for one in [*names, *Path("/proc/self/maps").read_text().splitlines()]
                if str(tmp_path) in one]  # fmt: skip

    buffer = ReplayBuffer(CAPACITY, path=tmp_path / "b", window_bytes=0)
    buffer.extend(*rows(range(CAPACITY), 60))
    buffer.flush()
    know_all(buffer, 60)
    assert kept()
    buffer.close()
    assert kept() == []


def test_a_child_does_not_keep_the_lock_of_commits_of_a_killed_parent(tmp_path: Path) -> None:
    code = """
        import os, signal, sys, diskreplay, numbered_rows as t
        from diskreplay.store import Transaction
        read, write = os.pipe()
        parent = os.fork()
        if not parent:
            buffer = diskreplay.ReplayBuffer(
                t.CAPACITY, path=sys.argv[1], access="shared", window_bytes=0, commit_interval=1e9
            )
            buffer.extend(*t.rows(range(t.CAPACITY), 60))
            buffer.flush()
            for _ in range(20):
                buffer.get(range(300))
            assert store_of(buffer)._env.places._map is not None
            if not os.fork():
                os.close(write)
                os.read(read, 1)  # until the test ends
                os._exit(0)
            buffer.extend(*t.rows([5], 60))
            Transaction.put_meta = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
            buffer.flush()
        assert os.waitstatus_to_exitcode(os.waitpid(parent, 0)[1]) == -signal.SIGKILL
        signal.alarm(20)
        with diskreplay.open(sys.argv[1], access="shared") as buffer:
            buffer.extend(*t.rows([6], 60))
            buffer.flush()
            assert buffer.count == t.CAPACITY + 1
    """
    run_python("from inside import store_of\n" + textwrap.dedent(code), tmp_path / "b")


def test_the_map_of_the_engine_gets_the_address_space_of_the_second_one(tmp_path: Path) -> None:
    code = """
        import os, resource, subprocess, sys, numpy as np, diskreplay, inside, numbered_rows as t
        path, n = sys.argv[1], 1500
        grow = '''
            import resource, sys, diskreplay, numbered_rows as t
            hard = resource.getrlimit(resource.RLIMIT_AS)[1]
            resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
            with diskreplay.open(sys.argv[1], durability="process", access="shared") as other:
                for first in range(1500, 5000, 500):
                    other.extend(*t.rows(range(first, first + 500), 7000))
        '''
        diskreplay.ReplayBuffer(10000, path=path, durability="process", access="shared").close()
        with diskreplay.open(path, access="shared") as buffer:
            buffer.extend(*t.rows(range(n), 7000))
        with diskreplay.open(path, access="read", window_bytes=0) as reader:
            for _ in range(20):
                reader.get(np.arange(300))
            env = inside.store_of(reader)._env
            second, before = len(env.places._map), env._map_bytes
            assert second > 64 << 20
            pages = int(open("/proc/self/statm").read().split()[0])
            limit = pages * os.sysconf("SC_PAGE_SIZE") + before + (40 << 20) - second
            resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
            subprocess.run([sys.executable, "-c", textwrap.dedent(grow), path], check=True)
            ids = np.arange(4900, 5000)
            t.assert_rows(reader.get(ids), ids, 7000)
            assert env._map_bytes == 2 * before
    """
    run_python("import textwrap\n" + textwrap.dedent(code), tmp_path / "b")


def test_an_interrupt_while_the_map_grows_leaves_no_wrong_place(tmp_path: Path) -> None:
    code = Environment._remap.__code__

    def interrupt_after(lines: int) -> bool:
        """Grow the map, with an interrupt at one of the lines; return whether there was one."""
        left = [lines]

        def local(_frame: Any, event: str, _argument: Any) -> Any:
            left[0] -= event == "line"
            if left[0] < 0:
                raise KeyboardInterrupt
            return local

        env = store_of(buffer)._env
        sys.settrace(lambda frame, *_: local if frame.f_code is code else None)
        try:
            env._remap(2 * env._live.info()["map_size"])
        except KeyboardInterrupt:
            return True
        finally:
            sys.settrace(None)
        return False

    with ReplayBuffer(CAPACITY, path=tmp_path / "b", window_bytes=0) as buffer:
        buffer.extend(*rows(range(CAPACITY), 60))
        buffer.flush()
        lines = 0
        know_all(buffer, 60)
        while interrupt_after(lines):
            file = store_of(buffer)._env.read_ahead._file
            mapped = file.mapped
            file.mapped = range(0)
            buffer.get([1])
            with store_of(buffer).snapshot() as snapshot:
                [value] = snapshot.records(np.array([0]))
                address = np.frombuffer(value, np.uint8).__array_interface__["data"][0]
                offset = file.offset_of(address)
            assert not mapped or address - mapped.start == offset
            lines += 1
        assert lines > 5
