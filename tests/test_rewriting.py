"""compact and resize."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import stores
from common import columns, contents, numbers_of
from hypothesis import example, given, settings
from kills import at_each_step, at_random
from others import Other

import diskreplay
from diskreplay import PrioritizedReplayBuffer, ReplayBuffer


def told(path: Path) -> tuple[Any, ...]:
    """All that a store holds: live write ids, transitions, priorities, random stream, facts."""
    with diskreplay.open(path, access="read") as buffer:
        buffer.check()
        ids = np.arange(buffer.count - len(buffer), buffer.count)
        numbers = numbers_of(buffer.get(ids)).tolist() if ids.size else []
        prioritized = isinstance(buffer, PrioritizedReplayBuffer)
        priorities = buffer.priorities(ids).tolist() if prioritized else []
        stats = buffer.stats()
        kept = ["count", "runs", "stale_updates", "commits", "durability"]
        kept += ["alpha", "beta", "frame", "max_priority"] * prioritized
        facts = {name: stats[name] for name in kept}
        return ids.tolist(), numbers, priorities, facts, buffer._ring.state["generator"]


def draws(path: Path) -> list[list[int]]:
    """The next batches, of a copy."""
    shutil.copytree(path, path.with_name("drawn"))
    with diskreplay.open(path.with_name("drawn")) as buffer:
        found = [numbers_of(buffer.sample(4)).tolist() for _ in range(9)] if len(buffer) else []
    shutil.rmtree(path.with_name("drawn"))
    return found


STORES = [stores.uniform, stores.prioritized, stores.empty]


@pytest.mark.parametrize("make", STORES)
def test_compact_changes_nothing_but_the_file(make: Any, tmp_path: Path) -> None:
    path = make(tmp_path / "s")
    before, drawn, data = told(path), draws(path), (path / "data.mdb").read_bytes()
    manifest, mode = (path / "diskreplay.json").read_bytes(), (path / "data.mdb").stat().st_mode
    done = diskreplay.compact(path)
    assert (told(path), draws(path)) == (before, drawn)
    assert diskreplay.verify(path) == []
    assert (path / "data.mdb").read_bytes() != data
    assert (path / "diskreplay.json").read_bytes() == manifest
    assert (path / "data.mdb").stat().st_mode == mode
    assert (done.size, done.dropped, done.before_bytes) == (len(before[0]), 0, len(data))
    assert done.after_bytes == (path / "data.mdb").stat().st_size
    assert sorted(p.name for p in path.iterdir()) == [
        "data.known", "data.mdb", "diskreplay.json", "lock.mdb", "openers", "openers.lock",
        "writer.lock",
    ]  # fmt: skip


@pytest.mark.parametrize("make", [stores.large, stores.packed, stores.packed_pages])
def test_compact_keeps_records_of_any_size(make: Any, tmp_path: Path) -> None:
    path = make(tmp_path / "s")
    with diskreplay.open(path) as buffer:
        before = [row.state.tobytes() for row in buffer]
    diskreplay.compact(path)
    assert diskreplay.verify(path) == []
    diskreplay.resize(path, 17)
    assert diskreplay.verify(path) == []
    with diskreplay.open(path) as buffer:
        assert [row.state.tobytes() for row in buffer] == before[-17:]


@settings(max_examples=40)
@given(
    kind=st.sampled_from([ReplayBuffer, PrioritizedReplayBuffer]),
    capacity=st.integers(1, 40),
    sizes=st.lists(st.tuples(st.integers(0, 50), st.booleans()), max_size=4),
    others=st.lists(st.tuples(st.integers(1, 60), st.integers(0, 70)), min_size=1, max_size=4),
)
@example(kind=PrioritizedReplayBuffer, capacity=10, sizes=[(25, False)], others=[(30, 3), (9, 20)])
def test_resize_against_a_list(
    tmp_path_factory: pytest.TempPathFactory,
    kind: Any,
    capacity: int,
    sizes: list[tuple[int, bool]],
    others: list[tuple[int, int]],
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

    with kind(capacity, path=path) as buffer:
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


def test_progress_is_told(tmp_path: Path) -> None:
    path = stores.uniform(tmp_path / "s")
    steps: list[tuple[int, int]] = []
    diskreplay.compact(path, progress=lambda done, total: steps.append((done, total)))
    assert steps[-1] == (300, 300)


# Refusals


@pytest.mark.parametrize("access", ["exclusive", "shared", "read"])
def test_who_has_it_open_is_named(access: str, tmp_path: Path, other: Other) -> None:
    path = stores.prioritized(tmp_path / "b")
    before = told(path)
    other.open(1100, access=access)
    with pytest.raises(diskreplay.LockedError, match=f"held by pid {other.process.pid} .*alone"):
        diskreplay.compact(path)
    reader = diskreplay.open(path, access="read")
    with pytest.raises(diskreplay.LockedError, match="open in this process"):
        diskreplay.resize(path, 10)
    reader.close()
    other.close()
    assert told(path) == before


def test_nobody_opens_it_meanwhile(tmp_path: Path, other: Other) -> None:
    path = stores.prioritized(tmp_path / "b")
    refusals = []

    def look(_: int, __: int) -> None:
        for access in ("read", "exclusive", "shared"):
            with pytest.raises(RuntimeError) as refused:
                other.open(1100, access=access)
            refusals.append(str(refused.value))

    diskreplay.compact(path, progress=look)
    assert refusals
    for said in refusals:
        assert said.startswith("LockedError")
        assert f"made anew by pid {os.getpid()}" in said
    assert other.open(1100, access="read") == 350


def test_a_damaged_record_is_not_copied(tmp_path: Path) -> None:
    path = stores.large(tmp_path / "s")
    raw = bytearray((path / "data.mdb").read_bytes())
    at = raw.find(np.arange(15_000, 15_100).tobytes())
    raw[at] ^= 1
    (path / "data.mdb").write_bytes(raw)
    before = contents(path)
    with pytest.raises(diskreplay.DamageError, match=r"write id 10 .*nothing was changed"):
        diskreplay.compact(path)
    assert contents(path) == before


def test_a_capacity_must_be_one(tmp_path: Path) -> None:
    path = stores.uniform(tmp_path / "s")
    for wrong in (0, -1, 1.5, "many"):
        with pytest.raises(diskreplay.ArgumentError, match="capacity"):
            diskreplay.resize(path, wrong)  # type: ignore[arg-type]
    with pytest.raises(diskreplay.NotAStoreError):
        diskreplay.compact(tmp_path / "none")


def test_a_capacity_whose_priorities_do_not_fit_memory(tmp_path: Path) -> None:
    path = stores.prioritized(tmp_path / "s")
    before = told(path)
    with pytest.raises(diskreplay.ArgumentError, match="for its priorities, 20 bytes a slot"):
        diskreplay.resize(path, 2**39)
    assert told(path) == before
    diskreplay.resize(stores.uniform(tmp_path / "u"), 2**39)
    with pytest.warns(diskreplay.DiskSpaceWarning), diskreplay.open(tmp_path / "u") as buffer:
        assert len(buffer) == 300


def test_a_disk_with_too_little_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = stores.uniform(tmp_path / "s")
    before = contents(path)
    usage = shutil.disk_usage(path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(diskreplay.StorageError, match=r"needs .* for a second data file"):
        diskreplay.compact(path)
    assert contents(path) == before


# Kills


@pytest.mark.parametrize("capacity", [None, 200])
def test_a_kill_at_each_step_leaves_one_or_the_other(capacity: int | None, tmp_path: Path) -> None:
    path = stores.prioritized(tmp_path / "s")
    whole = {1100: told(path)}
    shutil.copytree(path, tmp_path / "model")
    if capacity:
        diskreplay.resize(tmp_path / "model", capacity)
        whole[capacity] = told(tmp_path / "model")
    kept = tmp_path / "kept"
    shutil.copytree(path, kept)

    def work() -> None:
        diskreplay.resize(path, capacity) if capacity else diskreplay.compact(path)

    seen = set()
    for _ in at_each_step(work):
        assert diskreplay.verify(path) == []
        with diskreplay.open(path, access="read") as buffer:
            found = buffer.capacity
        assert told(path) == whole[found]
        seen.add(found)
        shutil.rmtree(path)
        shutil.copytree(kept, path)
    assert seen == set(whole)
    assert not list(path.glob(".diskreplay-new-*"))


def test_kills_at_random_moments(tmp_path: Path, long: bool) -> None:
    path = tmp_path / "s"
    with PrioritizedReplayBuffer(20_000, path=path, seed=3) as buffer:
        for first in range(0, 50_000, 5000):
            buffer.extend(**columns(first, 5000), priorities=np.arange(5000) + 1.0)
            buffer.flush()
    whole = told(path)
    began = time.perf_counter()
    diskreplay.compact(path)
    took = time.perf_counter() - began
    rng = random.Random(0)
    moments = [rng.uniform(0, 1.3 * took) for _ in range(100 if long else 15)]
    kills = 0
    for number, was_killed in enumerate(at_random(lambda: diskreplay.compact(path), moments)):
        kills += was_killed
        if number % 5 == 0 or long:
            assert diskreplay.verify(path) == []
        assert told(path) == whole
    assert kills
    diskreplay.compact(path)
    assert not list(path.glob(".diskreplay-new-*"))


def test_an_interrupt_leaves_nothing_behind(tmp_path: Path) -> None:
    path = stores.uniform(tmp_path / "s")
    before = contents(path)

    def interrupt(_: int, __: int) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        diskreplay.compact(path, progress=interrupt)
    assert contents(path) == before
    diskreplay.compact(path)
