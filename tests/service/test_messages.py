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
        msgpack.packb([msgpack.packb(1), [["<f4", [300]]]]),  # 1200 bytes
        msgpack.packb([msgpack.packb(1), [["<f4", [3]]]]),  # with no bytes
        msgpack.packb([msgpack.packb(msgpack.ExtType(1, b"\x07")), []]),
        msgpack.packb([msgpack.packb(msgpack.ExtType(99, b"")), []]),
    ],
)  # fmt: skip
def test_a_malformed_message_is_refused(header: bytes | None) -> None:
    wire = Wire()
    wire.sent.append((None, header))
    with pytest.raises(MalformedMessage):
        messages.receive(wire, most_bytes=1000)
