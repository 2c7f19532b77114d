"""Values cross bit for bit, whatever they are; what no client sends is refused."""

from __future__ import annotations

from typing import Any

import msgpack
import numpy as np
import pytest

pytest.importorskip("pyarrow")

import pyarrow as pa

from diskreplay import ArgumentError, Batch, Draw
from diskreplay.service import messages
from diskreplay.service.messages import SCHEMA, MalformedMessage


class Wire:
    """The record batches of a message, as a stream writes and reads them, through their bytes."""

    def __init__(self) -> None:
        self.sent: list[tuple[bytes | None, bytes | None]] = []

    def write_metadata(self, metadata: bytes) -> None:
        self.sent.append((None, metadata))

    def write_with_metadata(self, batch: Any, metadata: bytes | None) -> None:
        self.sent.append((batch.serialize().to_pybytes(), metadata))

    def write_batch(self, batch: Any) -> None:
        self.write_with_metadata(batch, None)

    def read_chunk(self) -> Any:
        if not self.sent:
            raise StopIteration
        content, metadata = self.sent.pop(0)
        return Chunk(content, metadata)


class Chunk:
    def __init__(self, content: bytes | None, metadata: bytes | None) -> None:
        self.data = None
        if content is not None:
            self.data = pa.ipc.read_record_batch(pa.py_buffer(content), SCHEMA)
        self.app_metadata = None if metadata is None else pa.py_buffer(metadata)


def crossed(value: Any, **settings: Any) -> Any:
    wire = Wire()
    messages.send(wire, value)
    found = messages.receive(wire, **settings)
    assert not wire.sent
    return found


def assert_same(found: Any, wanted: Any) -> None:
    assert type(found) is type(wanted)
    if isinstance(wanted, np.ndarray):
        assert (found.dtype, found.shape) == (wanted.dtype, wanted.shape)
        assert found.tobytes() == wanted.tobytes()
        assert found.flags.writeable
        assert found.flags.aligned
        assert found.flags.c_contiguous
    elif isinstance(wanted, dict):
        assert list(found) == list(wanted)
        for key in wanted:
            assert_same(found[key], wanted[key])
    elif isinstance(wanted, list | tuple):
        for one, other in zip(found, wanted, strict=True):
            assert_same(one, other)
    else:
        assert found == wanted


RNG = np.random.default_rng(0)
ARRAYS = [
    np.array(5.5), np.zeros(0), np.zeros((0, 3), np.int64), np.array([True, False]),
    np.array([np.nan, np.inf, -0.0], np.float32), np.arange(3, dtype=np.uint8),
    np.arange(6, dtype=">i4").reshape(2, 3), np.array([1 + 2j], np.complex64),
    RNG.integers(0, 256, (300, 84, 10), np.uint8), RNG.random((20_000, 3)),
    RNG.integers(0, 256, 2**24 + 5, np.uint8),  # in two parts
]  # fmt: skip


@pytest.mark.parametrize(
    "value",
    [
        None, True, 2**63, -5, 0.1, "é\0", b"\xff", [], (), {}, [1, (2, [3])],
        {"a": (None, {1: 2})},
        ARRAYS, *ARRAYS, {"camera": ARRAYS[8], "robot": (ARRAYS[9], [ARRAYS[3], "text"])},
        Draw(np.arange(3), np.ones(3)),
    ],
)  # fmt: skip
def test_a_value_comes_as_it_was_sent(value: Any) -> None:
    assert_same(crossed(value), value)


def test_a_batch_keeps_its_type_and_its_attributes() -> None:
    batch = Batch(*(np.arange(4) for _ in range(5)))
    vars(batch).update(indices=np.arange(4), largest_weight=2.0)
    found = crossed(batch)
    assert_same(found, batch)
    assert found.indices.tolist() == [0, 1, 2, 3]
    assert found.largest_weight == 2.0
    with pytest.raises(MalformedMessage):
        crossed(batch, kinds=False)


def test_scalars_and_views_are_sent_by_their_values() -> None:
    wide = np.arange(20).reshape(4, 5)
    found = crossed([np.float32(0.5), np.int64(3), wide[:, ::2], wide.T])
    assert found[:2] == [0.5, 3]
    assert_same(found[2], wide[:, ::2].copy())
    assert_same(found[3], wide.T.copy())


@pytest.mark.parametrize("bad", [object(), [object()], np.array(["a"]), 2**64, {"a": {1j}}])
def test_what_cannot_be_sent_is_refused(bad: Any) -> None:
    wire = Wire()
    with pytest.raises(ArgumentError, match="cannot be sent"):
        messages.send(wire, bad)
    assert not wire.sent


HEADER = msgpack.packb([msgpack.packb(1), []])


