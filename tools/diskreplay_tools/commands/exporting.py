"""The command `export`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import click

import diskreplay
from diskreplay.buffer import Scan, live_write_ids
from diskreplay.wording import count_of, human
from diskreplay_tools.commands.arguments import force_option, out_argument, store_argument
from diskreplay_tools.episodes import EPISODE_COLUMNS, EpisodeNumbers
from diskreplay_tools.extras import pyarrow
from diskreplay_tools.files import (
    LINK,
    WRITERS,
    Column,
    columns_of,
    conditions_of,
    metadata_of,
    new_file,
    range_option,
    refuse_existing,
    selected,
    span_of,
    where_option,
)
from diskreplay_tools.terminal import progress, tell


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
@click.option(
    "--episodes",
    is_flag=True,
    help="Also write the columns episode, the write id of its first transition, and step.",
)
@force_option
def export(
    path: Path,
    out: Path,
    form: str | None,
    conditions: tuple[str, ...],
    span: str | None,
    episodes: bool,
    force: bool,
) -> None:
    """Write transitions to an npz, parquet or jsonl file.

    Columns are write_id, link (the distance back to the transition before it in its episode),
    state, action, reward, next_state, done, further fields, and priority where there are
    priorities. npz and parquet files also say what import needs to make the same store again.
    Memory is bounded, and a writer may go on meanwhile: transitions that it evicts before they are
    read are left out, and counted.

    Example: diskreplay export runs/a good.parquet --where "reward>=1"
    """
    form = form or _form_of(out)
    refuse_existing(out, force=force)
    if form == "parquet":
        pyarrow()
    with diskreplay.open(path, access="read", window_bytes=0) as buffer:
        has_links = buffer.schema is None or LINK not in buffer.schema.names
        columns = columns_of(buffer, EPISODE_COLUMNS if episodes else (), links=has_links)
        names = [column.name for column in columns]
        if doubled := [name for name in names if names.count(name) > 1]:
            of, way_out = "every export", "it cannot be exported"
            if doubled[0] != "write_id":
                of, way_out = "an export with --episodes", "leave --episodes away"
            raise click.ClickException(
                f"{path} has a field {doubled[0]!r}, which is a column of {of}: {way_out}"
            )
        _check_sizes(columns, form)
        checked = conditions_of(conditions, columns, EPISODE_COLUMNS)
        live = live_write_ids(buffer)
        first, count = live.start, live.stop
        begin, end = span_of(span, first, count)
        is_prioritized = isinstance(buffer, diskreplay.PrioritizedReplayBuffer)
        # Of all that is live: an episode may begin before the range.
        numbers = EpisodeNumbers(buffer, live) if episodes else None
        rows = Scan(buffer, range(begin, end), priorities=is_prioritized, links=has_links)
        metadata = metadata_of(buffer, episodes=episodes, links=has_links)
        written = 0
        with new_file(out, force=force) as place, progress("export") as show:
            with WRITERS[form](place, columns, metadata) as write:
                for write_ids, values in rows:
                    numbered = {} if numbers is None else numbers.columns(write_ids)
                    table = {"write_id": write_ids, **numbered, **values}
                    mask = selected(checked, table, write_ids.size)
                    if not mask.all():
                        table = {name: column[mask] for name, column in table.items()}
                    if mask.any():
                        write(table)
                    written += int(mask.sum())
                    show(rows.done, rows.total)
            size = os.stat(place).st_size
    if begin == end and count > first:
        tell(f"the range is empty: live are the write ids {first:,} to {count - 1:,}", err=True)
    if not has_links:
        told = f"left out the links of transitions: their column {LINK!r} has the name of a field"
        tell(told, err=True)
    if rows.evicted:
        told = f"left out {count_of(rows.evicted, 'transition')}, evicted before they were read"
        tell(told, err=True)
    tell(f"{out}: {count_of(written, 'transition')} of {path}, {human(size)}")


def _check_sizes(columns: Sequence[Column], form: str) -> None:
    """Raise ClickException for values that vary in size in a way that a format does not have."""
    for column in columns:
        if column.varies and form == "npz":
            raise click.ClickException(
                f"the values of {column.name!r} vary in size, and npz has columns of one shape: "
                "export them as parquet or jsonl"
            )
        is_told = column.shape.count(None) < 2 and 0 not in column.shape
        if column.varies and form == "parquet" and not is_told:
            raise click.ClickException(
                f"{column.name!r} is {column.type}, and a list in parquet tells one length that "
                "varies: export it as jsonl"
            )


def _form_of(out: Path) -> str:
    form = out.suffix.lower().lstrip(".")
    if form not in WRITERS:
        raise click.UsageError(
            f"the name {str(out)!r} does not say its format: end it with "
            f"{', '.join(f'.{name}' for name in WRITERS)}, or give --format"
        )
    return form
