"""What decides the layout is stored; where it is not, it is measured, against a naive twin."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sized import rows_of, schema_of
from stores import FIELDS, change, laid_out, stored

import diskreplay
from diskreplay import DamageError, FormatVersionError, PrioritizedReplayBuffer, ReplayBuffer
from diskreplay.records.features import features_of
from diskreplay.records.layout import Layout, layout_of, measured, schema_facts
from diskreplay.records.seals import seal, unseal
from diskreplay.schema import Field, Schema

SIZE = 12
LOG = {"entries_per_value": 4, "reach": 1000}


def record(write_id: int) -> bytes:
    return b"\x97" + write_id.to_bytes(8, "big") + b"end"


def write_id_of(raw: bytes) -> int | None:
    is_sound = len(raw) == SIZE and raw[:1] == b"\x97" and raw[9:] == b"end"
    return int.from_bytes(raw[1:9], "big") if is_sound else None


def values_of(capacity: int, number: int, ids: range) -> dict[int, bytes]:
    """What a store holds after these write ids, put into their slots one after the other."""
    slots: dict[int, int] = {}
    for write_id in ids:
        slots[write_id % capacity] = write_id
    found: dict[int, bytes] = {}
    for slot in slots:
        key = slot // number
        there = range(key * number, min((key + 1) * number, capacity))
        parts = [record(slots[s]) if s in slots else bytes(SIZE) for s in there]
        found[key] = b"".join(parts)
    return dict(sorted(found.items()))


@given(
    capacity=st.integers(1, 100),
    number=st.integers(1, 64),
    first=st.integers(0, 300),
    count=st.integers(0, 250),
    data=st.data(),
)
def test_the_number_of_records_in_a_value_is_measured(
    capacity: int, number: int, first: int, count: int, data: st.DataObject
) -> None:
    values = values_of(capacity, number, range(first, first + count))
    keys = list(values)
    if keys:
        more = data.draw(st.lists(st.sampled_from(keys), max_size=3))
        spoilt = data.draw(st.lists(st.sampled_from(keys), max_size=len(keys) // 2))
        keys = [key for key in keys if key in (keys[0], keys[-1], *more)]
        for key in set(spoilt) - {keys[0]}:
            values[key] = data.draw(
                st.sampled_from([b"", b"x" * SIZE, values[key].replace(b"end", b"eNd")])
            )
    found = measured([(key, values[key]) for key in keys], SIZE, capacity, write_id_of, "it")
    if found is None:
        assert count == 0
    else:  # a single value may have any number from its own on
        assert min(found.records_per_value, capacity) == min(number, capacity)


@pytest.mark.parametrize(
    "values",
    [
        {**values_of(40, 1, range(40)), **values_of(40, 5, range(2))},  # as an older rule wrote on
        {0: b"x" * SIZE, 1: b""},
        {0: record(0)[:-1]},
        {0: record(0) + b"x"},
        {3: record(4)},
        {0: record(0) * 7},  # more than the capacity has
    ],
)
def test_values_that_do_not_agree_are_refused_with_the_way_out(values: dict[int, bytes]) -> None:
    capacity = 40 if len(values) > 2 else 6
    with pytest.raises(DamageError, match=r"the values of it do not agree .*diskreplay\.repair"):
        measured(values.items(), SIZE, capacity, write_id_of, "it")


def layout(path: Path) -> Any:
    return unseal(stored(path, "meta", "layout"), "layout", "layout")


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (None, DamageError, "does not list its features"),
        ({"features": None}, DamageError, "does not list its features"),
        ({"features": [3]}, DamageError, "does not list its features"),
        ({"features": ["frames", "a\x1b"]}, FormatVersionError, r"uses 'frames', 'a\\x1b', which"),
        ({"slots_per_block": 500}, FormatVersionError, "500 slots .* reads 1000.*install a newer"),
        ({"records_per_value": 0}, DamageError, "is no layout"),
        ({"records_per_value": True}, DamageError, "is no layout"),
        ({"records_per_value": 2.0}, DamageError, "is no layout"),
        ({"slots_per_block": "1000"}, DamageError, "is no layout"),
        *(
            ({"observations": part}, DamageError, "has no observation log")
            for part in (
                None,
                [],
                {},
                7,
                {"entries_per_value": 4},
                {"reach": 9},
                *({**LOG, "entries_per_value": n} for n in (0, -1, 4097, True, 2.0, None, "4")),
                *({**LOG, "reach": n} for n in (0, -1, 2**31 + 1, 2**63, True, 2.0, None)),
            )
        ),
    ],
)
def test_what_is_no_layout_is_refused(change: Any, error: type, words: str) -> None:
    plain = Layout(3).to_plain()
    assert layout_of(plain, "it") == Layout(3)
    assert "observations" not in plain
    assert layout_of({**plain, "later": 5}, "it") == Layout(3)
    for log in (LOG, {"entries_per_value": 4096, "reach": 2**31}):
        found = layout_of({**plain, "observations": log}, "it")
        assert found == Layout(3, (), *log.values())
        assert found.to_plain() == {**plain, "observations": log}
    with pytest.raises(error, match=words):
        layout_of(change if change is None else {**plain, **change}, "it")


def test_a_layout_lists_the_features_of_its_schema() -> None:
    schema = Schema(FIELDS)
    assert features_of(schema) == ()
    assert schema_facts(schema)["layout"]["features"] == []
    assert "observations" not in schema_facts(schema)["layout"]
    assert features_of(Schema([*schema.fields, Field("x", log=True)])) == ("observation-log",)
    for name in ("x.camera", "x[0]"):
        assert features_of(Schema([*schema.fields, Field(name)])) == ("nested-fields",)
        both = Schema([*schema.fields, Field(name, log=True)])
        assert features_of(both) == ("observation-log", "nested-fields")
    for field in (Field("x.a", str), Field("x.a", bytes), Field("x.a", "i4", (None,))):
        both = Schema([*schema.fields, field])
        assert features_of(both) == ("observation-log", "nested-fields", "varying-fields")
    layout = schema_facts(both, **LOG)["layout"]
    assert layout["features"] == ["observation-log", "nested-fields", "varying-fields"]
    assert layout["observations"] == LOG
    assert layout_of(layout, "it")[1:] == (tuple(layout["features"]), *LOG.values())


def test_a_value_cannot_be_said_to_hold_more_than_memory(tmp_path: Path) -> None:
    ReplayBuffer(10**6, path=tmp_path / "s", schema=FIELDS).close()
    laid_out(tmp_path / "s", 10**6)
    with pytest.raises(DamageError, match="a value holds 1000000 records of 66 bytes"):
        diskreplay.open(tmp_path / "s")
    [fault] = diskreplay.verify(tmp_path / "s")
    assert "a value holds 1000000 records of 66 bytes" in fault


@pytest.mark.parametrize("number", [1, 2, 4, 9, 64])
@pytest.mark.parametrize("access", ["exclusive", "shared"])
def test_the_stored_number_is_what_counts(number: int, access: str, tmp_path: Path) -> None:
    """Whatever the rule says, so that it may change: 1008 bytes would be two to a value."""
    path = tmp_path / "s"
    PrioritizedReplayBuffer(30, path=path, schema=schema_of(980)).close()
    laid_out(path, number)
    for _ in range(2):
        with diskreplay.open(path, access=access, window_bytes=0) as buffer:
            for first in range(buffer.count, buffer.count + 50, 7):
                buffer.extend(**rows_of(first, 7, 980))
                buffer.flush()
            buffer.check()
    assert len(stored(path, "transitions", 0)) == 1008 * min(number, 30)
    assert layout(path)["records_per_value"] == number
    assert diskreplay.verify(path) == []
    live = list(range(112 - 30, 112))
    with diskreplay.open(path) as buffer:
        buffer.save(tmp_path / "saved")
        assert [e.action for e in buffer] == live
    assert layout(tmp_path / "saved")["records_per_value"] == number
    assert diskreplay.repair(path, tmp_path / "repaired").lost == 0
    diskreplay.resize(path, 25)
    for each, rows in ((path, live[5:]), (tmp_path / "saved", live), (tmp_path / "repaired", live)):
        assert diskreplay.verify(each) == []
        with diskreplay.open(each) as buffer:
            assert [e.action for e in buffer] == rows
    assert layout(path)["records_per_value"] == 2  # all of it was written anew


def make(path: Path) -> None:
    with ReplayBuffer(30, path=path) as buffer:
        buffer.extend(**rows_of(0, 40, 980))


def copied(path: Path, new: Path) -> None:
    with diskreplay.open(path, access="read") as buffer:
        buffer.save(new)


def loaded(path: Path, new: Path) -> None:
    with ReplayBuffer(30, path=new) as buffer:
        buffer.load(path)


def pushed_together(path: Path, new: Path) -> None:
    ReplayBuffer(30, path=new).close()
    with diskreplay.open(new, access="shared") as buffer:
        buffer.extend(**rows_of(0, 3, 980))


def rewritten(path: Path, new: Path) -> None:
    path.rename(new)
    diskreplay.compact(new)
    diskreplay.convert(new, "prioritized")


WAYS: list[Any] = [
    copied,
    loaded,
    pushed_together,
    rewritten,
    diskreplay.repair,
    lambda path, new: make(new),
    lambda path, new: ReplayBuffer(30, path=new, schema=schema_of(980)).close(),
    lambda path, new: diskreplay.merge([path], new),
]


@pytest.mark.parametrize("way", WAYS)
def test_whatever_makes_a_store_says_its_layout(way: Any, tmp_path: Path) -> None:
    make(tmp_path / "s")
    way(tmp_path / "s", tmp_path / "new")
    with diskreplay.open(tmp_path / "new", access="read") as buffer:
        features = ["links"] if buffer.count else []  # from the first commit of rows on
    expected = {"records_per_value": 2, "slots_per_block": 1000, "features": features}
    assert layout(tmp_path / "new") == expected
    assert diskreplay.verify(tmp_path / "new") == []


def test_a_layout_that_is_lost_is_measured_and_written_again(tmp_path: Path) -> None:
    make(tmp_path / "s")
    change(tmp_path / "s", "meta", "layout", None)
    assert diskreplay.verify(tmp_path / "s") == []
    with diskreplay.open(tmp_path / "s") as buffer:
        assert [e.action for e in buffer] == list(range(10, 40))
        buffer.extend(**rows_of(40, 1, 980))
    assert layout(tmp_path / "s")["records_per_value"] == 2


@pytest.mark.parametrize(
    ("key", "other"), [("layout", "schema"), (1, 2), (1, True), (1, 1.0), ("1", 1)]
)
def test_a_seal_is_of_one_key(key: Any, other: Any) -> None:
    assert unseal(seal(key, [3]), key, "it") == [3]
    with pytest.raises(DamageError, match=r"^it is damaged: its bytes are not those that were wri"):
        unseal(seal(other, [3]), key, "it")
    with pytest.raises(DamageError, match=r"^it is missing$"):
        unseal(b"", key, "it")


def test_a_layout_is_no_other_fact(tmp_path: Path) -> None:
    make(tmp_path / "s")
    change(tmp_path / "s", "meta", "layout", seal("schema", Layout(2).to_plain()))
    with pytest.raises(DamageError, match=r"the layout of .* is damaged"):
        diskreplay.open(tmp_path / "s")
    assert diskreplay.verify(tmp_path / "s") == [
        "the layout is damaged: its bytes are not those that were written"
    ]
