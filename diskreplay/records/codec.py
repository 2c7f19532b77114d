"""Codec: transitions as bytes (records: checksum, write id, fields), and back.

A record is a msgpack array in which every header has a constant place, because every value is
written at the full width of its type::

    offset  bytes                  meaning
    0       9n or dc nnnn          msgpack array of n = 2 + number of fields
    1 (3)   cf CCCCCCCCCCCCCCCC    checksum, uint64: xxh3_64 of all bytes after it
    10      d3 WWWWWWWWWWWWWWWW    write id, int64
    19      ca FFFFFFFF            a scalar field, here float32 (msgpack numbers are big-endian)
    24      c4 LL ...              an array field: bin of its little-endian bytes in C order

So any msgpack reader can read a record, and this module reads a batch of them as one structured
array in which the msgpack headers are padding. docs/format.md lists the header of each type.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from diskreplay.aliases import Array, Bools, Columns, Ints
from diskreplay.errors import DamageError
from diskreplay.records.row_copier import RowCopier
from diskreplay.schema import Field, Schema
from diskreplay.wording import count_of

Rows: TypeAlias = NDArray[np.uint8]  # (n, record_bytes)
Raw: TypeAlias = Sequence[Any] | Rows  # buffers, or the rows of an array
View: TypeAlias = NDArray[np.void]  # records as a structured array

# The markers of msgpack for numbers of fixed width, by numpy dtype.
_SCALAR_MARKERS = {
    "u1": 0xCC, "u2": 0xCD, "u4": 0xCE, "u8": 0xCF,
    "i1": 0xD0, "i2": 0xD1, "i4": 0xD2, "i8": 0xD3,
    "f4": 0xCA, "f8": 0xCB,
}  # fmt: skip
_FALSE = 0xC2
_CHECKSUM_BYTES = 8
_LARGE_BODY = 1024  # bytes
_CHECKED = ("head", "checksum", "write_id")  # of a record's layout


class Codec:
    """Encodes and decodes the records of one schema, a batch at a time.

    >>> schema = Schema({"state": ("f4", (2,)), "action": "i8", "reward": "f4",
    ...                  "next_state": ("f4", (2,)), "done": "f4"})
    >>> codec = Codec(schema)
    >>> columns = schema.accept_columns([[[1, 2]], [3], [4], [[5, 6]], [0]], {})
    >>> [record] = codec.encode(columns, first_write_id=7)
    >>> import msgpack
    >>> msgpack.unpackb(record.tobytes())[1:4]
    [7, b'\\x00\\x00\\x80?\\x00\\x00\\x00@', 3]
    """

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self._head = head = record_head(schema)
        at = body_at = len(head) + _CHECKSUM_BYTES
        places: dict[str, tuple[Any, int]] = {
            "head": (f"V{len(head)}", 0),
            "checksum": (">u8", len(head)),
        }
        self._headers = [(0, head)]
        values = [("write_id", b"\xd3", ">i8", 8)]
        for index, field in enumerate(schema.fields):
            values.append((_column(index), *_framing(field), field.payload_bytes))
        for name, header, dtype, size in values:
            self._headers.append((at, header))
            places[name] = (dtype, at + len(header))
            at += len(header) + size
        self.record_bytes = at
        places["body"] = (f"V{at - body_at}", body_at)
        self._layout = np.dtype(
            {
                "names": list(places),
                "formats": [dtype for dtype, _ in places.values()],
                "offsets": [offset for _, offset in places.values()],
                "itemsize": self.record_bytes,
            }
        )
        self._body_at = body_at
        columns = [_column(index) for index in range(len(schema.fields))]
        self._copier = RowCopier(self._layout, columns, _CHECKED)

    @cached_property
    def _template(self) -> Rows:
        """A record without its numbers, made when first needed: it may be large."""
        template = np.zeros(self.record_bytes, np.uint8)
        for at, header in self._headers:
            template[at : at + len(header)] = list(header)
        return template

    def encode(self, columns: Sequence[Array], first_write_id: int) -> Rows:
        """Return n transitions, columns of the schema's types, as uint8 (n, record_bytes).

        Cost: about 0.2 microseconds a record of 500 bytes, vectorised but for the checksums.
        """
        n = len(columns[0])
        records = np.empty((n, self.record_bytes), np.uint8)
        records[:] = self._template
        view = records.view(self._layout)[:, 0]
        view["write_id"] = np.arange(first_write_id, first_write_id + n)
        for index, (field, column) in enumerate(zip(self.schema.fields, columns, strict=True)):
            view[_column(index)] = _stored(field, column)
        view["checksum"] = _digests(view)
        return records

    def encode_one_by_one(
        self, columns: Sequence[Array], first_write_id: int
    ) -> Iterator[memoryview]:
        """Yield n transitions as `encode` returns them, each in the memory of the one before.

        Large records are encoded faster so, since `encode` needs new memory for all of them. Cost:
        about a microsecond a record, and one copy and the checksum of its bytes.
        """
        record = self._template.copy()
        view = record.view(self._layout)
        write_ids, checksums = view["write_id"], view["checksum"]
        places = [view[_column(index)] for index in range(len(columns))]
        stored = list(map(_stored, self.schema.fields, columns))
        content = record.data
        body = content[self._body_at :]
        for write_id, row in enumerate(zip(*stored, strict=True), first_write_id):
            write_ids[0] = write_id
            for place, value in zip(places, row, strict=True):
                place[0] = value
            checksums[0] = xxh3_64_intdigest(body)
            yield content

    def decode(
        self, records: Raw, write_ids: Ints, slots: Ints, fields: Sequence[int] | None = None
    ) -> Columns:
        """Return records as columns, each a fresh array, after checking every record.

        Raises DamageError naming write id and slot of the first record that is not, byte for byte,
        the one that was written under its write id.

        records:    n buffers; an empty one stands for a record that is missing
        write_ids:  int64 (n,), the write id that each record must hold
        slots:      int64 (n,), for the message
        fields:     the places of the fields to return, by default of all
        """
        columns = self.schema.empty_columns(len(write_ids), fields)
        self.decode_into(columns, None, records, write_ids, slots, fields)
        return columns

    def decode_into(
        self,
        columns: Columns,
        rows: Ints | None,
        records: Raw,
        write_ids: Ints,
        slots: Ints,
        fields: Sequence[int] | None = None,
    ) -> None:
        """Write records into columns as of `decode`; after an error their contents are arbitrary.

        columns:  C-contiguous arrays of the fields' types
        rows:     int64 (n,), the row of each record in the columns; None means all, in order
        """
        if not (self.are_large and set(map(len, records)) == {self.record_bytes}):
            self.copy_into(columns, rows, self.checked(records, write_ids, slots), fields)
            return
        chosen = range(len(self.schema.fields)) if fields is None else fields
        places = range(len(records)) if rows is None else rows.tolist()
        view, sound = self._copy_large(columns, places, records, write_ids, chosen)
        self._raise_unsound(sound, records, write_ids, slots)
        small = [i for i, index in enumerate(chosen) if index in self._copier.small]
        self.copy_into([columns[i] for i in small], rows, view, [chosen[i] for i in small])

    def checked(self, records: Raw, write_ids: Ints, slots: Ints) -> View:
        """Return records as a structured array; raise DamageError as `decode` does."""
        view, sound = self._verify(records, write_ids)
        self._raise_unsound(sound, records, write_ids, slots)
        return view

    def copy_into(
        self, columns: Columns, rows: Ints | None, view: View, fields: Sequence[int] | None = None
    ) -> None:
        """Copy fields of checked records into columns, see `decode_into`."""
        where = slice(None) if rows is None else rows
        chosen = range(len(self.schema.fields)) if fields is None else fields
        for index, column in zip(chosen, columns, strict=True):
            values = view[_column(index)]
            is_bool = _is_bool_scalar(self.schema.fields[index])
            column[where] = values != _FALSE if is_bool else values

    @property
    def are_large(self) -> bool:
        """True where records are decoded faster one by one than as a structured array."""
        return self._copier.is_worth_it

    def _raise_unsound(self, sound: Bools, records: Raw, write_ids: Ints, slots: Ints) -> None:
        if not sound.all():
            first = int(np.argmin(sound))
            raise DamageError(self._fault(records[first], write_ids[first], slots[first]))

    def _copy_large(
        self,
        columns: Columns,
        places: Sequence[int],
        records: Raw,
        write_ids: Ints,
        chosen: Sequence[int],
    ) -> tuple[View, Bools]:
        """Copy the large fields of records; return a view of the others, and which are sound."""
        wanted: list[Array | None] = [None] * len(self.schema.fields)
        for index, column in zip(chosen, columns, strict=True):
            wanted[index] = column
        digests: list[int] = []
        pieces: list[bytes] = []

        def hashed() -> Iterator[Any]:
            for record in records:
                digests.append(xxh3_64_intdigest(record[self._body_at :]))
                pieces.extend(self._copier.cut(record))
                yield record  # to be copied while it is in the processor's cache

        self._copier.copy(hashed(), places, wanted)
        view = self._copier.joined(pieces)
        return view, self._is_sound(view, write_ids, np.array(digests, np.uint64))

    def sound(self, records: Raw, write_ids: Ints) -> Bools:
        """Return which records are, byte for byte, those written under their write ids."""
        return self._verify(records, write_ids)[1]

    def write_id_of(self, record: bytes) -> int | None:
        """Return the write id of a sound record, None for anything else."""
        write_id = write_id_in(record)
        is_sound = write_id >= 0 and self.sound([record], np.array([write_id])).all()
        return write_id if is_sound else None

    def faults(self, records: Raw, write_ids: Ints, slots: Ints) -> list[str]:
        """Return one sentence for each record that is not sound, [] when all are."""
        bad = np.flatnonzero(~self.sound(records, write_ids))
        return [self._fault(records[i], write_ids[i], slots[i]) for i in bad.tolist()]

    def _verify(self, records: Raw, write_ids: Ints) -> tuple[View, Bools]:
        """Return the records of the right size as a view, and which of all records are sound."""
        if isinstance(records, np.ndarray) and records.shape[1] == self.record_bytes:
            view = records.view(self._layout)[:, 0]
            return view, self._is_sound(view, write_ids, _digests(view))
        if set(map(len, records)) == {self.record_bytes}:
            view = np.frombuffer(b"".join(records), self._layout)
            return view, self._is_sound(view, write_ids, _digests(view))
        sound = np.fromiter(map(len, records), np.int64, len(records)) == self.record_bytes
        whole = [records[i] for i in np.flatnonzero(sound).tolist()]
        view = np.frombuffer(b"".join(whole), self._layout)
        sound[sound] = self._is_sound(view, np.asarray(write_ids)[sound], _digests(view))
        return view, sound

    def _is_sound(self, view: View, write_ids: Ints, digests: NDArray[np.uint64]) -> Bools:
        sound: Bools = (
            (view["write_id"] == write_ids)
            & (view["head"] == np.void(self._head))
            & (view["checksum"] == digests)
        )
        return sound

    def _fault(self, record: Any, write_id: int, slot: int) -> str:
        name = f"the record of write id {write_id} in slot {slot} is damaged"
        if not bytes(record).strip(b"\0"):
            return f"{name}: it is missing"
        if len(record) != self.record_bytes:
            found = count_of(len(record), "byte")
            return f"{name}: it has {found} (expected {self.record_bytes:,})"
        view = np.frombuffer(bytes(record), self._layout)
        if view["checksum"] != _digests(view):
            return f"{name}: its checksum does not match its bytes"
        if view["write_id"] != write_id:
            return f"{name}: it holds write id {view['write_id'][0]}"
        return f"{name}: its first bytes are not those of a record of this schema"


def record_head(schema: Schema) -> bytes:
    """Return the bytes before the checksum, with which every record of a schema begins."""
    n = 2 + len(schema.fields)
    return (bytes([0x90 | n]) if n < 16 else struct.pack(">BH", 0xDC, n)) + b"\xcf"


def checksum_in(record: bytes) -> int:
    """Return the checksum that a record says it has, 0 if it is short."""
    at = _checksum_at(record)
    return int.from_bytes(record[at : at + _CHECKSUM_BYTES], "big")


def write_id_in(record: bytes) -> int:
    """Return the write id that a record says it has, sound or not; -1 if it is short."""
    at = _checksum_at(record) + _CHECKSUM_BYTES + 1
    write_id: int = struct.unpack_from(">q", record, at)[0] if len(record) >= at + 8 else -1
    return write_id


def _checksum_at(record: bytes) -> int:
    return 2 if record[:1] != b"\xdc" else 4


def _digests(view: View) -> NDArray[np.uint64]:
    bodies: Any = view["body"]
    # Small ones are faster as bytes, which are copies; a view of each takes longer (measured).
    is_large = bodies.dtype.itemsize > _LARGE_BODY
    bodies = bodies[:, None].view(np.uint8) if is_large else bodies.tolist()
    return np.fromiter(map(xxh3_64_intdigest, bodies), np.uint64, len(view))


def _framing(field: Field) -> tuple[bytes, Any]:
    """Return the msgpack header of a field's value and the dtype of the bytes after it."""
    if _is_bool_scalar(field):
        return b"", np.uint8  # the value is the marker itself: c2 or c3
    marker = _SCALAR_MARKERS.get(field.dtype.str[1:])
    if not field.shape and marker is not None:
        return bytes([marker]), field.dtype.newbyteorder(">")
    size, little = field.payload_bytes, (field.dtype.newbyteorder("<"), field.shape)
    if size < 2**8:
        return struct.pack(">BB", 0xC4, size), little
    if size < 2**16:
        return struct.pack(">BH", 0xC5, size), little
    return struct.pack(">BI", 0xC6, size), little


def _stored(field: Field, column: Array) -> Array:
    """Return a column as records hold it, but for the byte order."""
    if not _is_bool_scalar(field):
        return column
    markers: Array = (column.view(np.uint8) != 0) + np.uint8(_FALSE)
    return markers


def _is_bool_scalar(field: Field) -> bool:
    return field.dtype.kind == "b" and not field.shape


def _column(index: int) -> str:
    return f"field {index}"
