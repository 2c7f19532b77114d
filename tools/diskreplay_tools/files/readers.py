"""The files that `import` reads, npz and parquet: their columns, and their rows some at a time.

They may come from anybody: no pickle is read, and what a file claims to hold is compared with its
size before memory is taken for it.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

import diskreplay
from diskreplay.schema import WORDS
from diskreplay.wording import human
from diskreplay_tools.extras import needed, pyarrow
from diskreplay_tools.files.columns import KEY, MEMBER, Column, Table, rows_in_chunk, stored_as

_METADATA_BYTES = 16 << 20
_VARYING_ROWS = 256  # at once: how large their values are is not known before
_ROW_BYTES = 64 << 20  # of a row in a file that is smaller than it
_MOST_DEFLATED = 1040  # times: deflate cannot do more
_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "FLOAT": 4, "INT96": 12}  # bytes; of others 8
_ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError)
# What numpy raises over a header that is no array's.
_HEADER_ERRORS = (ValueError, TypeError, SyntaxError, RuntimeError, tokenize.TokenError)


@contextlib.contextmanager
def open_table(path: Path) -> Iterator[TableFile]:
    """Open an npz or parquet file; damage that a block meets becomes an error of one sentence."""
    with path.open("rb") as file:
        begin = file.read(4)
    if begin[:1] == b"{":
        raise click.ClickException(
            f"{path} looks like jsonl, which has neither types nor settings and cannot be "
            "imported: export it as npz or parquet"
        )
    kind: Any = {b"PK\3\4": NpzFile, b"PK\5\6": NpzFile, b"PAR1": ParquetFile}.get(begin)
    if kind is None:
        raise click.ClickException(
            f"{path} is neither npz nor parquet: expected a file that begins with PK or PAR1 "
            f"(found {begin!r})"
        )
    source = kind(path)
    try:
        with _told(path, *_ZIP_ERRORS):
            yield source
    finally:
        source.close()


@contextlib.contextmanager
def _told(path: Path, *errors: type[Exception]) -> Iterator[None]:
    try:
        yield
    except errors as error:
        raise _damage(path, (str(error).splitlines() or ["it ends too early"])[0]) from None


def _damage(path: Path, what: str) -> click.ClickException:
    return click.ClickException(f"{path} is damaged: {what[:300]}")


def check_row(path: Path, row_bytes: int) -> None:
    """Refuse a row of more bytes than a file can honestly hold."""
    most = max(_ROW_BYTES, path.stat().st_size)
    if row_bytes > most:
        raise _damage(path, f"a row takes {human(row_bytes)} (expected at most {human(most)})")


class NpzFile:
    """A zip of arrays, as np.savez and np.savez_compressed write it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.metadata: str | bytes | None = None
        self.columns: dict[str, Column] = {}
        self._members: dict[str, tuple[zipfile.ZipInfo, int]] = {}
        with contextlib.ExitStack() as stack:
            stack.enter_context(_told(path, *_ZIP_ERRORS, *_HEADER_ERRORS))
            self._archive = stack.enter_context(zipfile.ZipFile(path))
            for info in self._archive.infolist():
                if info.filename == MEMBER:
                    self._check_size(info)
                    with self._archive.open(info) as member:
                        self.metadata = member.read(_METADATA_BYTES)
                elif info.filename.endswith(".npy"):
                    column = self._look(info)
                    self.columns[column.name] = column
            stack.pop_all()

    def close(self) -> None:
        """Close the file."""
        self._archive.close()

    def tables(self, columns: Sequence[Column], skip: int, step: int) -> Iterator[Table]:
        """Yield the rows of some columns from a row on, some at a time, by the columns' names."""
        rows = columns[0].rows
        with contextlib.ExitStack() as stack:
            members = {}
            for column in columns:
                info, header = self._members[column.name]
                member = stack.enter_context(self._archive.open(info))
                member.seek(header + skip * column.row_bytes)
                members[column.name] = member
            for at in range(skip, rows, step):
                n = min(step, rows - at)
                table = {}
                for column in columns:
                    member = members[column.name]
                    table[column.name] = self._values(column, n, member.read(n * column.row_bytes))
                yield table
            for member in members.values():
                member.read(1)  # at its end its checksum is compared

    def _values(self, column: Column, n: int, content: bytes) -> np.ndarray[Any, Any]:
        if len(content) < n * column.row_bytes:
            raise _damage(self.path, f"the column {column.name!r} ends too early")
        values = np.ndarray((n, *column.shape), column.dtype, content)
        # A bool may be any byte in a file.
        return values.view(np.uint8) != 0 if column.dtype.kind == "b" else values

    def _look(self, info: zipfile.ZipInfo) -> Column:
        """Return the column that a member is, with what is wrong with it."""
        name = info.filename.removesuffix(".npy")
        column = Column(name, np.dtype(np.uint8))
        if info.flag_bits & 1 or info.compress_type not in (
            zipfile.ZIP_STORED,
            zipfile.ZIP_DEFLATED,
        ):
            return column._replace(fault="save it with np.savez or np.savez_compressed")
        self._check_size(info)
        with self._archive.open(info) as member, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of headers that Python 2 wrote
            version = np.lib.format.read_magic(member)
            if version == (1, 0):
                shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(member)
            elif version == (2, 0):
                shape, is_fortran, dtype = np.lib.format.read_array_header_2_0(member)
            else:
                return column._replace(fault="expected an array of numbers")
            header = member.tell()
        if dtype.hasobject:
            return column._replace(
                fault="it holds Python objects, which only pickle can read: save an array of "
                "numbers of one shape"
            )
        if not shape or min(shape) < 0:
            return column._replace(fault="it is a single value: expected one for each row")
        column = Column(name, dtype, shape[1:], shape[0])
        if header + column.rows * column.row_bytes != info.file_size:
            raise _damage(
                self.path,
                f"the column {name!r} is to have {column.rows:,} rows of {column.row_bytes:,} "
                f"bytes, and has {info.file_size - header:,} bytes",
            )
        if is_fortran and len(shape) > 1:
            return column._replace(
                fault="it is in Fortran order: save it again with np.ascontiguousarray"
            )
        self._members[name] = info, header
        return column

    def _check_size(self, info: zipfile.ZipInfo) -> None:
        most = info.compress_size
        if info.compress_type != zipfile.ZIP_STORED:
            most = _MOST_DEFLATED * (most + 1)
        if info.compress_size > self.path.stat().st_size or info.file_size > most:
            raise _damage(self.path, f"{info.filename!r} cannot hold {human(info.file_size)}")