@pytest.mark.parametrize(
    "header",
    [
        None, b"", b"\xc1", msgpack.packb(5), HEADER[:-1],
        msgpack.packb([msgpack.packb(1), [["<f4", [2**40, 2**40]]]]),
        msgpack.packb([msgpack.packb(1), [["<f4", [-1]]]]),
        msgpack.packb([msgpack.packb(1), [["O", [1]]]]),
        msgpack.packb([msgpack.packb(1), [["<f4", [3]]]]),  # with no bytes
        msgpack.packb([msgpack.packb(msgpack.ExtType(1, b"\x07")), []]),
        msgpack.packb([msgpack.packb([msgpack.ExtType(1, b"\0")] * 2), [["<f4", [0]]]]),
        msgpack.packb([msgpack.packb(msgpack.ExtType(99, b"")), []]),
    ],
)  # fmt: skip
def test_a_malformed_message_is_refused(header: bytes | None) -> None:
    wire = Wire()
    wire.sent.append((None, header))
    with pytest.raises(MalformedMessage) as caught:
        messages.receive(wire, most_bytes=2**20)
    assert "description of a message takes" not in str(caught.value)


@pytest.mark.parametrize(
    ("dtype", "shape"),
    [
        (None, [0]), ("f4", [0]), ("O", [0]), ("f4,f4", [0]), ("<U1", [0]), ("<V4", [0]),
        ([["a", "f4"]], [0]),
        ("<f4", [-1]), ("<f4", [1.0]), ("<f4", [True]), ("<f4", [None]), ("<f4", {}), ("<f4", "ab"),
        ("<f4", [1] * 33),
    ],
)  # fmt: skip
def test_an_array_has_a_type_and_a_shape_that_are_sent(dtype: Any, shape: Any) -> None:
    wire = Wire()
    wire.sent.append((None, msgpack.packb([msgpack.packb(1), [[dtype, shape]]])))
    with pytest.raises(MalformedMessage, match="no type or shape that is sent"):
        messages.receive(wire)


def test_a_message_that_takes_too_much_is_left_out() -> None:
    wire = Wire()
    messages.send(wire, [np.zeros(5), np.zeros(2**20), "many" * 10, np.zeros(2**18)])
    messages.send(wire, "next")
    with pytest.raises(ArgumentError, match=r"at most 1.00 MB \(found 10.5 MB\)"):
        messages.receive(wire, most_bytes=10**6)
    assert messages.receive(wire, most_bytes=10**6) == "next"
    messages.send(wire, [[]] * 20_000)
    with pytest.raises(MalformedMessage, match=r"description of a message takes 20.0 kB"):
        messages.receive(wire, most_bytes=10**6)


def test_a_message_takes_its_bytes_from_the_room() -> None:
    taken: list[int] = []
    wire = Wire()
    messages.send(wire, [np.zeros(2**20, np.uint8)], hold=taken.append)
    messages.receive(wire, hold=taken.append)
    assert all(2**20 < n < 2**20 + 10_000 for n in taken)
    assert len(taken) == 2


LARGE, SMALL = 100_000, 8  # bytes of an array that comes in parts, and of one that does not


@pytest.mark.parametrize("most_bytes", [None, 20_000])
@pytest.mark.parametrize("part", [0, LARGE + 1])
def test_a_part_of_another_size_ends_its_message(part: int, most_bytes: int | None) -> None:
    wire = Wire()
    header = msgpack.packb([msgpack.packb(1), [["|u1", [LARGE]]]])
    wire.write_with_metadata(record_batch(0), header)
    for _ in range(2):
        wire.write_batch(record_batch(part))
    with pytest.raises(MalformedMessage, match="a part of an array has another size"):
        messages.receive(wire, most_bytes=most_bytes)
    assert len(wire.sent) == 1


@pytest.mark.parametrize("size", [0, SMALL - 1, SMALL + 1, 2**20])
def test_small_arrays_of_another_size_are_refused(size: int) -> None:
    wire = Wire()
    header = msgpack.packb([msgpack.packb(1), [["|u1", [SMALL]]]])
    wire.write_with_metadata(record_batch(size), header)
    with pytest.raises(MalformedMessage):
        messages.receive(wire)


def record_batch(size: int) -> Any:
    return pa.record_batch([pa.array(np.zeros(size, np.uint8))], schema=SCHEMA)


def test_many_keys_of_one_hash_are_refused() -> None:
    prime = 2**61 - 1  # hash(k * prime) is 0
    assert crossed(dict.fromkeys(range(5000), 1)) == dict.fromkeys(range(5000), 1)
    pairs = {key * prime: 1 for key in range(-4, 4)}
    assert crossed(pairs) == pairs
    packed = b"\xde" + (2000).to_bytes(2, "big") + msgpack.packb(3 * prime) + b"\x01"
    packed += (msgpack.packb(prime) + b"\x01") * 1999
    wire = Wire()
    wire.sent.append((None, msgpack.packb([packed, []])))
    with pytest.raises(MalformedMessage, match="share a hash"):
        messages.receive(wire)


def test_values_nest_as_deep_as_they_are_sent() -> None:
    value: Any = ("a", np.arange(3))
    for _ in range(100):
        value = {"in": (value, [value[0]])}
        value = (0, value)
    assert_same(crossed(value), value)
