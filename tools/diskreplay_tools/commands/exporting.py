"""The command `export`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np

import diskreplay
from diskreplay.aliases import Ints
from diskreplay.wording import count_of, human
from diskreplay_tools.commands.arguments import force_option, out_argument, store_argument
from diskreplay_tools.extras import pyarrow
from diskreplay_tools.files import (
    WRITERS,
    Buffer,
    Table,
    columns_of,
    conditions_of,
    metadata_of,
    new_file,
    range_option,
    refuse_existing,
    rows_in_chunk,
    selected,
    span_of,
    where_option,
)
from diskreplay_tools.terminal import progress, tell

_MARGIN = 64  # write ids


@click.command()
@store_argument
@out_argument()
@click.option(
    "--format",
    "form",
    type=click.Choice(list(WRITERS)),
    help="Of OUT; by default what its suffix says.",
)
@where_option
@range_option
@force_option
def export(
    path: Path,
    out: Path,
    form: str | None,
    conditions: tuple[str, ...],
    span: str | None,
    force: bool,
) -> None:
    """Write transitions to an npz, parquet or jsonl file.

    Columns are write_id, state, action, reward, next_state, done, further fields, and
    priority where there are priorities. npz and parquet files also say what import needs to make
    the same store again. Memory is bounded, and a writer may go on meanwhile: transitions that it
    evicts before they are read are left out, and counted.

    Example: diskreplay export runs/a good.parquet --where "reward>=1"
    """
    form = form or _form_of(out)
    refuse_existing(out, force=force)
    if form == "parquet":
        pyarrow()
    with diskreplay.open(path, access="read", window_bytes=0) as buffer:
        source = Source(buffer)
        columns = columns_of(buffer)
        names = [column.name for column in columns]
        if len(set(names)) < len(names):
            raise click.ClickException(
                f"{path} has a field 'write_id', which is a column of every export: it cannot be "
                "exported"
            )
        checked = conditions_of(conditions, columns)
        begin, end = span_of(span, source.first, source.count)
        step = rows_in_chunk(columns)
        rows = 0
        with new_file(out, force=force) as place, progress("export") as show:
            with WRITERS[form](place, columns, metadata_of(buffer)) as write:
                for at, table in source.tables(begin, end, step):
                    mask = selected(checked, table, len(table["write_id"]))
                    if not mask.all():
                        table = {name: values[mask] for name, values in table.items()}
                    n = len(table["write_id"])
                    if n:
                        write(table)
                    rows += n
                    show(at - begin, end - begin)
            size = os.stat(place).st_size
    if begin == end and source.count > source.first:
        tell(
            f"the range is empty: live are the write ids {source.first:,} to {source.count - 1:,}",
            err=True,
        )
    if source.evicted:
        tell(
            f"left out {count_of(source.evicted, 'transition')}, evicted before they were read",
            err=True,
        )
    tell(f"{out}: {count_of(rows, 'transition')} of {path}, {human(size)}")


def _form_of(out: Path) -> str:
    form = out.suffix.lower().lstrip(".")
    if form not in WRITERS:
        raise click.UsageError(
            f"the name {str(out)!r} does not say its format: end it with "
            f"{', '.join(f'.{name}' for name in WRITERS)}, or give --format"
        )
    return form


class Source:
    """What is read of a buffer that somebody may be writing to.

    No call stays in the store for longer than a chunk takes, so that a writer can use the pages
    again that it frees.
    """

    def __init__(self, buffer: Buffer) -> None:
        self._buffer = buffer
        self.evicted = 0
        self.first, self.count = self._live()

    def tables(self, begin: int, end: int, step: int) -> Iterator[tuple[int, Table]]:
        """Yield the rows of live write ids, some at a time, each with where it is after them."""
        for at in range(begin, end, step):
            upto = min(at + step, end)
            table = self._table(np.arange(max(at, self.first), upto))
            self.evicted += upto - at - (len(table["write_id"]) if table else 0)
            if table:
                yield upto, table

    def _table(self, ids: Ints) -> Table | None:
        margin = 0
        while ids.size:
            try:
                # What belongs to a write id never changes but for its priority, so that one call
                # after the other cannot give those of two transitions.
                priorities = self._priorities(ids)
                schema = self._buffer.schema
                columns = self._buffer.get(ids, fields=schema.names) if schema else {}
            except diskreplay.NotLiveError:
                self.first, _ = self._live()
                ids = ids[ids >= self.first + margin]
                margin = 2 * margin or _MARGIN  # a writer that is faster is given way
            else:
                return {"write_id": ids, **columns, **priorities}
        return None

    def _priorities(self, ids: Ints) -> Table:
        if isinstance(self._buffer, diskreplay.PrioritizedReplayBuffer):
            return {"priority": self._buffer.priorities(ids)}
        return {}

    def _live(self) -> tuple[int, int]:
        stats = self._buffer.stats()  # both of one commit
        return stats["count"] - stats["size"], stats["count"]
