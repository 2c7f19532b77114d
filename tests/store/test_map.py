"""The map of the data file: as large as a store needs, and larger when that was too little."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from common import columns, run_python
from inside import store_of
from others import Other, shared
from talking import Talking

import diskreplay
from diskreplay import ReplayBuffer
from diskreplay.lmdbfile.pages import DataFile
from diskreplay.store import engine
from diskreplay.store.store import Store
from diskreplay.store.transaction import Transaction

MIB = 1 << 20


def stored_map_bytes(path: Path) -> set[int]:
    file = DataFile(os.open(path / "data.mdb", os.O_RDONLY))
    metas, faults = file.metas()
    file.close()
    assert not faults
    return {meta.map_bytes for meta in metas}


def test_a_commit_that_does_not_fit_is_done_again_with_a_larger_map(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_LEAST_MAP_BYTES", MIB)
    Store.create(tmp_path / "s", {"kind": "uniform", "capacity": 10}, {"state": {"count": 0}})
    store = Store(tmp_path / "s", access="exclusive")
    assert store._env._map_bytes == MIB
    calls = []

    def put(txn: Transaction) -> str:
        calls.append(store._env._map_bytes)
        txn.put_blocks({number: bytes([number]) * 4000 for number in range(100)}, "priorities")
        txn.put_records(10**6, 0, [b"%05d" % i * 800 for i in range(5000)])  # said to be nothing
        return "done"

    assert store.commit(put) == "done"
    assert calls == [8 * MIB, 16 * MIB, 32 * MIB]
    with store.snapshot() as snapshot:
        found = [bytes(record) for record in snapshot.records(np.arange(5000))]
        assert snapshot.blocks([99], "priorities")[99] == b"c" * 4000
    assert found == [b"%05d" % i * 800 for i in range(5000)]
    # The size is in the meta page of each commit.
    store.commit(lambda txn: txn.put_blocks({0: b""}, "priorities"))
    store.close()
    assert stored_map_bytes(tmp_path / "s") == {32 * MIB}


def test_a_map_that_no_file_has_is_found(tmp_path: Path) -> None:
    ReplayBuffer(10, path=tmp_path / "b").close()
    content = (tmp_path / "b" / "data.mdb").read_bytes()
    for bit in range(64):
        damaged = bytearray(content)
        damaged[32 + bit // 8] ^= 1 << bit % 8
        (tmp_path / "b" / "data.mdb").write_bytes(damaged)
        faults = diskreplay.verify(tmp_path / "b")
        assert any("impossible map size" in fault for fault in faults), bit


WORK = """
import sys
from pathlib import Path
import numpy as np
import diskreplay.store.engine
from diskreplay.store.store import Store

diskreplay.store.engine._LEAST_MAP_BYTES = 1 << 20
store = Store(Path(sys.argv[1]), access=sys.argv[2])
print("open", flush=True)
for line in sys.stdin:
    first, n = map(int, line.split())
    if n:
        store.commit(lambda txn: txn.put_records(10**6, first, [b"%08d" % i * 500 for i in
            range(first, first + n)]))
    else:
        with store.snapshot() as snapshot:
            found = snapshot.records(np.arange(first))
            assert all(bytes(found[i]) == b"%08d" % i * 500 for i in range(first))
    print(store._env._map_bytes, flush=True)
