"""diskreplay.repair: nothing wrong is copied, and all that is readable is."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from children import in_child
from common import columns, contents, numbers_of
from stores import (
    PAGE,
    change,
    empty,
    large,
    packed,
    packed_pages,
    prioritized,
    stored,
    uniform,
)

import diskreplay
from diskreplay import DamageError, PrioritizedReplayBuffer, ReplayBuffer, repair, verify
from diskreplay.lmdbfile.pages import DataFile
from diskreplay.lmdbfile.walk import Walk

MAKERS = [uniform, prioritized, large, packed, packed_pages]


def live_records(store: Path) -> dict[int, bytes]:
    """The record of every live write id."""
    with diskreplay.open(store, access="read") as buffer:
        first, count, capacity = buffer._ring.first, buffer.count, buffer.capacity
        with buffer._store.snapshot() as snapshot:
            ids = np.arange(first, count)
            records = map(bytes, snapshot.records(ids % capacity, buffer._ring._packing))
            return dict(zip(ids.tolist(), records, strict=True))


def priority(write_id: int) -> np.float32:
    return np.float32(
        write_id / 7 if write_id < 1000 else (write_id - 1000) / 3
    )  # as `prioritized` gives them


def rows_of(buffer: ReplayBuffer | PrioritizedReplayBuffer) -> list[int]:
    """The numbers of all transitions, each of which is checked to be whole."""
    ids = np.arange(buffer.count - len(buffer), buffer.count)
    batch = buffer.get(ids) if ids.size else None
    if batch is None:
        return []
    width = batch.states.shape[1]
    if width > 3:
        np.testing.assert_array_equal(batch.states, batch.next_states)
        np.testing.assert_array_equal(batch.states[:, 0], np.rint(batch.rewards * 8) * width)
        return [int(number) for number in np.rint(batch.rewards * 8)]
    return [int(number) for number in numbers_of(batch)]


def free_pages(store: Path) -> list[int]:
    """The pages of a sound store that are free."""
    file = DataFile(os.open(store / "data.mdb", os.O_RDONLY))
    try:
        walk = Walk(file, file.metas()[0][0])
        walk.collect_free()
        return [int(page) for page in np.flatnonzero(walk.free)]
    finally:
        file.close()


def check_repair(damaged: Path, out: Path, live: dict[int, bytes], free: Iterable[int] = ()) -> str:
    """Repair a store; compare with the live records that still stand in its file.

    What stands in `free` pages only may be copied or not.
    """
    before = contents(damaged)
    content = bytearray(before["data.mdb"])
    for page in free:
        content[page * PAGE : (page + 1) * PAGE] = bytes(len(content[page * PAGE :][:PAGE]))
    readable = [write_id for write_id, record in live.items() if record in content]
    done = repair(damaged, out)
    said = " ".join(done.faults)
    assert contents(damaged) == before
    assert verify(out) == []
    with diskreplay.open(out) as buffer:
        buffer.check()
        found = rows_of(buffer)
        assert found == sorted(found)
        if "meta page" not in said and "the state cannot be read" not in said:
            assert set(found) <= live.keys(), "something that was not live"
        if "meta page" not in said:  # or else it is the commit before that is copied
            assert set(readable) <= set(found), "something readable is not there"
        assert done.copied == len(found)
        lost = {write_id for first, end in done.lost_ids for write_id in range(first, end)}
        assert len(lost) == done.lost
        assert not lost & set(found)
        if found:
            assert buffer.count == found[-1] + 1
        if isinstance(buffer, PrioritizedReplayBuffer) and found:
            got = buffer._sampler.live_priorities(buffer.count - len(found), buffer.count)
            expected = np.array([priority(number) for number in found])
            assert np.count_nonzero(got != expected) <= done.priorities_lost
            assert (got[got != expected] == buffer.max_priority).all()
        if found:
            buffer.sample(min(8, len(found)))
        buffer.push(**{k: v[0] for k, v in one_more(buffer).items()})
    return str(done)


def one_more(buffer: ReplayBuffer | PrioritizedReplayBuffer) -> dict[str, np.ndarray]:
    assert buffer.schema is not None
    return {f.name: np.zeros((1, *f.shape), f.dtype) for f in buffer.schema.fields}


@pytest.mark.parametrize("make", [*MAKERS, empty])
def test_a_sound_store_is_copied_whole(make: Callable[[Path], Path], tmp_path: Path) -> None:
    store = make(tmp_path / "s")
    before = contents(store)
    done = repair(store, tmp_path / "out")
    assert contents(store) == before
    assert not done.faults
    assert done.lost == done.priorities_lost == 0
    assert str(done) == f"copied all transitions of a sound store: {done.copied}"
    assert verify(tmp_path / "out") == []
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "s"]
    with diskreplay.open(store) as old, diskreplay.open(tmp_path / "out") as new:
        assert done.copied == len(old) == len(new)
        for name in ("count", "capacity", "schema", "_settings"):
            assert getattr(old, name) == getattr(new, name)
        assert old._sampler.state() == new._sampler.state()
        assert old._contents.stale == new._contents.stale
        assert old._store.identity["uuid"] != new._store.identity["uuid"]
        for one, two in zip(old, new, strict=True):
            for a, b in zip(one, two, strict=True):
                assert np.array_equal(a, b)
        for _ in range(3 if len(old) else 0):
            for a, b in zip(old.sample(8), new.sample(8), strict=True):
                assert np.array_equal(a, b)


@pytest.mark.parametrize("make", MAKERS)
def test_any_page_may_be_lost(make: Callable[[Path], Path], tmp_path: Path, long: bool) -> None:
    store = make(tmp_path / "s")
    data = store / "data.mdb"
    content = data.read_bytes()
    live, free = live_records(store), free_pages(store)
    generator = np.random.default_rng(3)
    pages = len(content) // PAGE
    whole = 0
    chosen = generator.choice(np.arange(2, pages), min(8, pages - 2), replace=False).tolist()
    for page in range(pages) if long else [0, 1, *chosen]:
        at = page * PAGE
        other = int(generator.integers(0, pages)) * PAGE
        bads = [bytes(PAGE), generator.bytes(PAGE), content[other : other + PAGE]]
        for number, bad in enumerate(bads if long else bads[page % 3 : page % 3 + 1]):
            data.write_bytes(content[:at] + bad + content[at + PAGE :])

            def try_it(out: Path = tmp_path / f"out-{page}-{number}") -> str:
                return check_repair(store, out, live, free)

            outcome = in_child(try_it)
            assert not outcome.failure, (page, number, outcome.failure)
            whole += "lost" not in outcome.value or "lost: 0;" in outcome.value
    assert whole > 1


@pytest.mark.parametrize("make", MAKERS)
def test_flipped_bits(make: Callable[[Path], Path], tmp_path: Path, long: bool) -> None:
    store = make(tmp_path / "s")
    data = store / "data.mdb"
    content = data.read_bytes()
    live, free = live_records(store), free_pages(store)
    generator = np.random.default_rng(5)
    for number in range(1000 if long else 12):
        flipped = bytearray(content)
        for _ in range(1 + number % 3):
            at = int(generator.integers(0, len(content)))
            if number % 2:
                at = at // PAGE * PAGE + at % 160  # where the structure is
            flipped[at] ^= 1 << int(generator.integers(0, 8))
        data.write_bytes(flipped)

        def try_it(out: Path = tmp_path / f"out-{number}") -> str:
            return check_repair(store, out, live, free)

        outcome = in_child(try_it)
        assert not outcome.failure, (number, outcome.failure)


@pytest.mark.parametrize("make", MAKERS)
def test_a_file_cut_short(make: Callable[[Path], Path], tmp_path: Path) -> None:
    store = make(tmp_path / "s")
    data = store / "data.mdb"
    content = data.read_bytes()
    live, free = live_records(store), free_pages(store)
    ends = {"copied": 0, "refused": 0}
    for number, size in enumerate(range(0, len(content), max(PAGE, len(content) // 7) - 100)):
        data.write_bytes(content[:size])
        out = tmp_path / f"out-{number}"
        is_there = all(fact in content[:size] for fact in (b"\xa8identity", b"\xa6schema"))
        if is_there and size >= PAGE:
            check_repair(store, out, live, free)
        else:
            with pytest.raises(DamageError, match="cannot be repaired: no "):
                repair(store, out)
            assert not out.exists()
        ends["copied" if is_there else "refused"] += 1
    assert all(ends.values())


def test_both_meta_pages_may_be_lost(tmp_path: Path) -> None:
    store = prioritized(tmp_path / "s")
    live = live_records(store)
    data = store / "data.mdb"
    data.write_bytes(bytes(2 * PAGE) + data.read_bytes()[2 * PAGE :])
    said = check_repair(store, tmp_path / "out", live)
    assert "lost: 0; with a lost priority: 350;" in said


@pytest.mark.parametrize("manifest", [b"", b'{"format": 1}', b"\0" * 60])
def test_the_manifest_may_be_lost(manifest: bytes, tmp_path: Path) -> None:
    store = uniform(tmp_path / "s")
    live = live_records(store)
    (store / "diskreplay.json").write_bytes(manifest)
    assert check_repair(store, tmp_path / "out", live).startswith(
        "transitions copied: 300; lost: 0;"
    )


def test_a_store_of_another_format_is_not_repaired(tmp_path: Path) -> None:
    store = uniform(tmp_path / "s")
    (store / "diskreplay.json").write_text('{"format": 3, "uuid": "x"}')
    with pytest.raises(diskreplay.FormatVersionError, match="has format 3"):
        repair(store, tmp_path / "out")


@pytest.mark.parametrize("fact", ["identity", "schema", "state"])
def test_a_fact_that_is_gone_is_found_in_a_replaced_page(fact: str, tmp_path: Path) -> None:
    store = uniform(tmp_path / "s")
    live = live_records(store)
    change(store, "meta", fact, b"damaged")
    check_repair(store, tmp_path / "out", live)


def test_without_a_schema_or_an_identity_nothing_is_copied(tmp_path: Path) -> None:
    for fact, mark in (("identity", b"\xa8identity"), ("schema", b"\xa6schema")):
        store = uniform(tmp_path / fact)
        data = store / "data.mdb"
        data.write_bytes(data.read_bytes().replace(mark, mark[:-1] + b"\0"))
        with pytest.raises(DamageError, match=f"cannot be repaired: no {fact} can be found"):
            repair(store, tmp_path / "out")
        assert not (tmp_path / "out").exists()


def test_without_a_state_the_records_say_what_is_live(tmp_path: Path) -> None:
    store = prioritized(tmp_path / "s")
    data = store / "data.mdb"
    seal_of_a_state = re.compile(rb"\x93\xcf(.{8}\xa5state)", re.S)
    data.write_bytes(seal_of_a_state.sub(b"\x93\xce" + rb"\1", data.read_bytes()))
    done = repair(store, tmp_path / "out")
    with diskreplay.open(tmp_path / "out") as buffer:
        assert rows_of(buffer) == list(range(250, 1350))  # when it was cleared is not known
        assert done.copied == 1100
        assert done.state_lost
        assert "random stream and annealing: lost;" in str(done)


def test_lost_priorities_become_the_largest(tmp_path: Path) -> None:
    store = prioritized(tmp_path / "s")
    block = stored(store, "priorities", 0)
    change(store, "priorities", 0, block[:100] + b"x" + block[101:])
    done = repair(store, tmp_path / "out")
    # Slots 1000 to 1099 are the write ids 1000 to 1099, and have the other block.
    assert (done.copied, done.lost, done.priorities_lost) == (350, 0, 250)
    assert not done.state_lost
    assert "with a lost priority: 250; faults of the store: 1" in str(done)
    with diskreplay.open(tmp_path / "out") as buffer:
        assert isinstance(buffer, PrioritizedReplayBuffer)
        got = buffer._sampler.live_priorities(1000, 1350)
        assert buffer.max_priority == priority(1349)
        np.testing.assert_array_equal(got[:100], [priority(i) for i in range(1000, 1100)])
        assert (got[100:] == priority(1349)).all()


def test_records_of_replaced_pages_are_not_taken(tmp_path: Path) -> None:
    """A commit that came to nothing leaves records in free pages, with sound checksums."""
    store = uniform(tmp_path / "s")
    live = live_records(store)
    data = store / "data.mdb"
    content = bytearray(data.read_bytes())
    write_id = next(i for i, record in live.items() if content.count(record) == 1)
    with diskreplay.open(store) as buffer:
        assert buffer.schema is not None
        values = {name.removesuffix("s"): value for name, value in columns(9, 1).items()}
        other = buffer._ring._codec.encode(
            buffer.schema.accept_columns(values.values(), {}), write_id
        )[0]
    content[content.index(live[write_id]) + 30] ^= 1
    at = free_pages(store)[0] * PAGE + 16
    content[at : at + len(other)] = other
    data.write_bytes(content)
    done = repair(store, tmp_path / "out")
    assert (done.lost, done.lost_ids) == (1, ((write_id, write_id + 1),))


def test_records_on_several_pages_are_found_without_their_tree(tmp_path: Path) -> None:
    """They begin anywhere in a value, so also those are found whose value begins in a lost page."""
    store = packed_pages(tmp_path / "s")
    live, free = live_records(store), free_pages(store)
    file = DataFile(os.open(store / "data.mdb", os.O_RDONLY))
    walk = Walk(file, file.metas()[0][0])
    walk.collect_free()
    tree = walk.trees()[b"transitions"]
    begins = [at // PAGE for _, at, _ in walk.numbered(b"transitions", tree)]
    file.close()
    content = bytearray((store / "data.mdb").read_bytes())
    for page, lost in ((tree.root, 0), (begins[0], 2)):
        content[page * PAGE : (page + 1) * PAGE] = bytes(PAGE)
        (store / "data.mdb").write_bytes(content)
        done = check_repair(store, tmp_path / f"out-{page}", live, free)
        assert f"lost: {lost}" in done


def test_a_record_that_ends_in_a_free_page_is_not_taken(tmp_path: Path) -> None:
    """What begins in the slack of a page in use may be of a commit that came to nothing."""
    store = packed_pages(tmp_path / "s")
    live, free = live_records(store), free_pages(store)
    data = store / "data.mdb"
    content = bytearray(data.read_bytes())
    write_id = max(live)
    with diskreplay.open(store) as buffer:
        assert buffer.schema is not None
        values = {f.name: np.zeros((1, *f.shape), f.dtype) for f in buffer.schema.fields}
        [other] = buffer._ring._codec.encode(
            buffer.schema.accept_columns(values.values(), {}), write_id
        )
    content[content.index(live[write_id]) + 30] ^= 1
    ends = [page * PAGE for page in free if page > 2 and page - 1 not in free]
    [at, *_] = [end - 1800 for end in ends if not any(content[end - 1800 : end])]
    content[at : at + len(other)] = other
    data.write_bytes(content)
    assert repair(store, tmp_path / "out").lost_ids == ((write_id, write_id + 1),)
    content[:PAGE] = content[PAGE : 2 * PAGE] = bytes(PAGE)  # then what is free is not known
    data.write_bytes(content)
    assert repair(store, tmp_path / "more").lost == 0


def test_two_records_that_differ_are_both_left_out(tmp_path: Path) -> None:
    store = uniform(tmp_path / "s")
    live = live_records(store)
    data = store / "data.mdb"
    with diskreplay.open(store) as buffer:
        [other] = buffer._ring._codec.encode(
            buffer.schema.accept_columns(  # type: ignore[union-attr]
                columns(9, 1).values(), {}
            ),
            459,
        )
    content = bytes(2 * PAGE) + data.read_bytes()[2 * PAGE :]  # what is free is not known either
    data.write_bytes(content)
    assert "lost: 0;" in check_repair(store, tmp_path / "out", live)
    data.write_bytes(content + bytes(16) + other + bytes(PAGE - 16 - len(other)))
    done = repair(store, tmp_path / "other")
    assert done.lost_ids == ((459, 460),)
    with diskreplay.open(tmp_path / "other") as buffer:
        assert rows_of(buffer) == [number for number in live if number != 459]


def test_out_must_be_new(tmp_path: Path) -> None:
    store = uniform(tmp_path / "s")
    for out in (store, uniform(tmp_path / "t")):
        with pytest.raises(diskreplay.StorageError, match="holds a store already"):
            repair(store, out)
    with pytest.raises(diskreplay.StorageError, match="inside the store"):
        repair(store, store / "deeper")
    (tmp_path / "u").mkdir()
    repair(store, tmp_path / "u")  # empty
    (tmp_path / "v").mkdir()
    (tmp_path / "v" / "x").touch()
    with pytest.raises(diskreplay.NotAStoreError, match="not a diskreplay store"):
        repair(store, tmp_path / "v")
    with pytest.raises(diskreplay.NotAStoreError):
        repair(tmp_path / "nothing", tmp_path / "w")
    with diskreplay.open(store), pytest.raises(diskreplay.LockedError):
        repair(store, tmp_path / "w")
    assert not (tmp_path / "w").exists()


def test_an_error_on_the_way_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = uniform(tmp_path / "s")
    for error in (KeyboardInterrupt, OSError(28, "No space left on device")):

        def fail(*arguments: object, error: BaseException | type[BaseException] = error) -> None:
            raise error

        monkeypatch.setattr("diskreplay.maintenance.salvage.Salvage.columns", fail)
        with pytest.raises((KeyboardInterrupt, OSError)):
            repair(store, tmp_path / "out")
        assert [p.name for p in tmp_path.iterdir()] == ["s"]
    monkeypatch.undo()
    repair(store, tmp_path / "out")


def test_a_kill_on_the_way_leaves_nothing_at_out(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with ReplayBuffer(capacity=100_000, path=path) as buffer:
        buffer.extend(*columns(0, 100_000).values())
    code = "import sys, diskreplay; print(1, flush=True); diskreplay.repair(*sys.argv[1:])"
    for delay in (0.4, 0.8):
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code), str(path), str(tmp_path / "out")],
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert not (tmp_path / "out").exists() or verify(tmp_path / "out") == []
        assert verify(path) == []