class ParquetFile:
    """A parquet file of numbers and of lists of numbers; of an export also of texts and bytes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._arrow, parquet = pyarrow(), needed("pyarrow.parquet", "parquet", "parquet")
        self._errors = (self._arrow.ArrowException, OSError, ValueError, OverflowError)
        with contextlib.ExitStack() as stack:
            stack.enter_context(_told(path, *self._errors))
            self._file = parquet.ParquetFile(path, memory_map=True, pre_buffer=False)
            stack.callback(self._file.close)
            schema, facts = self._file.schema_arrow, self._file.metadata
            self.metadata: str | bytes | None = (schema.metadata or {}).get(KEY)
            self.columns: dict[str, Column] = {}
            self._lengths: dict[str, list[int]] = {}  # of the lists in a row, by column
            groups = [facts.row_group(i) for i in range(facts.num_row_groups)]
            self._rows = [group.num_rows for group in groups]
            if sum(self._rows) != facts.num_rows or min(self._rows, default=0) < 0:
                raise _damage(path, "it has other rows than it says")
            self._row_bytes = max(map(_row_bytes, groups), default=0)
            check_row(path, self._row_bytes)
            for field in schema:
                if field.name in self.columns:
                    raise _damage(path, f"it has two columns of the name {field.name!r}")
                self.columns[field.name] = self._look(field, facts.num_rows)
            stack.pop_all()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def tables(self, columns: Sequence[Column], skip: int, step: int) -> Iterator[Table]:
        """Yield the rows of some columns from a row on, some at a time, by the columns' names."""
        at, groups = 0, []
        for number, rows in enumerate(self._rows):
            at += rows
            if at > skip:
                groups.append(number)
        at -= sum(self._rows[number] for number in groups)
        names = [column.name for column in columns]
        step = min(step, rows_in_chunk([Column("row", np.dtype(np.uint8), (self._row_bytes,))]))
        if any(column.varies for column in columns):
            step = min(step, _VARYING_ROWS)
        for batch in self._batches(names, groups, step):
            begin = max(0, skip - at)
            if begin < batch.num_rows:
                rows = batch.slice(begin)
                first = at + begin
                yield {c.name: self._values(c, rows.column(c.name), first) for c in columns}
            at += batch.num_rows

    def _batches(self, names: Sequence[str], groups: Sequence[int], step: int) -> Iterator[Any]:
        if not groups:
            return
        with _told(self.path, *self._errors):
            found = self._file.iter_batches(step, row_groups=groups, columns=names)
        while True:
            with _told(self.path, *self._errors):
                batch = next(found, None)
            if batch is None:
                return
            yield batch

    def _look(self, field: Any, rows: int) -> Column:
        """Return the column that a field is, with what is wrong with it."""
        type_, lengths = field.type, []
        while (length := self._length(type_)) is not None:
            lengths.append(length)
            type_ = type_.value_type
        types = self._arrow.types
        declared = _declared(field)
        if declared is not None and declared.varies:
            if not self._holds(field.type, declared):
                fault = (
                    f"expected {declared.type}, as export writes it (found {str(field.type)[:100]})"
                )
                return Column(field.name, np.dtype(np.uint8), (), rows, fault)
            return declared._replace(rows=rows)
        if not (types.is_integer(type_) or types.is_floating(type_) or types.is_boolean(type_)):
            fault = f"expected numbers or lists of them (found {str(field.type)[:100]})"
            return Column(field.name, np.dtype(np.uint8), (), rows, fault)
        # Its own conversion imports pandas in older releases.
        name = f"float{type_.bit_width}" if types.is_floating(type_) else str(type_)
        column = Column(field.name, np.dtype(name), (), rows)
        if declared is not None:
            dtype, size = stored_as(declared)
            if (dtype, [] if size is None else [size or -1]) == (column.dtype, lengths):
                self._lengths[field.name] = [] if size is None else [size]
                return declared._replace(rows=rows)
        if -1 in lengths:
            if not rows:
                return column._replace(fault="without rows the length of its lists is not known")
            lengths = self._lengths_of_first(field.name, lengths)
        self._lengths[field.name] = lengths
        return column._replace(shape=tuple(lengths))

    def _length(self, type_: Any) -> int | None:
        """Return how many values a list has, -1 when that may vary, None for what is no list."""
        types = self._arrow.types
        if types.is_fixed_size_list(type_):
            return int(type_.list_size)
        return -1 if types.is_list(type_) or types.is_large_list(type_) else None

    def _lengths_of_first(self, name: str, lengths: Sequence[int]) -> list[int]:
        groups = [number for number, rows in enumerate(self._rows) if rows][:1]
        array = next(self._batches([name], groups, 1)).column(name)
        found = []
        for _ in lengths:
            values = array.slice(0, 1).flatten()
            found.append(len(values))
            array = values
        return found

    def _values(self, column: Column, array: Any, first: int) -> np.ndarray[Any, Any]:
        """Return an array of the rows of a column, the first of which is row `first`."""
        n, per_row = len(array), 1
        self._check_nulls(column, array, first, per_row)
        if column.varies:
            with _told(self.path, *self._errors):
                return self._varying(column, array, first)
        for length in self._lengths[column.name]:
            if self._length(array.type) == -1:
                sizes = np.diff(array.offsets.to_numpy())
                wrong = np.flatnonzero(sizes != length)
                if wrong.size:
                    raise click.ClickException(
                        f"{self.path}, column {column.name!r}: a list of row "
                        f"{first + wrong[0] // per_row:,} has {sizes[wrong[0]]} values (expected "
                        f"{length}, as the first row): rows must be of one shape, or leave it out "
                        f"with --drop {column.name}"
                    )
            array = array.flatten()
            per_row *= max(1, length)
            self._check_nulls(column, array, first, per_row)
        values: np.ndarray[Any, Any] = array.to_numpy(zero_copy_only=False)
        if column.dtype.kind == "c":
            values = np.ascontiguousarray(values).view(column.dtype)
        return values.astype(column.dtype, copy=False).reshape(n, *column.shape)

    def _holds(self, type_: Any, column: Column) -> bool:
        """Return whether values that vary in size have the type that export gives them."""
        types = self._arrow.types
        if column.dtype.kind == "U":
            return bool(types.is_string(type_) or types.is_large_string(type_))
        if column.dtype.kind == "S":
            return bool(types.is_binary(type_) or types.is_large_binary(type_))
        numbers = self._arrow.from_numpy_dtype(stored_as(column)[0])
        is_told = column.shape.count(None) == 1 and 0 not in column.shape
        return bool(is_told and self._length(type_) == -1 and type_.value_type == numbers)

    def _varying(self, column: Column, array: Any, first: int) -> np.ndarray[Any, Any]:
        """Return values that vary in size as objects: texts, bytes, or arrays of their shape."""
        found = np.empty(len(array), object)
        if column.dtype.kind in WORDS:
            found[:] = array.to_pylist()
            return found
        flat = array.flatten()
        ends = array.offsets.to_numpy()
        ends = ends - ends[0]
        if flat.null_count:
            at = int(np.flatnonzero(flat.is_null().to_numpy(zero_copy_only=False))[0])
            raise self._null(column, first + int(ends.searchsorted(at, side="right")) - 1)
        numbers = flat.to_numpy(zero_copy_only=False)
        known = math.prod(length for length in column.shape if length is not None)
        in_step = known * (2 if column.dtype.kind == "c" else 1)
        for place, (begin, end) in enumerate(itertools.pairwise(ends.tolist())):
            if (end - begin) % in_step:
                raise click.ClickException(
                    f"{self.path}, column {column.name!r}: row {first + place:,} has "
                    f"{end - begin} numbers (expected a multiple of {in_step}, for "
                    f"{column.type}): leave it out with --drop {column.name}"
                )
            value = np.ascontiguousarray(numbers[begin:end])
            value = value.view(column.dtype) if column.dtype.kind == "c" else value
            n = (end - begin) // in_step
            shape = tuple(n if length is None else length for length in column.shape)
            found[place] = value.astype(column.dtype, copy=False).reshape(shape)
        return found

    def _check_nulls(self, column: Column, array: Any, first: int, per_row: int) -> None:
        if array.null_count:
            at = int(np.flatnonzero(array.is_null().to_numpy(zero_copy_only=False))[0])
            raise self._null(column, first + at // per_row)

    def _null(self, column: Column, row: int) -> click.ClickException:
        expected = WORDS.get(column.dtype.kind, "numbers")
        return click.ClickException(
            f"{self.path}, column {column.name!r}: row {row:,} has a null "
            f"(expected {expected}): fill it, or leave the column out with --drop {column.name}"
        )


def _row_bytes(group: Any) -> int:
    """Return how many bytes a row takes in memory, on average over a row group."""
    columns = [group.column(i) for i in range(group.num_columns)]
    size = sum(column.num_values * _WIDTHS.get(column.physical_type, 8) for column in columns)
    return int(-(-size // max(1, group.num_rows)))


def _declared(field: Any) -> Column | None:
    """Return the column that an export wrote as this field, None for any other field."""
    says = field.metadata or {}
    with contextlib.suppress(diskreplay.SchemaError, TypeError, ValueError, RecursionError):
        dtype, shape = says.get(b"dtype", b"").decode(), json.loads(says.get(b"shape", b""))
        found = diskreplay.Field("column", dtype, tuple(shape))
        return Column(field.name, found.dtype, found.shape, varies=found.varies)
    return None


TableFile = NpzFile | ParquetFile