"""


class Worker(Talking):
    """A process with a store of its own."""

    def __init__(self, path: Path, access: str) -> None:
        super().__init__(WORK, path, access)
        self.sizes: set[int] = set()
        assert self.hear() == "open"

    def ask(self, first: int, n: int = 0) -> None:
        """Put n records from the first on, or else look at all before it."""
        self.say(f"{first} {n}")
        self.sizes.add(int(self.hear()))


def test_two_writers_and_a_reader_go_through_many_sizes_together(tmp_path: Path) -> None:
    path = tmp_path / "s"
    Store.create(path, {"kind": "uniform", "capacity": 10}, {"state": {"count": 0}})
    with Worker(path, "shared") as one, Worker(path, "shared") as two, Worker(path, "read") as read:
        first = 0
        for n in (100, 300, 1000, 3000, 5000):  # of 4000 bytes
            for writer in (one, two):
                writer.ask(first, n)
                first += n
                for worker in (read, one, two):
                    worker.ask(first)
        for worker in (one, two, read):
            assert len(worker.sizes) >= 3
            assert max(worker.sizes) >= os.path.getsize(path / "data.mdb")
            worker.end()
            assert worker.returncode == 0
    assert max(stored_map_bytes(path)) == max(one.sizes | two.sizes)


def test_a_reader_and_a_second_writer_follow_a_buffer_that_outgrows_them(
    tmp_path: Path, other: Other, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_LEAST_MAP_BYTES", MIB)
    other.small_map(MIB)
    buffer = shared(tmp_path / "b", 200_000)
    with Other(tmp_path / "b") as writer:
        writer.small_map(MIB)
        writer.open(200_000, access="shared")
        other.open(200_000, access="read")
        for first in range(0, 200_000, 40_000):
            buffer.extend(**columns(first, 20_000))
            buffer.flush()
            writer.extend(first + 20_000, 20_000)
            writer.flush()
            assert other.size() == first + 40_000
        assert other.state()["numbers"] == list(range(200_000))
        writer.close()
        other.close()


def test_the_map_is_large_enough_from_the_first_push_on(tmp_path: Path) -> None:
    frames = np.zeros((1, 84, 84, 4), np.uint8)
    buffer = ReplayBuffer(100_000, path=tmp_path / "b")
    assert store_of(buffer)._env._map_bytes == 64 * MIB
    buffer.extend(frames, [0], [0.0], frames, [False])
    full = diskreplay.estimate(buffer.schema, 100_000, prioritized=False).disk_bytes
    assert full < store_of(buffer)._env._map_bytes < 4 * full
    buffer.close()
    with diskreplay.open(tmp_path / "b") as again:
        assert full < store_of(again)._env._map_bytes < 4 * full


def test_many_buffers_leave_address_space_for_others(tmp_path: Path, long: bool) -> None:
    code = """
        import resource, sys
        import numpy as np
        import diskreplay
        from inside import store_of
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        zero = [np.zeros(60, np.float32), 0, 0.0, np.zeros(60, np.float32), False]
        buffers = []
        for task in range(int(sys.argv[2])):
            buffers.append(diskreplay.ReplayBuffer(30_000, path=f"{sys.argv[1]}/{task}"))
            buffers[-1].push(*zero)
            assert store_of(buffers[-1])._env._map_bytes == 64 << 20
        np.empty(2 << 30, np.uint8)
        for buffer in buffers:
            buffer.close()
    """
    run_python(code, tmp_path, 500 if long else 40)


LIMITED = """
import re, resource, sys
from pathlib import Path
import numpy as np, pytest
import diskreplay, diskreplay.store.engine
from inside import store_of

def limit(more):
    status = Path("/proc/self/status").read_text()
    mapped = int(re.search(r"VmSize:\\s+(\\d+) kB", status)[1]) << 10
    most = resource.RLIM_INFINITY if more is None else mapped + more
    resource.setrlimit(resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))

wide = np.zeros((500, 500), np.float32)
def rows(first):
    states = wide + np.arange(first, first + 500)[:, None]
    return states, np.arange(500), np.arange(first, first + 500) / 8, states, np.zeros(500, bool)
"""


@pytest.mark.parametrize("access", ["exclusive", "shared"])
def test_without_address_space_rows_wait_until_there_is_some(access: str, tmp_path: Path) -> None:
    code = """
diskreplay.store.engine._LEAST_MAP_BYTES = 1 << 20
buffer = diskreplay.ReplayBuffer(
    10**6, path=sys.argv[1], access=sys.argv[2], commit_interval=1e9, window_bytes=8 << 20)
first = 0
limit(60 << 20)
message = r"no address space for a map of .*\\(ulimit -v\\), or open fewer or smaller buffers"
with pytest.raises(diskreplay.StorageError, match=message):
    while True:
        buffer.extend(*rows(first))
        first += 500
        buffer.flush()
for _ in range(2):
    with pytest.raises(diskreplay.StorageError, match=message):
        buffer.flush()
assert first > 500
assert buffer.sample(10) is not None
limit(None)
buffer.flush()
buffer.extend(*rows(first))
buffer.close()
with diskreplay.open(sys.argv[1]) as buffer:
    assert [int(e.reward * 8) for e in buffer] == list(range(first + 500))
    buffer.check()
"""
    run_python(LIMITED + code, tmp_path / "b", access)


def test_with_little_address_space_a_store_opens_or_says_what_it_needs(tmp_path: Path) -> None:
    code = """
with diskreplay.ReplayBuffer(10**6, path=sys.argv[1]) as buffer:
    for first in range(0, 5000, 500):
        buffer.extend(*rows(first))
for access in ("exclusive", "read"):
    limit(58 << 20)  # not twice its size
    with diskreplay.open(sys.argv[1], access=access, window_bytes=0) as buffer:
        assert store_of(buffer)._env._map_bytes == 32 << 20
        assert len(buffer) == 5000
    limit(12 << 20)  # not once
    with pytest.raises(diskreplay.StorageError, match="no address space for a map of 32 MiB"):
        diskreplay.open(sys.argv[1], access=access, window_bytes=0)
    limit(None)
with diskreplay.open(sys.argv[1]) as buffer:
    buffer.check()
"""
    run_python(LIMITED + code, tmp_path / "b")
