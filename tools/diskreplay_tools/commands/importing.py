"""The command `import`: the columns of a file become the fields of a new store."""

from __future__ import annotations

import contextlib
import json
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import click
import numpy as np

import diskreplay
from diskreplay.buffer import warn_of_disk
from diskreplay.maintenance import StoreBuilder
from diskreplay.sampling import PrioritySettings, checked_priorities, new_seed
from diskreplay.schema import infer_schema
from diskreplay.store import Identity, RunSettings, State, beside, real_path
from diskreplay.validation import checked_capacity
from diskreplay.wording import count_of
from diskreplay_tools.commands.arguments import force_option, out_argument
from diskreplay_tools.files import (
    FORMAT,
    STANDARD,
    Column,
    Source,
    check_row,
    new_store,
    open_source,
    rows_in_chunk,
)
from diskreplay_tools.plain import number_of
from diskreplay_tools.terminal import progress, tell

_PRIORITY, _WRITE_ID = "priority", "write_id"
_NUMBERS = ("reward", "done")


@click.command("import")
@click.argument(
    "source", metavar="IN", type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@out_argument("path")
@click.option(
    "--capacity",
    type=click.IntRange(1),
    help="Of the store; by default what the file says, or its number of rows.",
)
@click.option(
    "--kind",
    type=click.Choice(["uniform", "prioritized"]),
    help="By default what the file says, or prioritized where it has priorities.",
)
@click.option(
    "--field",
    "pairs",
    multiple=True,
    metavar="FIELD=COLUMN[:DTYPE]",
    help="Which column a field is, as state=observations or state=observations:float64; again for "
    "more.",
)
@click.option(
    "--drop", "dropped", multiple=True, metavar="COLUMN", help="Leave a column out; again for more."
)
@force_option
def import_(
    source: Path,
    path: Path,
    capacity: int | None,
    kind: str | None,
    pairs: tuple[str, ...],
    dropped: tuple[str, ...],
    force: bool,
) -> None:
    """Make a store of the transitions in an npz or parquet file.

    What export wrote gets the transitions, priorities, kind, capacity and settings that it had;
    write ids begin at 0, and annealing and random stream begin anew. Of any other
    file, columns with the names of the fields are these fields, --field names others, a column
    `priority` is the priorities, and the rest become extra fields. They get the types that push
    would give them: floats, rewards and dones float32, whole-number actions int64; a DTYPE keeps
    another one. Of more rows than the capacity the last are kept.

    Example: diskreplay import walks.npz runs/b --field state=observations
    """
    if real_path(path) in real_path(source).parents:
        raise click.UsageError(f"{source} is inside of {path}: give a new directory")
    with open_source(source) as found, new_store(path, force=force) as place:
        says = _checked(found)
        fields, dtypes = mapped(found, pairs, dropped)
        has_priorities = _PRIORITY in fields
        kind = kind or says.get("kind") or ("prioritized" if has_priorities else "uniform")
        if kind == "uniform" and fields.pop(_PRIORITY, None):
            tell("the priorities are left out: a uniform buffer has none", err=True)
        rows = next(iter(fields.values())).rows if fields else 0
        capacity = capacity or says.get("capacity") or max(1, rows)
        schema = _schema(found, fields, dtypes)
        size = min(rows, capacity) if schema is not None else 0
        identity = Identity(kind, checked_capacity(capacity), str(uuid4()))
        state = _state(says, kind, size)
        with beside(place) as hidden, progress("import") as show:
            if schema is not None:
                _tell_of_disk(schema, identity, hidden.parent, path)
            with StoreBuilder(hidden, identity, state, schema, show) as builder:
                if schema is not None:
                    _fill(builder, found, fields, schema)
                builder.finish()
    if rows > size:
        tell(
            f"left out the first {count_of(rows - size, 'row')}: the capacity is {capacity:,}",
            err=True,
        )
    tell(f"{path}: {count_of(size, 'transition')} of {source}, {kind}, capacity {capacity:,}")


def _checked(found: Source) -> dict[str, Any]:
    """Return what an export says of its store, {} for any other file."""
    if found.metadata is None:
        return {}
    says: Any = None
    with contextlib.suppress(ValueError, RecursionError):
        says = json.loads(found.metadata)
    if not isinstance(says, dict) or type(says.get("format")) is not int:
        raise click.ClickException(
            f"{found.path} is damaged: what it says of its store is no object with a format"
        )
    if says["format"] != FORMAT:
        raise click.ClickException(
            f"{found.path} has format {says['format']} (this diskreplay reads format {FORMAT}): "
            "install a version of diskreplay that knows it"
        )
    expected: tuple[tuple[str, Any], ...] = (("kind", str), ("capacity", int), ("settings", dict))
    for name, type_ in expected:
        if type(says.get(name)) is not type_:
            raise click.ClickException(f"{found.path} is damaged: it has no usable {name}")
    if says["kind"] not in ("uniform", "prioritized") or says["capacity"] < 1:
        raise click.ClickException(f"{found.path} is damaged: it has no usable kind and capacity")
    return says


def _state(says: Mapping[str, Any], kind: str, rows: int) -> State:
    """Return the state of a store, with settings and largest priority of the exported one."""
    given = {name: number_of(value) for name, value in says.get("settings", {}).items()}
    settings = RunSettings.of(given).to_plain()
    if kind == "prioritized":
        settings |= PrioritySettings.of(given).to_plain()
    largest = number_of(says.get("max_priority"))
    most = float(np.finfo(np.float32).max)
    if not rows or type(largest) is not float or not 0 <= largest <= most:
        largest = None
    return State(seed=new_seed(), settings=settings, count=rows, max_priority=largest)


def mapped(
    found: Source, pairs: Sequence[str], dropped: Sequence[str]
) -> tuple[dict[str, Column], dict[str, np.dtype[Any]]]:
    """Return columns by the names of the fields that they become, `priority` among them.

    Then the dtypes that were asked for, by field.
    """
    there = found.columns
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
        fields[field] = _column(found, chosen, "--field")
    named = {column.name for column in fields.values()}
    named |= {_column(found, name, "--drop").name for name in dropped}
    for name, column in there.items():
        if name in named or name == _WRITE_ID:
            continue
        if name in fields:
            raise click.ClickException(
                f"{found.path} has a column {name!r}, and {fields[name].name!r} is to be that "
                f"field: leave one out with --drop {name}"
            )
        fields[name] = column
    standard = {name: fields[name] for name in STANDARD if name in fields}
    is_empty = not any(column.rows for column in there.values())
    if is_empty and found.metadata is not None and fields.keys() <= {_PRIORITY}:
        return fields, {}  # of a store that nothing was ever pushed to
    for name in STANDARD:
        if name not in fields:
            more = (
                "; where it has none, save the observation that follows each one as a column"
                if name == "next_state"
                else ""
            )
            raise click.ClickException(
                f"{found.path} has no column {name!r} (found {_listed(there)}): name it with "
                f"--field {name}=COLUMN{more}"
            )
    for name, column in fields.items():
        _check_field(found, name, column)
    _check_lengths(found, fields)
    return {**standard, **fields}, dtypes


def _dtype(name: str, word: str) -> np.dtype[Any]:
    try:
        return diskreplay.Field(name, word).dtype
    except diskreplay.SchemaError as error:
        raise click.BadParameter(str(error), param_hint="--field") from None


def _column(found: Source, name: str, option: str) -> Column:
    if name not in found.columns:
        raise click.BadParameter(
            f"{found.path} has no column {name!r} (found {_listed(found.columns)})",
            param_hint=option,
        )
    return found.columns[name]


def _listed(names: Sequence[str] | Mapping[str, Any]) -> str:
    shown = list(names)[:20]
    return ", ".join(shown) + ", ..." * (len(names) > len(shown)) if names else "no column"


def _check_field(found: Source, name: str, column: Column) -> None:
    where = f"{found.path}, column {column.name!r}"
    way_out = f"leave it out with --drop {column.name}"
    if column.fault:
        raise click.ClickException(f"{where}: {column.fault}, or {way_out}")
    if name == _PRIORITY:
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


def _check_lengths(found: Source, fields: Mapping[str, Column]) -> None:
    lengths = {column.name: column.rows for column in fields.values()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name} {n}" for name, n in list(lengths.items())[:20])
        raise click.ClickException(
            f"the columns of {found.path} have different lengths ({told}): a transition is a row "
            "of all of them; leave one out with --drop COLUMN"
        )
    row_bytes = sum(column.row_bytes for column in fields.values())
    check_row(found.path, row_bytes)
    if any(lengths.values()) and not row_bytes:
        raise click.ClickException(f"the rows of {found.path} hold nothing: all have 0 bytes")


def _schema(
    found: Source, fields: Mapping[str, Column], dtypes: Mapping[str, np.dtype[Any]]
) -> diskreplay.Schema | None:
    """Return the types of an export, or those that `push` would infer from any other file."""
    columns = {name: column for name, column in fields.items() if name != _PRIORITY}
    if not columns:
        return None
    given = {}
    for name, column in columns.items():
        if name in dtypes or found.metadata is not None:
            given[name] = diskreplay.Field(name, dtypes.get(name, column.dtype), column.shape)
        elif name in _NUMBERS:
            # Many files have a table of one column; an environment gives plain numbers.
            shape = () if math.prod(column.shape) == 1 else column.shape
            given[name] = diskreplay.Field(name, np.float32, shape)
    empty = {name: np.zeros((0, *c.shape), c.dtype) for name, c in columns.items()}
    return infer_schema(empty, given, lead=1)


def _tell_of_disk(
    schema: diskreplay.Schema, identity: Identity, directory: Path, path: Path
) -> None:
    """Warn when the disk of a directory has too little room for a full store."""
    needed = diskreplay.estimate(schema, identity.capacity, prioritized=identity.has_priorities)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        warn_of_disk(needed, directory, 0)
    for warning in told:
        tell(f"warning: {str(warning.message).replace(str(directory), str(path))}", err=True)


def _fill(
    builder: StoreBuilder,
    found: Source,
    fields: Mapping[str, Column],
    schema: diskreplay.Schema,
) -> None:
    """Append the last rows, as many as there is room for."""
    columns = list(fields.values())
    rows = columns[0].rows
    at = skip = rows - builder.live.size
    for table in found.tables(columns, skip, rows_in_chunk(columns)) if rows else ():
        values = {name: table[column.name] for name, column in fields.items()}
        n = len(values["state"])
        for name in _NUMBERS:
            if not schema[name].shape:
                values[name] = values[name].reshape(n)
        priorities = None
        try:
            if builder.identity.has_priorities:
                priorities = checked_priorities(values.pop(_PRIORITY, np.ones(n)), n)
            standard = [values.pop(name) for name in STANDARD]
            accepted = schema.accept_columns(standard, values)
        except (diskreplay.SchemaError, diskreplay.PriorityError) as error:
            told = str(error).replace("schema= can", "--field FIELD=COLUMN:DTYPE can")
            raise click.ClickException(
                f"{found.path}, rows {at:,} to {at + n - 1:,}: {told}"
            ) from None
        builder.append_rows(at - skip, accepted, priorities)
        at += n
    if at < rows:
        raise click.ClickException(
            f"{found.path} is damaged: it ends after {at:,} rows (expected {rows:,})"
        )
