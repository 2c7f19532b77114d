"""Codec: columns to records and back, what any msgpack reader sees, and what damage is found."""

from __future__ import annotations

from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_rows import Columns, assert_same, random_columns
from xxhash import xxh3_64_intdigest

from diskreplay import DamageError, Schema
from diskreplay.records.codec import Codec, checksum_in, record_head, write_id_in

DTYPES = ["?", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8", "c8", "c16"]
SMALL = {"state": ("f4", (2,)), "action": "i8", "reward": "f4", "next_state": "?", "done": "?"}


def decoded(codec: Codec, records: Any, first: int = 0) -> Columns:
    write_ids = np.arange(first, first + len(records))
    assert codec.faults(records, write_ids, write_ids % 10) == []
    return codec.decode(records, write_ids, write_ids % 10)


def encoded(codec: Codec, columns: Columns, first: int) -> list[bytes]:
    return [record.tobytes() for record in codec.encode(columns, first)]


def small(n: int = 3, first: int = 0) -> tuple[Codec, Columns, list[bytes]]:
    codec = Codec(Schema(SMALL))
    columns = random_columns(codec.schema, n)
    return codec, columns, encoded(codec, columns, first)


# There and back


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_and_shape_comes_back_bit_for_bit(dtype: str) -> None:
    for shape in [(), (1,), (3,), (2, 0), (0,), (2, 3), (2, 1, 2)]:
        kind = (dtype, shape)
        codec = Codec(Schema(dict.fromkeys(SMALL, kind)))
        for n in (0, 1, 2, 17):
            columns = random_columns(codec.schema, n, seed=n)
            records = encoded(codec, columns, first=5)
            assert [len(record) for record in records] == [codec.record_bytes] * n
            assert_same(decoded(codec, records, first=5), columns)
            assert_same(decoded(codec, list(map(memoryview, records)), first=5), columns)
            assert_same(decoded(codec, codec.encode(columns, 5), first=5), columns)
            assert [bytes(record) for record in codec.encode_one_by_one(columns, 5)] == records
            if n:
                some = codec.decode(records, np.arange(5, 5 + n), np.arange(n), fields=[4, 1])
                assert_same(some, [columns[4], columns[1]])


@pytest.mark.parametrize(
    ("size", "header"),
    [(0, "c4 00"), (255, "c4 ff"), (256, "c5 0100"), (65_535, "c5 ffff"), (65_536, "c6 00010000")],
)
def test_arrays_have_the_smallest_bin_header_of_their_size(size: int, header: str) -> None:
    codec = Codec(Schema({**SMALL, "state": ("u1", (size,))}))
    columns = random_columns(codec.schema, 2)
    records = encoded(codec, columns, 0)
    payload = columns[0][1].tobytes()
    assert records[1][19:].startswith(bytes.fromhex(header) + payload)
    assert msgpack.unpackb(records[1])[2] == payload
    assert_same(decoded(codec, records), columns)


def test_the_layout_of_a_record_is_as_documented() -> None:
    codec = Codec(Schema(SMALL))
    values = ([[1.0, -2.0]], [-3], [0.5], [True], [False])
    columns = [np.array(v, f.dtype) for v, f in zip(values, codec.schema.fields, strict=True)]
    [record] = encoded(codec, columns, first=258)
    body = bytes.fromhex(
        "d3 0000000000000102"  # the write id
        "c4 08 0000803f 000000c0"  # an array, little-endian
        "d3 fffffffffffffffd"  # numbers, big-endian
        "ca 3f000000"
        "c3 c2"  # bools
    )
    assert record == b"\x97\xcf" + xxh3_64_intdigest(body).to_bytes(8, "big") + body
    assert codec.record_bytes == len(record)


def test_arrays_in_any_order_of_memory_are_stored_in_c_order() -> None:
    codec = Codec(Schema({**SMALL, "state": ("f4", (2, 3)), "next_state": ("?", (2,))}))
    columns = random_columns(codec.schema, 4)
    strided = [np.asfortranarray(columns[0]), *(np.repeat(c, 2, 0)[::2] for c in columns[1:])]
    assert not strided[1].flags.c_contiguous
    assert encoded(codec, strided, 0) == encoded(codec, columns, 0)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_decoded_columns_are_fresh_native_writable_and_contiguous(n: int) -> None:
    kinds = {dtype.strip("?") or "flag": (dtype, ()) for dtype in DTYPES}
    arrays = {f"{name}s": (dtype, (3,)) for name, (dtype, _) in kinds.items()}
    codec = Codec(Schema({**SMALL, **kinds, **arrays}))
    records = encoded(codec, random_columns(codec.schema, n), 0)
    first, second = decoded(codec, records), decoded(codec, records)
    wrong = []
    for field, column, other in zip(codec.schema.fields, first, second, strict=True):
        flags = column.flags
        sound = column.dtype.isnative and flags.c_contiguous and flags.aligned and flags.writeable
        if not sound or column.base is not None or np.shares_memory(column, other):
            wrong.append(str(field))
    assert wrong == []


# What any msgpack reader sees

values_of = {
    **{f"u{2**k}": st.integers(0, 2 ** (8 * 2**k) - 1) for k in range(4)},
    **{f"i{2**k}": st.integers(-(2 ** (8 * 2**k - 1)), 2 ** (8 * 2**k - 1) - 1) for k in range(4)},
    "f4": st.floats(width=32),
    "f8": st.floats(),
    "?": st.booleans(),
}


@given(st.data())
def test_any_msgpack_reader_finds_the_numbers_that_were_pushed(data: st.DataObject) -> None:
    scalars = data.draw(st.lists(st.sampled_from(sorted(values_of)), max_size=14))
    array_dtype = data.draw(st.sampled_from(DTYPES))
    shape = tuple(data.draw(st.lists(st.integers(0, 3), min_size=1, max_size=3)))
    kinds: dict[str, Any] = {**SMALL, "state": (array_dtype, shape)}
    kinds |= {f"x{i}": dtype for i, dtype in enumerate(scalars)}
    schema = Schema(kinds)
    columns = random_columns(schema, 1, seed=data.draw(st.integers(0, 99)))
    pushed = [data.draw(values_of[dtype]) for dtype in scalars]
    columns[5:] = [np.array([v], dtype) for v, dtype in zip(pushed, scalars, strict=True)]
    write_id = data.draw(st.integers(0, 2**63 - 2))
    [record] = encoded(Codec(schema), columns, write_id)
    checksum, found_id, state, *numbers = msgpack.unpackb(record)
    assert found_id == write_id
    assert state == columns[0].astype(columns[0].dtype.newbyteorder("<")).tobytes()
    expected = [column[0].item() for column in columns[1:]]
    assert list(map(repr, numbers)) == list(map(repr, expected))
    assert list(map(repr, numbers[4:])) == list(map(repr, pushed))
    head = 10 if len(schema.fields) < 14 else 12
    assert checksum == xxh3_64_intdigest(record[head:])
    assert_same(decoded(Codec(schema), [record], write_id), columns)


# Damage


def one_fault(codec: Codec, records: list[Any], write_ids: list[int]) -> str:
    """The message, the same from faults and from decode."""
    ids = np.array(write_ids)
    [fault] = codec.faults(records, ids, ids % 10)
    with pytest.raises(DamageError) as caught:
        codec.decode(records, ids, ids % 10)
    assert str(caught.value) == fault
    return fault


def test_every_flipped_bit_of_a_record_is_found() -> None:
    codec, _, [before, record, after] = small()
    for bit in range(8 * len(record)):
        damaged = bytearray(record)
        damaged[bit // 8] ^= 1 << bit % 8
        fault = one_fault(codec, [before, bytes(damaged), after], [0, 1, 2])
        assert fault.startswith("the record of write id 1 in slot 1 is damaged: its ")
        reason = "first bytes are not those of a record" if bit < 16 else "checksum does not match"
        assert reason in fault


def test_each_kind_of_damage_is_named() -> None:
    codec, _, [before, record, after] = small(3, first=40)
    size, missing = len(record), "it is missing"
    cases: list[tuple[Any, str]] = [(b"", missing), (memoryview(b""), missing)]
    cases.append((bytes(size), missing))  # a slot that was never written
    cases.append((before, "it holds write id 40"))
    cases.append((record[:-1] + bytes([record[-1] ^ 1]), "its checksum does not match its bytes"))
    cases.append((b"\x98" + record[1:], "its first bytes are not those of a record of this schema"))
    for cut in (1, 2, 10, 20):
        for wrong in (record[:-cut], record[cut:], record + record[:cut], bytes(cut) + record):
            cases.append((wrong, f"it has {len(wrong)} bytes (expected {size})"))
    for wrong, reason in cases:
        fault = one_fault(codec, [before, wrong, after], [40, 41, 42])
        assert fault == f"the record of write id 41 in slot 1 is damaged: {reason}"
        assert codec.write_id_of(bytes(wrong)) == (40 if wrong is before else None)
    fault = one_fault(codec, [record], [51])  # one lap later in the same slot
    assert fault == "the record of write id 51 in slot 1 is damaged: it holds write id 41"
    assert codec.write_id_of(record) == 41
    [negative] = encoded(codec, random_columns(codec.schema, 1), -5)
    assert codec.write_id_of(negative) is None


def test_a_record_says_its_head_its_checksum_and_its_write_id_sound_or_not() -> None:
    for extras in (0, 20):
        codec = Codec(Schema({**SMALL, **{f"x{i}": "f4" for i in range(extras)}}))
        [record] = encoded(codec, random_columns(codec.schema, 1), 258)
        head = record_head(codec.schema)
        assert record.startswith(head)
        assert checksum_in(record) == xxh3_64_intdigest(record[len(head) + 8 :])
        assert write_id_in(record) == write_id_in(record[: len(head) + 17]) == 258
        assert (write_id_in(record[: len(head) + 16]), checksum_in(record[:2])) == (-1, 0)


def test_a_record_of_another_schema_of_the_same_size_is_found() -> None:
    codec = Codec(Schema({**SMALL, "x": "?", "y": "?"}))
    other = Codec(Schema({**SMALL, "x": "u1"}))
    assert codec.record_bytes == other.record_bytes
    [record] = encoded(other, random_columns(other.schema, 1), 0)
    assert other.faults([record], np.zeros(1), np.zeros(1)) == []
    fault = one_fault(codec, [record], [0])
    assert fault.endswith("its first bytes are not those of a record of this schema")


def test_faults_lists_every_bad_record_and_decode_names_the_first() -> None:
    codec, _, records = small(100, first=40)
    order = np.random.default_rng(3).permutation(100)
    shuffled: list[bytes] = [records[i] for i in order]
    assert codec.faults(shuffled, order + 40, order) == []
    shuffled[3], shuffled[9] = b"", shuffled[9][:30]
    shuffled[70] = shuffled[70][:-1] + bytes([shuffled[70][-1] ^ 1])
    faults = codec.faults(shuffled, order + 40, order)
    ids = [int(fault.split()[5]) for fault in faults]
    assert ids == (order[[3, 9, 70]] + 40).tolist()
    with pytest.raises(DamageError) as caught:
        codec.decode(shuffled, order + 40, order)
    assert str(caught.value) == faults[0]
    assert codec.sound(shuffled, order + 40).sum() == 97
    assert len(codec.faults([b"", b"x", b"", b"yz"], np.arange(4), np.arange(4))) == 4


def test_a_bool_whose_byte_is_neither_0_nor_1_is_written_as_true() -> None:
    base = {"state": "f4", "action": "i8", "reward": "f4", "next_state": "f4", "done": "f4"}
    codec = Codec(Schema({**base, "flag": "?"}))
    odd = np.array([2, 0, 255], np.uint8).view(np.bool_)
    columns = [np.zeros(3, f.dtype) for f in codec.schema.fields[:5]]
    records = encoded(codec, [*columns, odd], 0)
    assert [msgpack.unpackb(record)[-1] for record in records] == [True, False, True]
