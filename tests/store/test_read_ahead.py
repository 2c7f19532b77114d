"""Reading what is not in memory: the same values, by other threads, which are then gone."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cold import WIDE, N, is_right, make_cold, wide
from common import run_python
from inside import store_of
from interrupted import interrupted_at

import diskreplay
from diskreplay import PrioritizedReplayBuffer
from diskreplay.store.read_ahead import _Share, pages_waited_for


@pytest.fixture
def store(disk_path: Path) -> Iterator[Path]:
    with PrioritizedReplayBuffer(N, path=disk_path / "b", seed=1) as buffer:
        for first in range(0, N, 500):
            buffer.extend(**wide(first, 500), priorities=np.arange(first, first + 500) + 1.0)
    make_cold(disk_path / "b" / "data.mdb")
    before = threading.active_count()
    yield disk_path / "b"
    assert threading.active_count() == before


@pytest.mark.parametrize("access", ["read", "exclusive", "shared"])
def test_what_is_on_disk_only_is_read_by_helpers_that_end_with_the_buffer(
    access: str, store: Path
) -> None:
    buffer = diskreplay.open(store, access=access, window_bytes=0)
    write_ids = np.random.default_rng(0).integers(0, N, 400)  # in no order, and some twice
    before = pages_waited_for()
    assert is_right(buffer.get(write_ids), write_ids)
    assert pages_waited_for() - before < 50  # of about 300 pages
    assert len(store_of(buffer)._env.read_ahead.helpers) == 16
    for _ in range(5):  # some are in memory by now
        write_ids = np.random.default_rng().integers(0, N, 400)
        assert is_right(buffer.get(write_ids), write_ids)
    buffer.close()


def test_what_is_in_memory_needs_no_helpers(store: Path) -> None:
    (store / "data.mdb").read_bytes()
    buffer = diskreplay.open(store, window_bytes=0)
    for _ in range(50):
        batch = buffer.sample(256)
        assert is_right(batch, batch.indices)
    buffer.check()
    assert store_of(buffer)._env.read_ahead.helpers == []
    buffer.close()


@pytest.mark.parametrize("how", ["iterate", "check", "load"])
def test_a_scan_of_what_is_on_disk_waits_for_few_pages(
    how: str, store: Path, tmp_path: Path
) -> None:
    pages = os.path.getsize(store / "data.mdb") // 4096
    before = pages_waited_for()
    if how == "load":
        buffer = PrioritizedReplayBuffer(N, path=tmp_path / "other", window_bytes=0)
        buffer.load(store)
    else:
        buffer = diskreplay.open(store, access="read", window_bytes=0)
    if how == "check":
        buffer.check()
    else:
        assert [e.reward.item() * 8 for e in buffer] == list(range(N))
    # The blocks of slot tables, which each commit writes anew, leave gaps between the records.
    assert pages_waited_for() - before < pages / 8
    if how != "load":  # which has another store open
        assert store_of(buffer)._env.read_ahead.helpers == []  # it stands in a row
    buffer.close()


def test_damage_on_disk_is_met_by_the_caller(store: Path) -> None:
    content = (store / "data.mdb").read_bytes()
    state = re.escape(np.full(WIDE, 1234, np.float32).tobytes())
    places = [found.start() for found in re.finditer(state, content)]  # freed pages have it, too
    buffer = diskreplay.open(store, access="read", window_bytes=0)
    with open(store / "data.mdb", "r+b") as file:  # after the opening, which would look at all
        for at in places:
            file.seek(at)
            file.write(b"\xff")
    make_cold(store / "data.mdb")
    with pytest.raises(diskreplay.DamageError, match="write id 1234 "):
        buffer.get(np.append(np.random.default_rng(0).integers(0, N, 400), 1234))
    assert store_of(buffer)._env.read_ahead.helpers
    with pytest.raises(diskreplay.DamageError, match="write id 1234 "):
        buffer.check()
    buffer.close()


def test_an_interrupt_at_any_line_leaves_no_thread_reading(store: Path, long: bool) -> None:
    write_ids = np.random.default_rng(0).permutation(N)[:200]
    line, came_so_far = 1, True
    while came_so_far:
        buffer = diskreplay.open(store, access="read", window_bytes=0)
        got: list[Any] = []
        came_so_far = interrupted_at(line, lambda: got.append(buffer.get(write_ids)))  # noqa: B023
        assert buffer._guard._hold_for_fork(60)  # waits for those that are left
        assert store_of(buffer)._env.readers().count(f"{os.getpid()} ") == 0
        buffer._guard._release_after_fork()
        assert is_right(buffer.get(write_ids), write_ids)
        buffer.close()
        make_cold(store / "data.mdb")
        line += 1 if long else 9
    assert got
    assert line > 100


@pytest.mark.parametrize("what", ["fork", "larger map", "close"])
def test_who_takes_the_map_away_waits_for_a_thread_that_an_interrupt_left_reading(
    what: str, store: Path
) -> None:
    buffer = diskreplay.open(store, access="read")
    share = _Share(None, [])
    ended: list[bool] = []
    assert share.take("helper")
    store_of(buffer)._env.read_ahead._given = [share]

    def end() -> None:
        time.sleep(0.2)  # so that who does not wait is there first
        ended.append(True)
        share.end()

    thread = threading.Thread(target=end)
    thread.start()
    if what == "fork":
        assert buffer._guard._hold_for_fork(60)
        buffer._guard._release_after_fork()
    elif what == "larger map":
        store_of(buffer)._env.grow()
    else:
        buffer.close()
    assert ended
    thread.join()
    buffer.close()


def test_forks_while_threads_read_from_disk(store: Path) -> None:
    code = """
        import os, sys, threading, warnings
        import numpy as np, numpy.testing, diskreplay
        from cold import N, is_right
        warnings.simplefilter("ignore", DeprecationWarning)
        buffer = diskreplay.open(sys.argv[1], window_bytes=0)
        failed = []

        def read(n):
            try:
                for seed in range(n):
                    # A page that was dropped from this map is read again.
                    ids = np.random.default_rng(seed).integers(0, N, 300)
                    assert is_right(buffer.get(ids), ids)
            except BaseException as error:
                failed.append(error)

        threads = [threading.Thread(target=read, args=(50,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for _ in range(5):
            child = os.fork()
            if child == 0:
                read(3)
                os._exit(len(failed))
            assert os.waitpid(child, 0)[1] == 0
        for thread in threads:
            thread.join()
        assert not failed, failed
        buffer.check()
    """
    run_python(code, store)


def test_numbers_of_a_cold_batch_are_those_of_a_hot_one(store: Path) -> None:
    def drawn() -> list[list[int]]:
        buffer = diskreplay.open(store, access="read", seed=3, window_bytes=0)
        batches = [buffer.sample(100) for _ in range(5)]
        buffer.close()
        return [(batch.rewards * 8).tolist() for batch in batches]

    cold = drawn()
    assert drawn() == cold
