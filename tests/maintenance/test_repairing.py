"""diskreplay.repair: nothing wrong is copied, and all that is readable is."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from children import in_child
from common import contents, numbers_of
from inside import store_of
from stores import MAKERS, PAGE, change, empty, packed_pages, prioritized, stored, uniform, walk_of

import diskreplay
from diskreplay import DamageError, PrioritizedReplayBuffer, ReplayBuffer, repair, verify
from diskreplay.maintenance.sources import SoundStore
from diskreplay.records import entries_in
from diskreplay.store import known_note
from diskreplay.store.store import Store

Buffer = ReplayBuffer | PrioritizedReplayBuffer


@contextlib.contextmanager
def source_of(path: Path) -> Iterator[SoundStore]:
    store = Store(path)
    try:
        with store.snapshot() as snapshot:
            yield SoundStore(store, snapshot)
    finally:
        store.close()


def live_records(path: Path) -> dict[int, bytes]:
    """The record of every live write id."""
    with source_of(path) as source:
        ids = np.arange(source.live.first, source.live.count)
        return dict(zip(ids.tolist(), source.records(ids), strict=True))


def live_entries(path: Path) -> dict[int, list[bytes]]:
    """The entries of the observation log that the record of every live write id refers to."""
    with source_of(path) as source:
        if source.layout is None or source.schema is None:
            return {}
        ids = np.arange(source.live.first, source.live.count)
        slots = source.live.slots(ids)
        columns = source.codec.decode(source.records(ids), ids, slots, source.schema.logged)
        per_value = source.layout.entries_per_value
        entries: dict[int, bytes] = {}
        for key, values in source.log_values(source.state.observations.first):
            for group, value in enumerate(values, key):
                entries |= {
                    group * per_value + n: bytes(entry) for n, entry in enumerate(entries_in(value))
                }
        rows = np.concatenate([column.reshape(len(ids), -1) for column in columns], axis=1)
        found = ([entries[i] for i in row] for row in rows.tolist())
        return dict(zip(ids.tolist(), found, strict=True))


def another_record(path: Path, write_id: int) -> bytes:
    """A sound record of zeros under a write id."""
    with source_of(path) as source:
        fields = source.codec.schema.fields
        zeros = [np.zeros((1, *field.shape), field.dtype) for field in fields]
        return source.codec.encode(zeros, write_id).tobytes()


def free_pages(path: Path) -> list[int]:
    """The pages of a sound store that are free."""
    with walk_of(path) as walk:
        return [int(page) for page in np.flatnonzero(walk.free)]


def put_page(content: bytearray, page: int, new: bytes) -> None:
    end = min(len(content), (page + 1) * PAGE)
    content[page * PAGE : end] = new[: end - page * PAGE]


def priority(write_id: int) -> np.float32:
    """The priority that `prioritized` gives."""
    return np.float32(write_id / 7 if write_id < 1000 else (write_id - 1000) / 3)


def rows_of(buffer: Buffer) -> list[int]:
    """The numbers of all transitions, each of which is checked to be whole."""
    ids = np.arange(buffer.first, buffer.count)
    if not ids.size:
        return []
    batch = buffer.get(ids)
    width = batch.states[0].size
    if width == 3:
        return [int(number) for number in numbers_of(batch)]
    np.testing.assert_array_equal(batch.states, batch.next_states)
    firsts = batch.states.reshape(len(ids), -1)[:, 0]
    np.testing.assert_array_equal(firsts, np.rint(batch.rewards * 8) * width)
    return [int(number) for number in np.rint(batch.rewards * 8)]


def check_repair(
    damaged: Path,
    out: Path,
    live: dict[int, bytes],
    free: Iterable[int] = (),
    entries: dict[int, list[bytes]] | None = None,
) -> str:
    """Repair a store; compare with the live records that still stand in its file.

    What stands in `free` pages only may be copied or not.

    entries:  what the records refer to in the observation log
    """
    before = contents(damaged)
    content = bytearray(before["data.mdb"])
    for page in free:
        put_page(content, page, bytes(PAGE))
    readable = [write_id for write_id, record in live.items() if record in content]
    if entries:
        there = {entry: entry in content for row in entries.values() for entry in set(row)}
        readable = [write_id for write_id in readable if all(map(there.get, entries[write_id]))]
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
        # With a damaged meta page it may be the commit before that is copied; and entries of the
        # log are searched for only where it is known which pages are free.
        if "meta page" not in said and not (entries and "free" in said):
            assert set(readable) <= set(found), "something readable is not there"
        assert done.copied == len(found)
        lost = {write_id for first, end in done.lost_ids for write_id in range(first, end)}
        assert len(lost) == done.lost
        assert not lost & set(found)
        if found:
            assert buffer.count == found[-1] + 1
            buffer.sample(min(8, len(found)))
            if isinstance(buffer, PrioritizedReplayBuffer):
                got = buffer.priorities(np.arange(buffer.first, buffer.count))
                wrong = got != np.array([priority(number) for number in found])
                assert np.count_nonzero(wrong) <= done.priorities_lost
                assert (got[wrong] == buffer.max_priority).all()
        assert buffer.schema is not None
        texts: dict[str, Any] = {"note": "", "blob": b""}
        zeros = {
            f.name: texts.get(f.name, np.zeros([n or 0 for n in f.shape], f.dtype))
            for f in buffer.schema.fields
        }
        buffer.push(**zeros)  # type: ignore[arg-type]
    return str(done)


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
    kept = ["kind", "size", "capacity", "count", "schema", "stale_updates", "durability"]
    with diskreplay.open(store) as old, diskreplay.open(tmp_path / "out") as new:
        if isinstance(old, PrioritizedReplayBuffer):
            kept += ["alpha", "beta_end", "epsilon", "beta", "frame", "max_priority"]
        one, other = old.stats(), new.stats()
        assert [one[name] for name in kept] == [other[name] for name in kept]
        assert [(run["first"], run["end"]) for run in other["runs"]] == [(old.first, old.count)]
        assert store_of(old).identity.uuid != store_of(new).identity.uuid
        for _ in range(3 if len(old) else 0):
            for a, b in zip([*old, *old.sample(8)], [*new, *new.sample(8)], strict=True):
                assert all(map(np.array_equal, a, b))


def test_a_repaired_store_is_known_also_after_the_machine_starts_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repair(uniform(tmp_path / "s"), tmp_path / "out")
    monkeypatch.setattr(known_note, "_boot", lambda: b"another")
    assert known_note.is_known(tmp_path / "out")  # or its first opening would walk over all pages


def bad_pages(content: bytes, long: bool) -> Iterator[bytes]:
    """The file with one page that is zeroed, random or another one."""
    generator = np.random.default_rng(3)
    pages = len(content) // PAGE
    chosen = generator.choice(np.arange(2, pages), min(4, pages - 2), replace=False).tolist()
    for page in range(pages) if long else [0, 1, *chosen]:
        other = int(generator.integers(0, pages)) * PAGE
        bads = [bytes(PAGE), generator.bytes(PAGE), content[other : other + PAGE]]
        for bad in bads if long else bads[page % 3 : page % 3 + 1]:
            spoilt = bytearray(content)
            put_page(spoilt, page, bad)
            yield bytes(spoilt)


def flipped_bits(content: bytes, long: bool) -> Iterator[bytes]:
    """The file with one to three bits that are others."""
    generator = np.random.default_rng(5)
    for number in range(1000 if long else 6):
        flipped = bytearray(content)
        for _ in range(1 + number % 3):
            at = int(generator.integers(0, len(content)))
            if number % 2:
                at = at // PAGE * PAGE + at % 160  # where the structure is
            flipped[at] ^= 1 << int(generator.integers(0, 8))
        yield bytes(flipped)


@pytest.mark.parametrize("spoilt", [bad_pages, flipped_bits])
@pytest.mark.parametrize("make", MAKERS)
def test_pages_and_bits_may_be_lost(
    make: Callable[[Path], Path],
    spoilt: Callable[[bytes, bool], Iterator[bytes]],
    tmp_path: Path,
    long: bool,
) -> None:
    store = make(tmp_path / "s")
    data = store / "data.mdb"
    live, free, entries = live_records(store), free_pages(store), live_entries(store)
    whole = 0
    for number, content in enumerate(spoilt(data.read_bytes(), long)):
        data.write_bytes(content)
        out = tmp_path / f"out-{number}"
        outcome = in_child(lambda out=out: check_repair(store, out, live, free, entries))  # type: ignore[misc]
        assert not outcome.failure, (number, outcome.failure)
        whole += "lost" not in outcome.value or "lost: 0;" in outcome.value
    assert whole > 1


@pytest.mark.parametrize("make", MAKERS)
def test_a_file_cut_short(make: Callable[[Path], Path], tmp_path: Path) -> None:
    store = make(tmp_path / "s")
    data = store / "data.mdb"
    content = data.read_bytes()
    live, free, entries = live_records(store), free_pages(store), live_entries(store)
    ends = {"copied": 0, "refused": 0}
    for number, size in enumerate(range(0, len(content), max(PAGE, len(content) // 7) - 100)):
        data.write_bytes(content[:size])
        out = tmp_path / f"out-{number}"
        is_there = all(fact in content[:size] for fact in (b"\xa8identity", b"\xa6schema"))
        if is_there and size >= PAGE:
            check_repair(store, out, live, free, entries)
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
    said = check_repair(store, tmp_path / "out", live)
    assert said.startswith("transitions copied: 300; lost: 0;")


def test_a_store_of_another_format_is_not_repaired(tmp_path: Path) -> None:
    store = uniform(tmp_path / "s")
    (store / "diskreplay.json").write_text('{"format": 4, "uuid": "x"}')
    with pytest.raises(diskreplay.FormatVersionError, match="has format 4"):
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
        got = buffer.priorities(np.arange(1000, 1350))
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
    other = another_record(store, write_id)
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
    with walk_of(store) as walk:
        tree = walk.trees()[b"transitions"]
        begins = [at // PAGE for _, at, _ in walk.numbered(b"transitions", tree)]
    content = bytearray((store / "data.mdb").read_bytes())
    for page, lost in ((tree.root, 0), (begins[0], 2)):
        put_page(content, page, bytes(PAGE))
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
    other = another_record(store, write_id)
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
    other = another_record(store, 459)
    content = bytes(2 * PAGE) + data.read_bytes()[2 * PAGE :]  # what is free is not known either
    data.write_bytes(content)
    assert "lost: 0;" in check_repair(store, tmp_path / "out", live)
    data.write_bytes(content + bytes(16) + other + bytes(PAGE - 16 - len(other)))
    done = repair(store, tmp_path / "other")
    assert done.lost_ids == ((459, 460),)
    with diskreplay.open(tmp_path / "other") as buffer:
        assert rows_of(buffer) == [number for number in live if number != 459]


def test_out_must_be_new(tmp_path: Path) -> None:
    store, another = uniform(tmp_path / "s"), uniform(tmp_path / "t")
    for name in "uv":
        (tmp_path / name).mkdir()
    (tmp_path / "v" / "x").touch()
    for damaged, out, error, message in (
        (store, store, diskreplay.StorageError, "holds a store already"),
        (store, another, diskreplay.StorageError, "holds a store already"),
        (store, store / "deeper", diskreplay.StorageError, "inside the store"),
        (store, tmp_path / "v", diskreplay.NotAStoreError, "not a diskreplay store"),
        (tmp_path / "nothing", tmp_path / "w", diskreplay.NotAStoreError, "nothing"),
    ):
        with pytest.raises(error, match=message):
            repair(damaged, out)
    with diskreplay.open(store), pytest.raises(diskreplay.LockedError):
        repair(store, tmp_path / "w")
    assert not (tmp_path / "w").exists()
    repair(store, tmp_path / "u")  # an empty directory
