"""RowCopier: large rows come out bit for bit as they went in, and damage in them is found."""

from __future__ import annotations

from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_rows import Columns, assert_same, random_columns

from diskreplay import DamageError, Schema
from diskreplay.records.codec import Codec
from diskreplay.records.row_copier import LARGE_ROW, RowCopier

TYPES = ["b1", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8", "c8", "c16"]
FEW: list[tuple[int, ...]] = [(), (1,), (3,), (0,), (2, 0), (2, 2)]
SIZES = [256, 480, 496, 512, 528, 3840, 8192, 9000]  # bytes, around those that make a field large
NAMES = ("state", "action", "reward", "next_state", "done", "more", "most")
N = 5  # rows


@st.composite
def kinds(draw: st.DrawFn) -> tuple[str, tuple[int, ...]]:
    dtype = draw(st.sampled_from(TYPES))
    length = draw(st.sampled_from(SIZES)) // np.dtype(dtype).itemsize
    return dtype, draw(st.sampled_from([*FEW, (length,), (length // 2, 2)]))


@st.composite
def large_schemas(draw: st.DrawFn) -> Schema:
    """Fields of all types and sizes in any order, one of them as long as a large row."""
    fields = {name: draw(kinds()) for name in NAMES}
    name = draw(st.sampled_from(NAMES))
    return Schema({**fields, name: (fields[name][0], (LARGE_ROW,))})


def records_of(codec: Codec, columns: Columns, first: int, how: str) -> Any:
    """Encoded records, in the form in which a store or a test may hand them over."""
    records = codec.encode(columns, first)
    if how == "array":
        return records
    if how == "views":  # slices of one buffer, as of records that share a value
        whole, size = memoryview(records.tobytes()), codec.record_bytes
        return [whole[at : at + size] for at in range(0, len(whole), size)]
    return [record.tobytes() for record in records]


def by_msgpack(codec: Codec, record: Any) -> Columns:
    """The array fields of one record, as any msgpack reader finds them, None for the numbers."""
    values = msgpack.unpackb(bytes(record))[2:]
    return [
        np.frombuffer(value, field.dtype.newbyteorder("<")).reshape(field.shape)
        if isinstance(value, bytes)
        else None
        for field, value in zip(codec.schema.fields, values, strict=True)
    ]


# Copies


@given(large_schemas(), st.sampled_from(["bytes", "views", "array"]), st.data())
def test_large_records_are_decoded_into_any_rows_of_any_fields(
    schema: Schema, how: str, data: st.DataObject
) -> None:
    codec = Codec(schema)
    assert codec._copier.is_worth_it
    columns = random_columns(schema, N, seed=data.draw(st.integers(0, 99)))
    records, ids = records_of(codec, columns, 7, how), np.arange(7, 7 + N)
    assert_same(codec.decode(records, ids, ids), columns)
    for place, record in enumerate(records):
        for column, value in zip(columns, by_msgpack(codec, record), strict=True):
            assert value is None or value.tobytes() == column[place].tobytes()
    fields = data.draw(st.lists(st.sampled_from(range(7)), unique=True))
    rows = data.draw(st.permutations(range(2 * N)))[:N]
    found = random_columns(schema, 2 * N, seed=100)
    found = [np.array(found[index]) for index in fields]
    expected = [column.copy() for column in found]
    for column, index in zip(expected, fields, strict=True):
        column[rows] = columns[index]
    codec.decode_into(found, np.array(rows), records, ids, ids, fields)
    assert_same(found, expected)


@given(st.data())
def test_columns_and_rest_are_those_of_a_structured_view(data: st.DataObject) -> None:
    """Of layouts with gaps, in which names and places are in different orders."""
    at, formats, offsets = 0, [], []
    for dtype, shape in data.draw(st.lists(kinds(), min_size=1, max_size=6)):
        at += data.draw(st.sampled_from([0, 1, 9]))
        order = data.draw(st.sampled_from("<>"))
        formats.append((np.dtype(dtype).newbyteorder(order), shape))
        offsets.append(at)
        at += np.dtype(formats[-1]).itemsize
    size = at + data.draw(st.integers(1, 9))
    order = data.draw(st.permutations(range(len(formats))))
    names = [f"name {index}" for index in order]
    layout = np.dtype(
        {
            "names": names,
            "formats": [formats[index] for index in order],
            "offsets": [offsets[index] for index in order],
            "itemsize": size,
        }
    )
    others = data.draw(st.sampled_from(names))
    copied = [name for name in names if name != others]
    copier = RowCopier(layout, copied, [others])
    content = np.random.default_rng(data.draw(st.integers(0, 99))).bytes(N * size)
    view = np.frombuffer(content, layout)
    columns: list[Any] = []
    for index, name in enumerate(copied):
        is_large = layout[name].itemsize >= 512 and layout[name].base.isnative
        assert is_large != (index in copier.small)
        columns.append(np.zeros((N, *layout[name].shape), layout[name].base))
    unwanted = data.draw(st.sets(st.sampled_from(range(len(columns) + 1))))
    wanted = [None if i in unwanted else column for i, column in enumerate(columns)]
    rows = [memoryview(content)[n * size : (n + 1) * size] for n in range(N)]
    copier.copy(iter(rows), [4, 2, 0, 1, 3], wanted)
    pieces = [piece for row in rows for piece in copier.cut(row)]
    rest = copier.joined(pieces)
    small = [copied[index] for index in copier.small]
    assert list(rest.dtype.names or ()) == [others, *small]
    for name in (others, *small):
        assert rest[name].tobytes() == view[name].tobytes()
    for index, name in enumerate(copied):
        expected = np.zeros_like(columns[index])
        if index not in unwanted and name not in small:
            expected[[4, 2, 0, 1, 3]] = view[name]
        assert columns[index].tobytes() == expected.tobytes()
    assert copier.is_worth_it == (size > LARGE_ROW and len(small) < len(copied))


# Damage

PIXELS: dict[str, Any] = {
    "state": ("u1", (8192,)), "action": "i8", "reward": "f4", "next_state": ("f4", (200,)),
    "done": "?",
}  # fmt: skip


def one_fault(codec: Codec, records: Any, write_ids: list[int]) -> str:
    """The message, the same from `faults`, which joins records, and from decoding large ones."""
    ids = np.array(write_ids)
    [fault] = codec.faults(records, ids, ids % 10)
    for fields in (None, [0], [1], []):
        with pytest.raises(DamageError) as caught:
            codec.decode(records, ids, ids % 10, fields)
        assert str(caught.value) == fault
    return fault


def test_every_flipped_byte_of_a_large_record_is_found() -> None:
    codec = Codec(Schema(PIXELS))
    [before, record, after] = records_of(codec, random_columns(codec.schema, 3), 0, "bytes")
    for place in range(len(record)):
        damaged = bytearray(record)
        damaged[place] ^= 1 << place % 8
        fault = one_fault(codec, [before, damaged, after], [0, 1, 2])
        assert fault.startswith("the record of write id 1 in slot 1 is damaged: its ")
        reason = "first bytes are not those of a record" if place < 2 else "checksum does not match"
        assert reason in fault


def test_each_kind_of_damage_of_a_large_record_is_named() -> None:
    codec = Codec(Schema(PIXELS))
    [before, record, after] = records_of(codec, random_columns(codec.schema, 3), 40, "views")
    size, missing = len(record), "it is missing"
    cases: list[tuple[Any, str]] = [(b"", missing), (memoryview(b""), missing)]
    cases.append((bytes(size), missing))  # a slot that was never written
    cases.append((before, "it holds write id 40"))
    cases.append((b"\x98" + record[1:], "its first bytes are not those of a record of this schema"))
    for wrong in (record[:-1], record[:20], bytes(record) + b"0"):
        cases.append((wrong, f"it has {len(wrong):,} bytes (expected {size:,})"))
    for wrong, reason in cases:
        fault = one_fault(codec, [before, wrong, after], [40, 41, 42])
        assert fault == f"the record of write id 41 in slot 1 is damaged: {reason}"
    ids, slots = np.array([40, 41, 42, 42]), np.array([0, 1, 2, 2])
    damaged = bytearray(after)
    damaged[-1] ^= 1
    with pytest.raises(DamageError, match="write id 42 in slot 2 is damaged: its checksum"):
        codec.decode([before, record, after, damaged], ids, slots)
