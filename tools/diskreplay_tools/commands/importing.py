"""The command `import`: the columns of a file become the fields of a new store."""

from __future__ import annotations

import os
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
from diskreplay.schema import STANDARD_FIELDS, LogOptions
from diskreplay.store import Identity, RunSettings, State, beside, real_path
from diskreplay.validation import checked_capacity
from diskreplay.wording import count_of
from diskreplay_tools.commands.arguments import force_option, log_options, out_argument
from diskreplay_tools.commands.datasets import DATASETS, dataset_format, import_dataset
from diskreplay_tools.episodes import EPISODE_COLUMNS
from diskreplay_tools.files import (
    NUMBERS,
    PRIORITY,
    Column,
    ExportedLinks,
    FoundLinks,
    TableFile,
    as_exported,
    link_columns,
    map_columns,
    metadata_in,
    new_store,
    open_table,
    rows_in_chunk,
    schema_of,
)
from diskreplay_tools.plain import number_of
from diskreplay_tools.terminal import progress, tell


@click.command("import")
@click.argument("source", metavar="IN", type=click.Path(path_type=Path))
@out_argument("path")
@click.option(
    "--format",
    "form",
    type=click.Choice(DATASETS),
    help="Of a dataset; by default what IN is. Only an id of Minari needs it.",
)
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
@log_options
@force_option
def import_(
    source: Path,
    path: Path,
    form: str | None,
    capacity: int | None,
    kind: str | None,
    pairs: tuple[str, ...],
    dropped: tuple[str, ...],
    observations: str | None,
    frame_axis: int | None,
    codec: str | None,
    force: bool,
) -> None:
    """Make a store of a file of transitions, or of a dataset.

    IN is an npz or parquet file, an HDF5 file of d3rlpy or D4RL, a directory of LeRobot, or with
    --format minari the id of a dataset of Minari.

    What export wrote gets the transitions, episodes, priorities, kind, capacity and settings that
    it had; write ids begin at 0, and annealing and random stream begin anew. Rows of any other file
    are one stream, of which a column `truncated` ends episodes, as done does. There, columns with
    the names of the fields are these fields, --field names others, a column `priority` is the
    priorities, and the rest become extra fields. Parts of a nested field have names such as
    state.camera or state[0]. Fields get the types that push would give them: floats, rewards and
    dones float32, whole-number actions int64; a DTYPE keeps another one. States are kept as in the
    exported store, or in records, unless --observations, --frame-axis or --codec say otherwise. Of
    more rows than the capacity the last are kept.

    Example: diskreplay import walks.npz runs/b --field state=observations
    """
    if real_path(path) in real_path(source).parents:
        raise click.UsageError(f"{source} is inside of {path}: give a new directory")
    log = LogOptions.checked(observations, frame_axis, codec)
    if form != "minari" and not os.path.exists(source):  # that form takes an id
        raise click.BadParameter(
            f"Path {str(source)!r} does not exist; the id of a dataset of Minari needs "
            "--format minari",
            param_hint="'IN'",
        )
    if (form := form or dataset_format(source)) is not None:
        if pairs or dropped:
            raise click.UsageError(f"--field and --drop are for npz and parquet (found {form})")
        given = {name: value for name, value in log._asdict().items() if value is not None}
        import_dataset(
            form,
            source,
            path,
            kind=kind or "uniform",
            capacity=capacity,
            options=given,
            force=force,
        )
        return
    with open_table(source) as file, new_store(path, force=force) as place:
        metadata = metadata_in(file)
        if metadata.get("episodes") is True:  # they are no fields
            dropped = (*dropped, *(name for name in EPISODE_COLUMNS if name in file.columns))
        linked = link_columns(file, metadata, dropped)
        dropped = (*dropped, *(column.name for column in linked))
        fields, dtypes = map_columns(file, pairs, dropped)
        has_priorities = PRIORITY in fields
        kind = kind or metadata.get("kind") or ("prioritized" if has_priorities else "uniform")
        if kind == "uniform" and fields.pop(PRIORITY, None):
            tell("the priorities are left out: a uniform buffer has none", err=True)
        rows = next(iter(fields.values())).rows if fields else 0
        capacity = capacity or metadata.get("capacity") or max(1, rows)
        schema = schema_of(file, fields, dtypes)
        schema = schema and log.placed(as_exported(file, schema, metadata))
        size = min(rows, capacity) if schema is not None else 0
        links = None
        if schema is not None:
            links = ExportedLinks(file, size) if linked else FoundLinks(schema)
        identity = Identity(kind, checked_capacity(capacity), str(uuid4()))
        state = _state(metadata, kind, size)
        with beside(place) as hidden, progress("import") as show:
            if schema is not None and not schema.varying:  # how large those are is not known
                _tell_of_disk(schema, identity, hidden.parent, path)
            with StoreBuilder(hidden, identity, state, schema, show) as builder:
                if schema is not None and links is not None:
                    _fill(builder, file, fields, schema, links, linked)
                builder.finish()
    if links is not None and (told := links.told(size)):
        tell(told, err=True)
    if rows > size:
        tell(
            f"left out the first {count_of(rows - size, 'row')}: the capacity is {capacity:,}",
            err=True,
        )
    tell(f"{path}: {count_of(size, 'transition')} of {source}, {kind}, capacity {capacity:,}")


