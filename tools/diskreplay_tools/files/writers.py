"""The files that `export` writes: each function gives one to call with rows of all columns."""

from __future__ import annotations

import contextlib
import json
import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diskreplay.aliases import Array
from diskreplay.schema import WORDS
from diskreplay_tools.extras import needed, pyarrow
from diskreplay_tools.files.columns import CHUNK_BYTES, KEY, MEMBER, Column, Table, stored_as
from diskreplay_tools.plain import plain

Write = Callable[[Table], None]
_GROUP_BYTES = 16 << 20


@contextlib.contextmanager
def write_npz(out: Path, columns: Sequence[Column], metadata: str) -> Iterator[Write]:
    """Write a zip with an array for each column, by way of a file for each beside it."""
    places = {column.name: out.with_name(f"{out.name}.{i}") for i, column in enumerate(columns)}
    rows = 0

    with contextlib.ExitStack() as stack:
        files = {name: stack.enter_context(place.open("wb")) for name, place in places.items()}

        def write(table: Table) -> None:
            nonlocal rows
            for column in columns:
                files[column.name].write(table[column.name].tobytes())
            rows += len(table["write_id"])

        yield write
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(zipfile.ZipInfo(MEMBER), metadata)
        for column in columns:
            header = {
                "descr": np.lib.format.dtype_to_descr(column.dtype),
                "fortran_order": False,
                "shape": (rows, *column.shape),
            }
            place = places[column.name]
            with archive.open(f"{column.name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array_header_1_0(member, header)
                with place.open("rb") as file:
                    shutil.copyfileobj(file, member, CHUNK_BYTES)
            place.unlink()  # so that the disk holds everything once, and one column twice


@contextlib.contextmanager
def write_jsonl(out: Path, columns: Sequence[Column], metadata: str) -> Iterator[Write]:
    """Write a JSON object a line: NaN and infinities as words, complex numbers as pairs."""
    names = [column.name for column in columns]
    with out.open("w", encoding="ascii") as file:

        def write(table: Table) -> None:
            for row in zip(*(plain(table[name]) for name in names), strict=True):
                line = json.dumps(dict(zip(names, row, strict=True)), allow_nan=False)
                file.write(f"{line}\n")

        yield write


def _as_pairs(values: Array) -> Array:
    parts = np.ascontiguousarray(values).view(f"f{values.dtype.itemsize // 2}")
    return parts.reshape(*values.shape, 2)


@contextlib.contextmanager
def write_parquet(out: Path, columns: Sequence[Column], metadata: str) -> Iterator[Write]:
    """Write row groups of some MiB; a column of arrays is a fixed-size list of their numbers.

    The list is flat, with the shape in the field's metadata: lists of lists cost a level of
    Parquet's encoding each, and not every reader takes fixed-size ones. Arrays with a length that
    varies are lists of any size, and texts and bytes are what Parquet has for them.
    """
    arrow, parquet = pyarrow(), needed("pyarrow.parquet", "parquet", "parquet")
    schema = arrow.schema([_arrow_field(arrow, c) for c in columns], metadata={KEY: metadata})
    waiting: list[Table] = []

    def put() -> None:
        if waiting:
            table = {name: np.concatenate([t[name] for t in waiting]) for name in waiting[0]}
            waiting.clear()
            arrays = [_arrow_array(arrow, c, table.pop(c.name)) for c in columns]
            writer.write_table(arrow.Table.from_arrays(arrays, schema=schema))

    def write(table: Table) -> None:
        waiting.append(table)
        if sum(_nbytes(values) for t in waiting for values in t.values()) >= _GROUP_BYTES:
            put()

    with parquet.ParquetWriter(out, schema) as writer:
        yield write
        put()


def _arrow_field(arrow: Any, column: Column) -> Any:
    word = WORDS.get(column.dtype.kind, column.dtype.newbyteorder("<").str)
    says = {"dtype": word, "shape": json.dumps(column.shape)}
    if word in WORDS.values():
        type_ = arrow.large_string() if word == "str" else arrow.large_binary()
        return arrow.field(column.name, type_, metadata=says)
    dtype, size = stored_as(column)
    type_ = arrow.from_numpy_dtype(dtype)
    if column.varies:
        type_ = arrow.large_list(type_)
    elif size is not None:
        type_ = arrow.list_(type_, size) if size else arrow.list_(type_)  # parquet has none of 0
    return arrow.field(column.name, type_, metadata=says)


def _nbytes(values: Array) -> int:
    """Return the bytes of a column, also of one with values that vary in size."""
    if not values.dtype.hasobject:
        return int(values.nbytes)
    return sum(v.nbytes if isinstance(v, np.ndarray) else len(v) for v in values)


def _arrow_array(arrow: Any, column: Column, values: Array) -> Any:
    if column.dtype.kind in WORDS:
        return arrow.array(values.tolist(), _arrow_field(arrow, column).type)
    dtype, size = stored_as(column)
    if column.varies:
        flat = np.concatenate([value.reshape(-1) for value in values])
        if column.dtype.kind == "c":
            flat = _as_pairs(flat).reshape(-1)
        per_element = 2 if column.dtype.kind == "c" else 1
        ends = np.cumsum([0, *(value.size * per_element for value in values)])
        numbers = arrow.array(np.ascontiguousarray(flat, dtype))
        return arrow.LargeListArray.from_arrays(ends.astype(np.int64), numbers)
    if column.dtype.kind == "c":
        values = _as_pairs(values)
    flat = arrow.array(np.ascontiguousarray(values, dtype).reshape(-1))
    if size is None:
        return flat
    if size == 0:
        return arrow.ListArray.from_arrays(np.zeros(len(values) + 1, np.int32), flat)
    return arrow.FixedSizeListArray.from_arrays(flat, size)


WRITERS: Mapping[str, Any] = {"npz": write_npz, "parquet": write_parquet, "jsonl": write_jsonl}
