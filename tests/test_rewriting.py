"""compact and resize."""

from __future__ import annotations

import fcntl
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
from common import columns, contents, numbers_of, run_python
from hypothesis import example, given, settings
from kills import at_each_step, at_random
from others import Other

import diskreplay
from diskreplay import PrioritizedReplayBuffer, ReplayBuffer
from diskreplay.directory import exchange, is_known
from diskreplay.locks import Hold


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
    path = tmp_path / "s"
    with ReplayBuffer(20_000, path=path) as buffer:
        buffer.extend(**columns(0, 30_000))
    before, size = contents(path), (path / "data.mdb").stat().st_size
    usage = shutil.disk_usage(path)._replace(free=size)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(diskreplay.StorageError, match=r"needs .* for a second data file"):
        diskreplay.compact(path)
    assert contents(path) == before
    usage = usage._replace(free=size + (1 << 20))
    assert diskreplay.resize(path, 10**9).size == 20_000  # what is there counts, not the capacity


def test_a_refusal_of_the_disk_leaves_the_store(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with ReplayBuffer(20_000, path=path) as buffer:
        buffer.extend(**columns(0, 30_000))
    code = """
        import resource, signal, sys
        import diskreplay
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))
        try:
            diskreplay.compact(sys.argv[1])
        except diskreplay.StorageError as error:
            print(error)
    """
    before = contents(path)
    said = run_python(code, path).stdout
    assert f"cannot write a new data file for {path}, which is as it was" in said
    assert contents(path) == before


def test_owners_and_modes_stay(tmp_path: Path) -> None:
    path = stores.uniform(tmp_path / "s")
    (path / "data.mdb").chmod(0o640)
    (path / "lock.mdb").chmod(0o666)
    if os.geteuid() == 0:
        os.chown(path / "data.mdb", 1234, 2345)
        os.chown(path / "lock.mdb", 1235, 2346)

    def look() -> list[tuple[int, int, int]]:
        found = [(path / name).stat() for name in ("data.mdb", "lock.mdb")]
        return [(one.st_mode, one.st_uid, one.st_gid) for one in found]

    before = look()
    diskreplay.compact(path)
    assert look() == before
    assert is_known(path)  # or the next opening would walk over all pages


@pytest.mark.skipif(os.geteuid() != 0, reason="another user is needed")
def test_the_store_of_another_user_is_refused(tmp_path: Path) -> None:
    path = stores.uniform(tmp_path / "s")
    for place in (path, *path.rglob("*"), *list(path.parents)[:4]):
        place.chmod(place.stat().st_mode | 0o777)
    before = contents(path)
    code = """
        import os, sys
        import numpy.random
        import diskreplay
        os.setuid(65534)
        try:
            diskreplay.compact(sys.argv[1])
        except diskreplay.StorageError as error:
            print(error)
    """
    assert "belongs to user 0" in run_python(code, path).stdout
    assert contents(path) == before


def test_the_pages_are_in_order_after_a_wrapped_ring(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diskreplay.rewriting._COMMIT_BYTES", 100_000)
    path, n = tmp_path / "s", 20_000
    with ReplayBuffer(n, path=path) as buffer:
        buffer.extend(**columns(0, n + n // 2))
        payload = buffer.stats()["payload_bytes"]
        full = buffer.stats()["records_bytes"]
    done = diskreplay.compact(path)
    with diskreplay.open(path) as buffer:
        assert buffer.stats()["records_bytes"] <= 1.01 * full
    assert done.after_bytes < 1.2 * full
    assert payload < full


def test_the_new_file_is_on_the_disk_before_it_gets_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = stores.uniform(tmp_path / "s")
    done: list[str] = []
    fsync, rename = os.fsync, os.rename

    def noted_fsync(descriptor: int) -> None:
        done.append("sync " + Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        fsync(descriptor)

    def noted_rename(old: Any, new: Any) -> None:
        done.append(f"rename to {Path(new).parent.name}/{Path(new).name}")
        rename(old, new)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "rename", noted_rename)
    diskreplay.compact(path)
    at = done.index("rename to s/data.mdb")
    assert done[at - 1] == "sync data.mdb"
    assert "sync s" in done[at:]


def test_a_child_that_was_forked_meanwhile_does_not_keep_the_store(tmp_path: Path) -> None:
    path = stores.uniform(tmp_path / "s")
    children = []

    def fork(_: int, __: int) -> None:
        child = os.fork()
        if child == 0:
            signal.pause()
        children.append(child)

    diskreplay.compact(path, progress=fork)
    try:
        diskreplay.open(path).close()
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    assert children


def test_an_interrupted_opening_does_not_hold_the_store(tmp_path: Path) -> None:
    path = stores.uniform(tmp_path / "s")
    Hold(path, "alone")  # nobody has it, as when an interrupt comes before it is assigned
    diskreplay.open(path).close()
    hold = Hold(path, "read")
    with pytest.raises(diskreplay.LockedError):
        Hold(path, "read")
    with pytest.raises(diskreplay.LockedError):  # which the one before did not give back
        Hold(path, "read")
    hold.release()


def test_a_store_that_is_replaced_while_it_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, other = stores.uniform(tmp_path / "s"), stores.uniform(tmp_path / "t")
    flock = fcntl.flock

    def slow(*arguments: Any) -> None:
        monkeypatch.setattr(fcntl, "flock", flock)
        exchange(other, path)
        flock(*arguments)

    monkeypatch.setattr(fcntl, "flock", slow)
    with pytest.raises(diskreplay.LockedError, match="replaced by another store meanwhile"):
        diskreplay.open(path)
    diskreplay.open(path).close()


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
    assert not list(path.glob(".diskreplay-rewritten-*"))


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
    assert not list(path.glob(".diskreplay-rewritten-*"))


def test_an_interrupt_leaves_nothing_behind(tmp_path: Path) -> None:
    path = stores.uniform(tmp_path / "s")
    before = contents(path)

    def interrupt(_: int, __: int) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        diskreplay.compact(path, progress=interrupt)
    assert contents(path) == before
    diskreplay.compact(path)
