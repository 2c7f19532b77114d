"""Records that share a value: the rule, the store against a naive twin, the size of real files."""

from __future__ import annotations

import sys
import tracemalloc
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from inside import replica_of, store_of
from sized import rows_of, schema_of
from stores import change, laid_out, stored

import diskreplay
from diskreplay import PrioritizedReplayBuffer, ReplayBuffer, Schema, verify
from diskreplay.records.codec import Codec
from diskreplay.records.grouping import (
    PAGE_BYTES,
    Grouping,
    grouping_for,
    slot_bytes,
    tree_bytes,
)
from diskreplay.store.store import Store
from diskreplay.wording import count_of

FRAMING = 28  # of states of 256 bytes or more, action, reward and done
PRIORITY = slot_bytes(Grouping(1, 4032)) / 1000  # bytes of disk a slot


# The rule


def costs_of(record_bytes: int) -> dict[int, float]:
    """The disk space of a record by how many of them share a value."""
    most = max(1, min(64, 48 * 1024 // record_bytes))
    return {n: slot_bytes(Grouping(n, record_bytes)) for n in range(1, most + 1)}


SIZES = [*range(19, 5000), *range(5000, 70_000, 37)]


def test_a_value_holds_the_fewest_records_that_cost_a_tenth_more_at_most() -> None:
    for record_bytes in [*SIZES, 10**6, 2**40]:
        grouping, costs = grouping_for(record_bytes), costs_of(record_bytes)
        assert grouping.record_bytes == record_bytes
        cheap = [n for n, cost in costs.items() if cost <= 1.1 * record_bytes]
        assert grouping.per_value == min(cheap or costs, key=None if cheap else costs.__getitem__)
    by_hand = {74: 3, 522: 15, 970: 1, 3084: 5, 28_268: 1}
    assert {size: grouping_for(size).per_value for size in by_hand} == by_hand


def test_records_cost_at_most_a_sixth_more_and_payloads_from_350_bytes_on_a_fifth() -> None:
    for record_bytes in SIZES:
        cost = slot_bytes(grouping_for(record_bytes))
        assert cost <= (1.1 if record_bytes <= 8000 else 1.17) * record_bytes, record_bytes
        for framing in (24, FRAMING, 30):
            payload = record_bytes - framing
            assert payload < 350 or cost + PRIORITY <= 1.2 * payload, (payload, framing)


def test_a_schema_may_claim_any_size_and_takes_no_memory() -> None:
    huge = Schema(schema_of(20) | {"a": ("u1", (2**29,)), "b": ("f8", (2**25,))})
    tracemalloc.start()
    assert grouping_for(Codec(huge).record_bytes).per_value == 1
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


@pytest.mark.parametrize("values", [1, 500, 20_000])
@pytest.mark.parametrize("value_bytes", [0, 100, 1000, 2022, 2023, 4080, 4081, 9000])
def test_the_size_of_a_tree_is_that_of_a_real_one(
    value_bytes: int, values: int, tmp_path: Path
) -> None:
    with lmdb.open(str(tmp_path), max_dbs=1, map_size=1 << 30, sync=False) as env:
        database = env.open_db(b"x", integerkey=True)
        with env.begin(write=True, db=database) as txn:
            for key in range(values):
                txn.put(key.to_bytes(8, sys.byteorder), bytes(value_bytes), append=True)
            found = txn.stat(database)
    pages = found["leaf_pages"] + found["overflow_pages"] + found["branch_pages"]
    assert tree_bytes(values, value_bytes) == pages * PAGE_BYTES


@given(st.integers(1, 12), st.integers(1, 40), st.integers(0, 200), st.data())
def test_groups_of_live_write_ids(
    per_value: int, capacity: int, first: int, data: st.DataObject
) -> None:
    count = first + data.draw(st.integers(0, capacity))
    grouping = Grouping(per_value, 10)
    touched = {write_id % capacity // per_value for write_id in range(first, count)}
    assert grouping.live_groups(first, count, capacity) == len(touched)
    groups = grouping.groups(capacity)
    assert sum(grouping.slots_in(group, capacity) for group in range(groups)) == capacity
    slots = np.arange(capacity)
    keys, within = grouping.places(slots)
    assert (keys * per_value + within == slots).all()
    assert [grouping.parts[w].start for w in within] == (within * 10).tolist()


# The store


def numbered(first: int, n: int, size: int) -> list[bytes]:
    return [f"\x97{number:08d}".encode("latin-1").ljust(size, b"\1") for number in
            range(first, first + n)]  # fmt: skip


@settings(max_examples=60)
@given(
    grouping=st.builds(Grouping, st.integers(2, 9), st.sampled_from([40, 200, 700, 1500, 4090])),
    capacity=st.integers(1, 40),
    start=st.integers(0, 60),
    sizes=st.lists(st.tuples(st.integers(1, 50), st.booleans()), min_size=1, max_size=12),
)
@example(grouping=Grouping(3, 1500), capacity=8, start=7, sizes=[(8, True)])
def test_the_store_against_a_dictionary(
    tmp_path_factory: pytest.TempPathFactory,
    grouping: Grouping,
    capacity: int,
    start: int,
    sizes: list[tuple[int, bool]],
) -> None:
    """Puts of any length from any slot on; some transactions end with an error."""
    place = tmp_path_factory.mktemp("s") / "s"
    Store.create(place, {"kind": "uniform", "capacity": capacity}, {})
    store = Store(place, access="exclusive")
    expected: dict[int, bytes] = {}
    first = start
    for number, (n, is_committed) in enumerate(sizes):
        rows = numbered(first + 1000 * number, min(n, capacity), grouping.record_bytes)
        try:
            with store.transaction() as txn:
                half = len(rows) // 2
                txn.put_records(capacity, first, rows[:half], grouping)
                txn.put_records(capacity, first + half, rows[half:], grouping)
                if not is_committed:
                    raise KeyboardInterrupt
        except KeyboardInterrupt:
            rows = []
        expected |= {(first + i) % capacity: row for i, row in enumerate(rows)}
        first += len(rows)
        slots = np.random.default_rng(n).permutation(capacity)
        with store.snapshot() as snapshot:
            found = [bytes(record).strip(b"\0") for record in snapshot.records(slots, grouping)]
            groups = {slot // grouping.per_value for slot in expected}
            assert snapshot.entries("transitions") == len(groups)
        assert found == [expected.get(slot, b"") for slot in slots.tolist()]
    store.close()


# The buffer


def test_a_store_that_begins_in_the_middle_of_a_group(tmp_path: Path) -> None:
    schema = schema_of(980)  # two to a value
    with ReplayBuffer(101, path=tmp_path / "a", schema=schema) as buffer:
        buffer.extend(**rows_of(0, 90, 980))
        buffer.flush()
        buffer.clear()
        for first in range(90, 120, 3):
            buffer.extend(**rows_of(first, 3, 980))
            buffer.flush()
    for name, capacity, first in (("b", 25, 95), ("c", 101, 90)):
        with ReplayBuffer(capacity, path=tmp_path / name, schema=schema) as buffer:
            buffer.load(tmp_path / "a")
            assert [e.action for e in buffer] == list(range(first, 120))
        assert verify(tmp_path / name) == []
    assert verify(tmp_path / "a") == []
    # Slots 0 to 18 and 90 to 100: ten values for 0 to 19, and six for 90 to 101.
    with (
        diskreplay.open(tmp_path / "c", access="read") as reader,
        store_of(reader).snapshot() as it,
    ):
        assert it.entries("transitions") == 10 + 6
        blank = it.records(np.array([19, 20, 89, 50]), replica_of(reader).rows._grouping)
        assert not any(bytes(record).strip(b"\0") for record in blank)
    value = stored(tmp_path / "c", "transitions", 9)
    assert len(value) == 2 * 1008
    assert not any(value[1008:])


# Damage

SIZE = 2030 + FRAMING


def make(path: Path) -> list[int]:
    """Seven records to a value, 4 pages each, the last value with fewer; return the write ids."""
    ReplayBuffer(25, path=path, schema=schema_of(2030)).close()
    laid_out(path, 7)
    with ReplayBuffer(25, path=path, commit_interval=1e9) as buffer:
        for first in range(0, 40, 4):
            buffer.extend(**rows_of(first, 4, 2030))
            buffer.flush()
        assert replica_of(buffer).rows._grouping.per_value == 7
        return list(range(15, 40))


def readable(path: Path, ids: list[int]) -> list[int]:
    """The write ids whose records can be read."""
    with diskreplay.open(path, window_bytes=0) as buffer:
        bad = replica_of(buffer).rows.damaged(np.array(ids), None)
        return sorted(set(ids) - set(bad.tolist()))


@pytest.mark.parametrize(
    "length", [0, 1, SIZE - 1, SIZE, SIZE + 1, 3 * SIZE + 1000, 7 * SIZE - 1, 20_000]
)
def test_a_value_of_another_length_costs_what_is_not_in_it(length: int, tmp_path: Path) -> None:
    ids = make(tmp_path / "s")
    value = stored(tmp_path / "s", "transitions", 1)  # slots 7 to 13: write ids 32 to 38
    change(tmp_path / "s", "transitions", 1, value.ljust(length, b"x")[:length])
    gone = set(range(32 + min(7, length // SIZE), 39))
    faults = verify(tmp_path / "s")
    size = f"{count_of(length, 'byte')} (expected {7 * SIZE:,})"
    assert f"the value of slots 7 to 13 is damaged: it has {size}" in faults
    assert len(faults) > bool(gone)
    assert readable(tmp_path / "s", ids) == [i for i in ids if i not in gone]
    done = diskreplay.repair(tmp_path / "s", tmp_path / "out")
    # What is not in the tree may still stand in another page of the file.
    assert done.copied >= 25 - len(gone)
    assert verify(tmp_path / "out") == []
    with diskreplay.open(tmp_path / "s", window_bytes=0) as buffer:
        if gone:
            with pytest.raises(diskreplay.DamageError, match=r"write id \d+ in slot \d+ is dam"):
                buffer.get(ids)
        for first in range(40, 75, 5):  # what is written over is sound again
            buffer.extend(**rows_of(first, 5, 2030))
            buffer.flush()
        assert buffer.get(np.arange(50, 75)).actions.tolist() == list(range(50, 75))
    assert verify(tmp_path / "s") == []


def test_a_bit_costs_one_record_and_no_neighbour(tmp_path: Path) -> None:
    ids = make(tmp_path / "s")
    value = bytearray(stored(tmp_path / "s", "transitions", 1))
    value[2 * SIZE + 900] ^= 1
    change(tmp_path / "s", "transitions", 1, bytes(value))
    assert verify(tmp_path / "s") == [
        "the record of write id 34 in slot 9 is damaged: its checksum does not match its bytes"
    ]
    assert readable(tmp_path / "s", ids) == [i for i in ids if i != 34]
    with diskreplay.open(tmp_path / "s", window_bytes=0, on_damage="skip") as buffer:
        assert set(buffer.sample(24).actions.tolist()) == set(ids) - {34}


@pytest.mark.parametrize(
    ("part", "fault", "gone"),
    [
        (slice(0, SIZE), " 25 in slot 0 is missing", [25]),
        (slice(0, 1), " 25 in slot 0 is damaged: its first bytes are", [25]),
        (slice(SIZE, 3 * SIZE), "s 26 to 27 in slots 1 to 2 is missing", [26, 27]),
    ],
)
def test_a_blank_in_the_place_of_a_live_record_is_missed(
    part: slice, fault: str, gone: list[int], tmp_path: Path
) -> None:
    ids = make(tmp_path / "s")
    value = bytearray(stored(tmp_path / "s", "transitions", 0))  # slots 0 to 6: 25 to 31
    value[part] = bytes(part.stop - part.start)
    change(tmp_path / "s", "transitions", 0, bytes(value))
    [found] = verify(tmp_path / "s")
    assert found.startswith(f"the record of write id{fault}")
    assert readable(tmp_path / "s", ids) == [i for i in ids if i not in gone]


def test_a_missing_group_and_one_too_many(tmp_path: Path) -> None:
    make(tmp_path / "s")
    change(tmp_path / "s", "transitions", 4, b"x")
    assert verify(tmp_path / "s") == ["there is a record in slot 28 of 25"]
    change(tmp_path / "s", "transitions", 4, None)
    change(tmp_path / "s", "transitions", 2, None)
    with pytest.raises(diskreplay.DamageError, match=r"are 3 groups of records \(expected 4 or m"):
        diskreplay.open(tmp_path / "s")
    assert "the record of write ids 15 to 20 in slots 15 to 20 is missing" in verify(tmp_path / "s")
    change(tmp_path / "s", "meta", "schema", None)
    assert verify(tmp_path / "s") == ["the schema cannot be read: records are not checked"]


# The size of real files


@pytest.mark.parametrize(
    "payload", [220, 255, 300, 496, 980, 1500, 2030, 2500, 3056, 4100, 6000, 8200, 16_400, 28_240]
)
def test_a_file_is_at_most_a_fifth_larger_than_its_payload(
    payload: int, tmp_path: Path, long: bool
) -> None:
    """Commits of random size. Three of them may stand in pages that wait to be used again."""
    capacity = ((24 if long else 4) << 20) // payload
    generator = np.random.default_rng(payload)
    most = max(1, (32 << 10) // payload)
    settings: dict[str, Any] = {"schema": schema_of(payload), "durability": "process"}
    with PrioritizedReplayBuffer(capacity, path=tmp_path / "b", **settings) as buffer:
        for laps in (1, 3):
            while buffer.count < laps * capacity:
                n = min(int(generator.integers(1, most + 1)), laps * capacity - buffer.count)
                buffer.extend(**rows_of(buffer.count, n, payload))
                buffer.flush()
            stats = buffer.stats()
            blocks = stats["links_bytes"] + stats["priorities_bytes"]  # twice, with freed ones
            most_bytes = (1.2 * capacity + 3 * most) * payload + blocks
            assert stats["disk_bytes"] <= most_bytes
