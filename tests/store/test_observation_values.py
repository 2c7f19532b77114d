"""The observation log as the store keeps it: values by key, and stores that have none yet."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import lmdb
import numpy as np
import pytest
from common import columns, run_python
from hypothesis import given, settings
from hypothesis import strategies as st
from talking import Talking
from users import let_others_in, needs_root

import diskreplay
from diskreplay import DamageError, ReplayBuffer, StorageError
from diskreplay.store import TABLES
from diskreplay.store.store import Store
from diskreplay.store.transaction import Transaction

NAME = b"observations"


def without(path: Path) -> Path:
    """A store as of the version before: it has no such database."""
    with lmdb.open(str(path), max_dbs=8, map_size=1 << 30) as env:
        database = env.open_db(NAME, create=False)
        with env.begin(write=True) as txn:
            txn.drop(database, delete=True)
    return path


def make(path: Path, *, old: bool) -> Path:
    with ReplayBuffer(100, path=path) as buffer:
        buffer.extend(**columns(0, 50))
    return without(path) if old else path


@pytest.fixture(params=[False, True], ids=["new", "old"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return make(tmp_path / "s", old=request.param)


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    store = Store(path, access="exclusive")
    yield store
    store.close()
    assert_sound(path)


def assert_sound(path: Path) -> None:
    """Find no fault but that a store of whole records has values of a log, which are put here."""
    faults = diskreplay.verify(path)
    assert set(faults) <= {"the layout does not say how observations are stored"}


def held(store: Store, keys: range) -> list[bytes]:
    with store.snapshot() as snapshot:
        values = [bytes(value) for value in snapshot.observation_values(np.array(keys, np.int64))]
        assert snapshot.entries("observations") >= sum(map(bool, values))
        return values


def put(store: Store, first: int, values: list[bytes], end: int = 0) -> None:
    with store.transaction() as txn:
        txn.put_observations(first, len(values), values)
        txn.drop_observations(end)


@settings(max_examples=10)
@given(
    steps=st.lists(
        st.tuples(st.integers(0, 1), st.integers(0, 9), st.integers(0, 40)), max_size=12
    ),
    size=st.sampled_from([3, 900, 9000]),
)
def test_values_are_appended_and_the_oldest_dropped(
    steps: list[tuple[int, int, int]], size: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("s") / "s"
    Store.create(path, {"kind": "uniform", "capacity": 10}, {})
    store = Store(path, access="exclusive", durability="process")
    expected: dict[int, bytes] = {}
    end = 0
    for number, (replaces, n, drop) in enumerate(steps):
        first = end - replaces if end - 1 in expected else end
        values = [bytes([number % 256]) * (size + i) for i in range(n)]
        put(store, first, values, drop)
        expected |= {first + i: value for i, value in enumerate(values)}
        end = max(end, first + n)
        expected = {key: value for key, value in expected.items() if key >= drop}
        assert held(store, range(end + 3)) == [expected.get(key, b"") for key in range(end + 3)]
        with store.snapshot() as snapshot:
            assert snapshot.entries("observations") == len(expected)
    store.close()


def test_a_store_of_the_version_before_opens_without_the_database(tmp_path: Path) -> None:
    path = make(tmp_path / "s", old=True)
    before = (path / "data.mdb").read_bytes()
    for access in ("read", "shared", "exclusive"):
        with diskreplay.open(path, access=access) as buffer:
            buffer.check()
            assert buffer.stats()["observations_bytes"] == 0
        store = Store(path, access=access)
        assert held(store, range(2)) == [b"", b""]
        store.close()
        if access == "read":
            assert (path / "data.mdb").read_bytes() == before
    assert diskreplay.verify(path) == []
    with diskreplay.open(path) as buffer:
        buffer.extend(**columns(50, 70))
    assert diskreplay.verify(path) == []
    assert diskreplay.compact(path).size == 100
    store = Store(path)
    assert len(store._env.begin()[1]) == len(TABLES)  # a new data file has it
    store.close()


@needs_root
def test_it_opens_in_a_directory_that_nobody_may_write_to(tmp_path: Path) -> None:
    path = make(tmp_path / "s", old=True)
    for file in path.iterdir():
        file.chmod(file.stat().st_mode | 0o066)
    path.chmod(0o555)
    let_others_in(tmp_path)
    path.chmod(0o555)
    code = """
        import os, sys, diskreplay
        from users import NOBODY
        diskreplay.ReplayBuffer(10).close()  # imports all that may not be found later
        os.setgid(NOBODY), os.setuid(NOBODY)
        with diskreplay.open(sys.argv[1], access="read") as buffer:
            print(len(buffer.sample(9).rewards), diskreplay.__version__ > "")
    """
    assert run_python(code, path).stdout == "9 True\n"


def test_a_commit_that_is_aborted_leaves_nothing_and_the_next_one_works(store: Store) -> None:
    def interrupted(txn: Transaction) -> None:
        txn.put_observations(0, 1, [b"lost"])
        assert txn.observation_values(np.array([0])) == [b"lost"]
        raise KeyboardInterrupt

    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            store.commit(interrupted)
        assert held(store, range(2)) == [b"", b""]
        with store.transaction() as txn:
            txn.drop_observations(7)
    put(store, 0, [b"kept", b"too"])
    assert held(store, range(2)) == [b"kept", b"too"]


def test_a_value_can_only_follow_or_replace_the_last_one(store: Store) -> None:
    put(store, 3, [b"a", b"b"])
    with pytest.raises(StorageError, match=r"a value 4 of observations is there already"):
        put(store, 3, [b"c"])
    put(store, 4, [b"bb", b"c"])
    assert held(store, range(2, 7)) == [b"", b"a", b"bb", b"c", b""]


@pytest.mark.parametrize("access", ["read", "shared"])
def test_one_that_another_process_made_is_found(access: str, tmp_path: Path) -> None:
    path = make(tmp_path / "s", old=True)
    code = """
        import sys
        import numpy as np
        from pathlib import Path
        from diskreplay.store.store import Store
        store = Store(Path(sys.argv[1]), access=sys.argv[2])
        for line in sys.stdin:
            if line == "put\\n":
                with store.transaction() as txn:
                    txn.put_observations(2, 1, [b"mine"])
            with store.snapshot() as snapshot:
                print(*map(bytes, snapshot.observation_values(np.arange(3))), flush=True)
        store.close()
    """
    with Talking(code, path, access) as other:
        other.say()
        assert other.hear() == "b'' b'' b''"
        store = Store(path, access="shared")
        with store.snapshot() as older:
            put(store, 0, [b"one", b"two" * 20_000])
            assert older.observation_values(np.array([0])) == [b""]
            assert older.entries("observations") == 0
        other.say()
        assert other.hear() == f"b'one' {b'two' * 20_000!r} b''"
        if access == "shared":
            other.say("put")
            assert other.hear().endswith(" b'mine'")
            assert held(store, range(2, 3)) == [b"mine"]
        store.close()
        assert other.end() == ""
    assert_sound(path)


def test_threads_that_read_find_it_together(tmp_path: Path) -> None:
    path = make(tmp_path / "s", old=True)
    for access in ("shared", "read"):
        store = Store(path, access=access)
        code = """
            import sys
            from pathlib import Path
            from diskreplay.store.store import Store
            store = Store(Path(sys.argv[1]), access="shared")
            with store.transaction() as txn:
                txn.put_observations(0, 1, [b"found"])
            store.close()
        """
        found: list[list[bytes]] = []
        begin = threading.Barrier(4, timeout=60)

        def read(store: Store, begin: threading.Barrier, found: list[list[bytes]]) -> None:
            begin.wait()
            for _ in range(20):
                found.append(held(store, range(1)))

        given_ = store, begin, found
        threads = [threading.Thread(target=read, args=given_, daemon=True) for _ in range(3)]
        for thread in threads:
            thread.start()
        assert held(store, range(1)) == [b""]
        run_python(code, path)
        begin.wait()
        for thread in threads:
            thread.join()
        assert found == [[b"found"]] * 60
        store.close()
        without(path)


def test_one_of_another_kind_is_damage(tmp_path: Path) -> None:
    path = make(tmp_path / "s", old=True)
    with lmdb.open(str(path), max_dbs=8, map_size=1 << 30) as env:
        env.open_db(NAME)
    with pytest.raises(DamageError, match=r"the database observations of .* has the flags"):
        diskreplay.open(path)
    assert "the database observations has the flags 0x0" in diskreplay.verify(path)[0]
