"""The files of `export` and `import`: their columns, what they say of the store, and their writing.

A file has a column for each field, in the order of the schema, after `write_id` and, where the
buffer is prioritized, before `priority`. What the columns do not say is a JSON object::

    {"format": 1, "kind": "prioritized", "capacity": 1000, "schema": [["state", "<f4", [3]], ...],
     "settings": {"alpha": 0.6, ...}, "max_priority": 2.5, "versions": {"diskreplay": ...}}

In an npz it is the member `diskreplay.json`, in a parquet file the schema's metadata under
`diskreplay`; jsonl has none, so that every line is a transition.
"""

from __future__ import annotations

import contextlib
import json
import math
import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import diskreplay
from diskreplay_tools.common import needed

Array = NDArray[Any]
Table = dict[str, Array]
Write = Callable[[Table], None]
Buffer = diskreplay.ReplayBuffer | diskreplay.PrioritizedReplayBuffer

FORMAT = 1
MEMBER = "diskreplay.json"
KEY = b"diskreplay"
STANDARD = ("state", "action", "reward", "next_state", "done")
RUN_SETTINGS = ("durability", "commit_interval")
PRIORITIZED_SETTINGS = ("alpha", "beta_start", "beta_end", "beta_frames", "epsilon")
CHUNK_BYTES = 4 << 20
_GROUP_BYTES = 16 << 20
_INFINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


class Column(NamedTuple):
    """A column of a file: its name, and the dtype and the shape of one row of it.

    Of a file that is read also how many rows it has, and why it cannot be used, if so.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...] = ()
    rows: int = 0
    fault: str = ""

    @property
    def row_bytes(self) -> int:
        """The bytes of one row."""
        return self.dtype.itemsize * math.prod(self.shape)

    @property
    def type(self) -> str:
        """The dtype and the shape in one word, such as float32[60]."""
        return f"{self.dtype}{list(self.shape) if self.shape else ''}"


def columns_of(buffer: Buffer) -> list[Column]:
    """Return the columns of what is exported of a buffer."""
    fields = buffer.schema.fields if buffer.schema is not None else ()
    columns = [Column("write_id", np.dtype(np.int64))]
    columns += [Column(field.name, field.dtype, field.shape) for field in fields]
    if isinstance(buffer, diskreplay.PrioritizedReplayBuffer):
        columns.append(Column("priority", np.dtype(np.float32)))
    return columns


def rows_in_chunk(columns: Sequence[Column]) -> int:
    """Return how many rows are worked on at once."""
    return max(1, CHUNK_BYTES // max(64, sum(column.row_bytes for column in columns)))


# What the columns do not say


def metadata_of(buffer: Buffer) -> str:
    """Return what an import needs to make the same buffer again, as JSON."""
    schema = buffer.schema
    stats = buffer.stats()
    names = list(RUN_SETTINGS)
    found = {
        "format": FORMAT,
        "kind": "uniform",
        "capacity": buffer.capacity,
        "schema": None if schema is None else schema.to_plain(),
    }
    if isinstance(buffer, diskreplay.PrioritizedReplayBuffer):
        names += PRIORITIZED_SETTINGS
        found |= {"kind": "prioritized", "max_priority": buffer.max_priority}
    found["settings"] = {name: stats[name] for name in names}
    found["versions"] = {"diskreplay": diskreplay.__version__, "numpy": np.__version__}
    return json.dumps(spelt(found), allow_nan=False)


def spelt(value: Any) -> Any:
    """Return a plain value with the numbers that JSON lacks as the words for them."""
    if isinstance(value, dict):
        return {key: spelt(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return list(map(spelt, value))
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def number_of(value: Any) -> Any:
    """Return the number that `spelt` made a word of, and everything else as it is."""
    return _INFINITE.get(value, value) if isinstance(value, str) else value


# Writing: each gives a function to call with rows of all columns; the file is whole at the end


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
            for row in zip(*(_plain(table[name]) for name in names), strict=True):
                line = json.dumps(dict(zip(names, row, strict=True)), allow_nan=False)
                file.write(f"{line}\n")

        yield write


def _plain(values: Array) -> list[Any]:
    if values.dtype.kind == "c":
        values = _as_pairs(values)
    plain: list[Any] = values.tolist()
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        return list(map(spelt, plain))
    return plain


def _as_pairs(values: Array) -> Array:
    parts = np.ascontiguousarray(values).view(f"f{values.dtype.itemsize // 2}")
    return parts.reshape(*values.shape, 2)


@contextlib.contextmanager
def write_parquet(out: Path, columns: Sequence[Column], metadata: str) -> Iterator[Write]:
    """Write row groups of some MiB; a column of arrays is a fixed-size list of their numbers.

    The list is flat, with the shape in the field's metadata: lists of lists cost a level of
    Parquet's encoding each, and not every reader takes fixed-size ones.
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
        if sum(values.nbytes for t in waiting for values in t.values()) >= _GROUP_BYTES:
            put()

    with parquet.ParquetWriter(out, schema) as writer:
        yield write
        put()


def pyarrow() -> Any:
    """Return pyarrow, or say how to install it."""
    return needed("pyarrow", "parquet", "parquet")


def stored_as(column: Column) -> tuple[np.dtype[Any], int | None]:
    """Return the dtype that parquet holds, and how many of it make a row; None is one number."""
    dtype, size = column.dtype, math.prod(column.shape)
    if dtype.kind == "c":
        return np.dtype(f"f{dtype.itemsize // 2}"), 2 * size
    if dtype == np.float16:
        dtype = np.dtype(np.float32)  # few readers know its own type, and none before 2024
    return dtype, size if column.shape else None


def _arrow_field(arrow: Any, column: Column) -> Any:
    dtype, size = stored_as(column)
    type_ = arrow.from_numpy_dtype(dtype)
    if size is not None:
        type_ = arrow.list_(type_, size) if size else arrow.list_(type_)  # parquet has none of 0
    says = {"dtype": column.dtype.newbyteorder("<").str, "shape": json.dumps(column.shape)}
    return arrow.field(column.name, type_, metadata=says)


def _arrow_array(arrow: Any, column: Column, values: Array) -> Any:
    dtype, size = stored_as(column)
    if column.dtype.kind == "c":
        values = _as_pairs(values)
    flat = arrow.array(np.ascontiguousarray(values, dtype).reshape(-1))
    if size is None:
        return flat
    if size == 0:
        return arrow.ListArray.from_arrays(np.zeros(len(values) + 1, np.int32), flat)
    return arrow.FixedSizeListArray.from_arrays(flat, size)


WRITERS: Mapping[str, Any] = {"npz": write_npz, "parquet": write_parquet, "jsonl": write_jsonl}
