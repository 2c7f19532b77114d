"""compact and resize."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import stores
from common import columns, numbers_of
from drawn import as_bytes
from hypothesis import example, given, settings
from stores import kept

import diskreplay
from diskreplay import PrioritizedReplayBuffer, ReplayBuffer


def draws(path: Path) -> list[bytes]:
    """The next batches, of a copy."""
    copy = shutil.copytree(path, path.with_name("drawn"))
    with diskreplay.open(copy) as buffer:
        found = [as_bytes(buffer.sample(4)) for _ in range(9)] if len(buffer) else []
    shutil.rmtree(copy)
    return found


@pytest.mark.parametrize("make", [*stores.MAKERS, stores.empty])
def test_compact_changes_nothing_but_the_file(make: Any, tmp_path: Path) -> None:
    path = make(tmp_path / "s")
    before, drawn, data = kept(path), draws(path), (path / "data.mdb").read_bytes()
    size, manifest = before[1]["size"], (path / "diskreplay.json").read_bytes()
    steps: list[tuple[int, int]] = []
    done = diskreplay.compact(path, progress=lambda done, total: steps.append((done, total)))
    assert (kept(path), draws(path)) == (before, drawn)
    assert diskreplay.verify(path) == []
    assert (path / "data.mdb").read_bytes() != data
    assert (path / "diskreplay.json").read_bytes() == manifest
    assert (done.size, done.dropped, done.before_bytes) == (size, 0, len(data))
    assert done.after_bytes == (path / "data.mdb").stat().st_size
    assert steps[-1:] == [(size, size)] * (size > 0)
    assert sorted(p.name for p in path.iterdir()) == [
        "data.known", "data.mdb", "diskreplay.json", "lock.mdb", "openers", "openers.lock",
        "writer.lock",
    ]  # fmt: skip
    if size:
        diskreplay.resize(path, 17)
        assert diskreplay.verify(path) == []
        for column, part in zip(before[0], kept(path)[0], strict=True):
            assert part == column[-17 * len(column) // size :]


@settings(max_examples=40)
@given(
    kind=st.sampled_from([ReplayBuffer, PrioritizedReplayBuffer]),
    capacity=st.integers(1, 40),
    sizes=st.lists(st.tuples(st.integers(0, 50), st.booleans()), max_size=4),
    others=st.lists(st.tuples(st.integers(1, 60), st.integers(0, 70)), min_size=1, max_size=4),
    observations=st.sampled_from(["record", "log"]),
)
@example(PrioritizedReplayBuffer, 10, [(25, False)], [(30, 3), (9, 20)], "record")
@example(PrioritizedReplayBuffer, 10, [(70, False), (70, True)], [(30, 3), (9, 20)], "log")
def test_resize_against_a_list(
    tmp_path_factory: pytest.TempPathFactory,
    kind: Any,
    capacity: int,
    sizes: list[tuple[int, bool]],
    others: list[tuple[int, int]],
    observations: str,
) -> None:
    """Writes, clears and resizes in any order; the list holds what should be live."""
    path = tmp_path_factory.mktemp("s") / "s"
    live: list[int] = []
    count = 0

    def write(buffer: Any, n: int) -> None:
        nonlocal count, live
        more = {"priorities": np.arange(count, count + n) / 4} if hasattr(buffer, "beta") else {}
        if n:
            buffer.extend(**columns(count, n), **more)
        live = [*live, *range(count, count + n)][-buffer.capacity :]
        count += n

    with kind(capacity, path=path, observations=observations) as buffer:
        for n, is_cleared in sizes:
            write(buffer, n)
            if is_cleared:
                buffer.clear()
                live = []
    for capacity, n in others:
        before = len(live)
        done = diskreplay.resize(path, capacity)
        live = live[-capacity:]
        assert (done.size, done.dropped) == (len(live), before - len(live))
        assert diskreplay.verify(path) == []
        with diskreplay.open(path) as buffer:
            assert buffer.capacity == capacity
            assert buffer.count == count
            ids = np.arange(count - len(live), count)
            assert len(buffer) == len(live)
            if live:
                assert numbers_of(buffer.get(ids)).tolist() == live == ids.tolist()
                if kind is PrioritizedReplayBuffer:
                    assert (buffer.priorities(ids) == ids / 4).all()
            buffer.check()
            write(buffer, n)


def test_the_file_of_a_store_that_lost_half_is_small(tmp_path: Path) -> None:
    width, n = 60, 20_000
    with PrioritizedReplayBuffer(n, path=tmp_path / "s") as buffer:
        states = np.random.default_rng(0).standard_normal((n, width)).astype(np.float32)
        for _ in range(2):
            for at in range(0, n, 1000):
                part = states[at : at + 1000]
                buffer.extend(part, np.zeros(1000, int), np.zeros(1000), part, np.zeros(1000))
                buffer.flush()
    done = diskreplay.resize(tmp_path / "s", n // 2)
    payload = n // 2 * (2 * 4 * width + 16)
    assert done.after_bytes <= 1.2 * payload
    again = diskreplay.compact(tmp_path / "s")
    assert again.after_bytes <= 1.2 * payload
    with diskreplay.open(tmp_path / "s") as buffer:
        buffer.clear()
    assert diskreplay.compact(tmp_path / "s").after_bytes < 200_000


def test_the_pages_are_in_order_after_a_wrapped_ring(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diskreplay.maintenance.building._PART_BYTES", 100_000)
    path, n = tmp_path / "s", 20_000
    with ReplayBuffer(n, path=path) as buffer:
        buffer.extend(**columns(0, n + n // 2))
        full = buffer.stats()["records_bytes"]
    assert diskreplay.compact(path).after_bytes < 1.2 * full
    with diskreplay.open(path) as buffer:
        assert buffer.stats()["payload_bytes"] < buffer.stats()["records_bytes"] <= 1.01 * full


def test_priorities_of_blocks_that_several_commits_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diskreplay.maintenance.building._PART_BYTES", 7000)  # 100 rows or so
    path = tmp_path / "s"
    with PrioritizedReplayBuffer(2550, path=path) as buffer:
        buffer.extend(**columns(0, 4000), priorities=np.arange(4000) / 7)
    for capacity, first in ((2550, 1450), (3100, 1450), (1730, 2270), (1000, 3000)):
        diskreplay.resize(path, capacity)
        assert diskreplay.verify(path) == []
        with diskreplay.open(path) as buffer:
            ids = np.arange(first, 4000)
            assert buffer.first == first
            assert (buffer.priorities(ids) == (ids / 7).astype(np.float32)).all()
            assert numbers_of(buffer.get(ids)).tolist() == ids.tolist()
