"""Which column of a file becomes which field of a store, and with what type."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import click
import numpy as np

import diskreplay
from diskreplay.schema import infer_fields, missing_in
from diskreplay_tools.files.columns import FORMAT, PRIORITY, WRITE_ID, Column
from diskreplay_tools.files.readers import TableFile, check_row

NUMBERS = ("reward", "done")


def metadata_in(file: TableFile) -> dict[str, Any]:
    """Return what an export says of its store, {} for any other file."""
    if file.metadata is None:
        return {}
    metadata: Any = None
    with contextlib.suppress(ValueError, RecursionError):
        metadata = json.loads(file.metadata)
    if not isinstance(metadata, dict) or type(metadata.get("format")) is not int:
        raise click.ClickException(
            f"{file.path} is damaged: what it says of its store is no object with a format"
        )
    if metadata["format"] != FORMAT:
        raise click.ClickException(
            f"{file.path} has format {metadata['format']} (this diskreplay reads format {FORMAT}): "
            "install a version of diskreplay that knows it"
        )
    expected: tuple[tuple[str, Any], ...] = (("kind", str), ("capacity", int), ("settings", dict))
    for name, type_ in expected:
        if type(metadata.get(name)) is not type_:
            raise click.ClickException(f"{file.path} is damaged: it has no usable {name}")
    if metadata["kind"] not in ("uniform", "prioritized") or metadata["capacity"] < 1:
        raise click.ClickException(f"{file.path} is damaged: it has no usable kind and capacity")
    return metadata


def map_columns(
    file: TableFile, pairs: Sequence[str], dropped: Sequence[str]
) -> tuple[dict[str, Column], dict[str, np.dtype[Any]]]:
    """Return columns by the names of the fields that they become, `priority` among them.

    Then the dtypes that were asked for, by field.
    """
    there = file.columns
    fields: dict[str, Column] = {}
    dtypes: dict[str, np.dtype[Any]] = {}
    for pair in pairs:
        field, equals, chosen = (part.strip() for part in pair.partition("="))
        if not (field and equals and chosen):
            raise click.BadParameter(
                f"expected FIELD=COLUMN (found {pair!r})", param_hint="--field"
            )
        name, colon, dtype = chosen.rpartition(":")
        if colon and chosen not in there:
            chosen, dtypes[field] = name, _dtype(field, dtype)
        if field in fields:
            raise click.BadParameter(f"{field!r} is given twice", param_hint="--field")
        fields[field] = _column(file, chosen, "--field")
    named = {column.name for column in fields.values()}
    named |= {_column(file, name, "--drop").name for name in dropped}
    for name, column in there.items():
        if name in named or name == WRITE_ID:
            continue
        if name in fields:
            raise click.ClickException(
                f"{file.path} has a column {name!r}, and {fields[name].name!r} is to be that "
                f"field: leave one out with --drop {name}"
            )
        fields[name] = column
    is_empty = not any(column.rows for column in there.values())
    if is_empty and file.metadata is not None and fields.keys() <= {PRIORITY}:
        return fields, {}  # of a store that nothing was ever pushed to
    for name in missing_in(fields):
        more = (
            "; where it has none, save the observation that follows each one as a column"
            if name == "next_state"
            else ""
        )
        raise click.ClickException(
            f"{file.path} has no column {name!r} (found {_listed(there)}): name it with "
            f"--field {name}=COLUMN{more}"
        )
    for name, column in fields.items():
        _check_field(file, name, column)
    _check_lengths(file, fields)
    return fields, dtypes


def _dtype(name: str, word: str) -> np.dtype[Any]:
    try:
        return diskreplay.Field(name, word).dtype
    except diskreplay.SchemaError as error:
        raise click.BadParameter(str(error), param_hint="--field") from None


def _column(file: TableFile, name: str, option: str) -> Column:
    if name not in file.columns:
        raise click.BadParameter(
            f"{file.path} has no column {name!r} (found {_listed(file.columns)})",
            param_hint=option,
        )
    return file.columns[name]


def _listed(names: Sequence[str] | Mapping[str, Any]) -> str:
    shown = list(names)[:20]
    return ", ".join(shown) + ", ..." * (len(names) > len(shown)) if names else "no column"


def _check_field(file: TableFile, name: str, column: Column) -> None:
    where = f"{file.path}, column {column.name!r}"
    way_out = f"leave it out with --drop {column.name}"
    if column.fault:
        raise click.ClickException(f"{where}: {column.fault}, or {way_out}")
    if name == PRIORITY:
        if column.shape or column.dtype.kind not in "iuf":
            raise click.ClickException(
                f"{where}: expected a number a row as priorities (found {column.type}), "
                f"or {way_out}"
            )
        return
    try:
        diskreplay.Field(name, column.dtype, column.shape)
    except diskreplay.SchemaError as error:
        rename = f"--field NAME={column.name}"
        raise click.ClickException(
            f"{where}: {error}: name a field for it with {rename}, or {way_out}"
        ) from None


def _check_lengths(file: TableFile, fields: Mapping[str, Column]) -> None:
    lengths = {column.name: column.rows for column in fields.values()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name} {n}" for name, n in list(lengths.items())[:20])
        raise click.ClickException(
            f"the columns of {file.path} have different lengths ({told}): a transition is a row "
            "of all of them; leave one out with --drop COLUMN"
        )
    row_bytes = sum(column.row_bytes for column in fields.values())
    check_row(file.path, row_bytes)
    if any(lengths.values()) and not row_bytes:
        raise click.ClickException(f"the rows of {file.path} hold nothing: all have 0 bytes")


def schema_of(
    file: TableFile, fields: Mapping[str, Column], dtypes: Mapping[str, np.dtype[Any]]
) -> diskreplay.Schema | None:
    """Return the types of an export, or those that `push` would infer from any other file."""
    columns = {name: column for name, column in fields.items() if name != PRIORITY}
    if not columns:
        return None
    given = {}
    for name, column in columns.items():
        if name in dtypes or file.metadata is not None or column.varies:
            given[name] = diskreplay.Field(name, dtypes.get(name, column.dtype), column.shape)
        elif name in NUMBERS:
            # Many files have a table of one column; an environment gives plain numbers.
            shape = () if math.prod(column.shape) == 1 else column.shape
            given[name] = diskreplay.Field(name, np.float32, shape)
    empty = {n: np.zeros(0 if c.varies else (0, *c.shape), c.dtype) for n, c in columns.items()}
    try:
        return infer_fields(empty, given, lead=1)
    except diskreplay.SchemaError as error:
        raise click.ClickException(
            f"{file.path}: {error}: name fields with --field NAME=COLUMN, or leave columns out "
            "with --drop COLUMN"
        ) from None


def as_exported(
    file: TableFile, schema: diskreplay.Schema, metadata: Mapping[str, Any]
) -> diskreplay.Schema:
    """Return a schema whose fields are kept where those of the exported store were."""
    plain = metadata.get("schema")
    if plain is None:
        return schema
    try:
        exported = {field.name: field for field in diskreplay.Schema.from_plain(plain).fields}
    except diskreplay.SchemaError as error:
        raise click.ClickException(f"{file.path} is damaged: {error}") from None
    kept = [exported.get(field.name, field) for field in schema.fields]
    pairs = zip(schema.fields, kept, strict=True)
    return diskreplay.Schema(old if old.type == field.type else field for field, old in pairs)