def _state(metadata: Mapping[str, Any], kind: str, rows: int) -> State:
    """Return the state of a store, with settings and largest priority of the exported one."""
    given = {name: number_of(value) for name, value in metadata.get("settings", {}).items()}
    settings = RunSettings.of(given).to_plain()
    if kind == "prioritized":
        settings |= PrioritySettings.of(given).to_plain()
    largest = number_of(metadata.get("max_priority"))
    most = float(np.finfo(np.float32).max)
    if not rows or type(largest) is not float or not 0 <= largest <= most:
        largest = None
    return State(seed=new_seed(), settings=settings, count=rows, max_priority=largest)


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
    file: TableFile,
    fields: Mapping[str, Column],
    schema: diskreplay.Schema,
    links: ExportedLinks | FoundLinks,
    linked: Sequence[Column],
) -> None:
    """Append the last rows, as many as there is room for.

    linked:  the columns that the links need beside those of the fields
    """
    columns = [*dict.fromkeys([*fields.values(), *linked])]
    rows = columns[0].rows
    skip = rows - builder.live.size
    at = skip - min(skip, links.rows_before)
    for table in file.tables(columns, at, rows_in_chunk(columns)) if rows else ():
        values = {name: table[column.name] for name, column in fields.items()}
        n = len(values["reward"])
        for name in values.keys() & {*NUMBERS, "truncated"}:
            if not schema[name].shape and values[name].size == n:
                values[name] = values[name].reshape(n)
        priorities = None
        try:
            if builder.identity.has_priorities:
                priorities = checked_priorities(values.pop(PRIORITY, np.ones(n)), n)
            nested = schema.nested([values[name] for name in schema.names])
            standard, others = nested[: len(STANDARD_FIELDS)], nested[len(STANDARD_FIELDS) :]
            extra = dict(zip(schema.extra_names, others, strict=True))
            accepted = schema.accept_columns(standard, extra)
        except (diskreplay.SchemaError, diskreplay.PriorityError) as error:
            told = str(error).replace("schema= can", "--field FIELD=COLUMN:DTYPE can")
            raise click.ClickException(
                f"{file.path}, rows {at:,} to {at + n - 1:,}: {told}"
            ) from None
        of_rows = links.of(at - skip, table, schema, accepted)
        early, first = max(0, skip - at), max(0, at - skip)
        if early < n:
            kept = None if priorities is None else priorities[early:]
            of_fields = [column[early:] for column in accepted]
            builder.append_rows(first, of_fields, kept, of_rows[early:])
        at += n
    if at < rows:
        raise click.ClickException(
            f"{file.path} is damaged: it ends after {at:,} rows (expected {rows:,})"
        )
