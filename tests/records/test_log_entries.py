"""Entries of the observation log: msgpack that anybody can read, and hostile ones are damage."""

from __future__ import annotations

import contextlib
import struct

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from xxhash import xxh3_64_intdigest

from diskreplay import DamageError
from diskreplay.records.log_entries import (
    ENTRY_HEADER,
    content_of,
    entries_in,
    entry_in,
    entry_of,
    observation_id_in,
    pack,
)

IDS = st.integers(0, 2**63 - 1)
CONTENTS = st.binary(max_size=70)
MAX_ID = 2**63 - 1


def naive_entry(observation_id: int, content: bytes) -> bytes:
    body = b"\xd3" + struct.pack(">q", observation_id)
    body += b"\xc6" + struct.pack(">I", len(content)) + content
    return b"\x93\xcf" + struct.pack(">Q", xxh3_64_intdigest(body)) + body


def naive_value(entries: list[bytes]) -> bytes:
    offsets = [5 + 4 * (len(entries) + 1)]
    for entry in entries:
        offsets.append(offsets[-1] + len(entry))
    table = b"".join(struct.pack("<I", offset) for offset in offsets)
    return b"\xc6" + struct.pack(">I", len(table)) + table + b"".join(entries)


@given(IDS, CONTENTS)
def test_an_entry_is_a_msgpack_array_that_is_read_back(observation_id: int, content: bytes) -> None:
    entry = entry_of(observation_id, content)
    assert entry == naive_entry(observation_id, content)
    assert msgpack.unpackb(entry) == [
        xxh3_64_intdigest(entry[10:]),
        observation_id,
        content,
    ]
    assert len(entry) == ENTRY_HEADER + len(content)
    assert observation_id_in(entry) == observation_id
    assert content_of(memoryview(entry), observation_id) == content
    for buffer in (bytearray(content), memoryview(content)):
        assert entry_of(observation_id, buffer) == entry


@given(st.lists(st.tuples(IDS, CONTENTS), min_size=1, max_size=20))
def test_a_value_holds_entries_behind_their_offsets(given_: list[tuple[int, bytes]]) -> None:
    entries = [entry_of(*pair) for pair in given_]
    value = pack(entries)
    assert value == naive_value(entries)
    assert entries_in(value) == entries
    assert [entry_in(value, n) for n in range(len(entries))] == entries
    unpacker = msgpack.Unpacker()
    unpacker.feed(value)
    offsets, *objects = list(unpacker)
    assert [content for _, _, content in objects] == [content for _, content in given_]
    assert struct.unpack(f"<{len(entries) + 1}I", offsets)[-1] == len(value)
    # A value grows by its next entries.
    assert pack([*entries_in(value)[:1], *entries[1:]]) == value


@given(IDS, CONTENTS, st.data())
def test_an_entry_with_any_bit_changed_is_damage(
    observation_id: int, content: bytes, data: st.DataObject
) -> None:
    entry = bytearray(entry_of(observation_id, content))
    bit = data.draw(st.integers(0, 8 * len(entry) - 1))
    entry[bit // 8] ^= 1 << bit % 8
    with pytest.raises(DamageError, match=f"observation {observation_id} is damaged: its "):
        content_of(memoryview(entry), observation_id)


@given(IDS, CONTENTS, st.integers(0, 93))
def test_an_entry_that_is_cut_is_damage(observation_id: int, content: bytes, size: int) -> None:
    entry = entry_of(observation_id, content)
    size = min(size, len(entry) - 1)
    for raw in (entry[:size], entry + b"x"):
        with pytest.raises(DamageError, match="is damaged: it"):
            content_of(memoryview(raw), observation_id)


def checksummed(body: bytes) -> memoryview:
    digest = xxh3_64_intdigest(body).to_bytes(8, "big")
    return memoryview(b"\x93\xcf" + digest + body)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (memoryview(b""), "it is missing"),
        (memoryview(b"\x93\xcf" + bytes(20)), r"it has 22 bytes \(expected at least 24\)"),
        (memoryview(bytes(24)), "its checksum does not match its bytes"),
        (memoryview(entry_of(8, b"abc")), "it holds observation 8"),
        (
            checksummed(b"\xd3" + (7).to_bytes(8, "big") + b"\xc6\xff\xff\xff\xffabc"),
            r"its content has 3 bytes \(expected 4,294,967,295\)",
        ),
        (
            checksummed(b"\xcf" + (7).to_bytes(8, "big") + b"\xc6\0\0\0\3abc"),
            "its first bytes are not those of an entry",
        ),
    ],
)
def test_damage_is_named_with_the_id(entry: memoryview, words: str) -> None:
    with pytest.raises(DamageError, match=f"^the entry of observation 7 is damaged: {words}$"):
        content_of(entry, 7)


def value_with(offsets: list[int], rest: bytes) -> bytes:
    table = struct.pack(f"<{len(offsets)}I", *offsets)
    return b"\xc6" + struct.pack(">I", len(table)) + table + rest


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (b"", "it is missing"),
        (b"\xc6", "does not begin with the offsets"),
        (b"\xc6" + bytes(4), "does not begin with the offsets"),
        (b"\xc5\0\0\0\x08" + bytes(8), "does not begin with the offsets"),
        (b"\xc6\0\0\0\x04" + bytes(4), "does not begin with the offsets"),
        (b"\xc6\0\0\0\x09" + bytes(9), "does not begin with the offsets"),
        (b"\xc6\xff\xff\xff\xff" + bytes(40), "does not begin with the offsets"),
        (b"\xc6\xff\xff\xff\xfc" + bytes(40), "does not begin with the offsets"),
        (value_with([0, 13], b""), "offsets do not fit"),
        (value_with([13, 12], b""), "offsets do not fit"),
        (value_with([13, 99], b"abc"), "offsets do not fit"),
        (value_with([13, 2**32 - 1], b"abc"), "offsets do not fit"),
        (value_with([12, 16], b"abc"), "offsets do not fit"),
        (value_with([17, 20, 18, 20], b"abc"), "offsets do not fit"),
    ],
)
def test_a_value_of_a_stranger_is_damage(value: bytes, words: str) -> None:
    with pytest.raises(DamageError, match=f"^its? .*{words}|^{words}"):
        entries_in(value)
    with pytest.raises(DamageError, match=f"^its? .*{words}|^{words}"):
        list(map(entry_in, [value] * 3, range(3)))


@given(st.binary(max_size=60), st.integers(-2, 20))
def test_any_bytes_are_entries_or_damage(value: bytes, n: int) -> None:
    for raw in (value, b"\xc6\0\0\0\x0c" + value):
        with contextlib.suppress(DamageError):
            assert bytes(entry_in(raw, n)) in raw
        with contextlib.suppress(DamageError):
            assert b"".join(entries_in(raw)) in raw


@pytest.mark.parametrize("n", [-1, 2, 4096])
def test_an_entry_that_is_not_in_a_value_is_damage(n: int) -> None:
    value = pack([entry_of(0, b"a"), entry_of(1, b"b")])
    with pytest.raises(DamageError, match=rf"^it has no entry {n} \(found 2\)$"):
        entry_in(value, n)


def test_the_largest_id_has_its_place() -> None:
    assert content_of(memoryview(entry_of(MAX_ID, b"")), MAX_ID) == b""
    assert observation_id_in(b"\x93") == -1
