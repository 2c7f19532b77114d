"""The command `verify`."""

from __future__ import annotations

import json
from pathlib import Path

import click
import numpy as np

import diskreplay
from diskreplay.buffer import Scan
from diskreplay.wording import count_of
from diskreplay_tools.commands.arguments import json_option
from diskreplay_tools.terminal import progress, tell


@click.command()
@click.argument(
    "paths",
    nargs=-1,
    required=True,
    metavar="PATH...",
    type=click.Path(path_type=Path),  # the others are verified where one is not there
)
@click.option("--deep", is_flag=True, help="Also look at what a buffer makes of it.")
@json_option
@click.pass_context
def verify(context: click.Context, paths: tuple[Path, ...], deep: bool, as_json: bool) -> None:
    """Check each page and checksum of stores, and list the faults.

    All faults are told, one a line below the path, and the exit status is 1 when there are any, or
    a store cannot be looked at, and 2 when a path is no directory. Nothing is changed, and writers
    may go on meanwhile. With --deep a store is also opened for reading: the tree of priorities is
    compared with them, and every value with what its field may hold. With --json there is a line
    for each store.

    Example: diskreplay verify --deep runs/a runs/b
    """
    is_sound = True
    there = click.Path(exists=True, file_okay=False)
    absent: list[click.UsageError] = []
    for path in paths:
        try:
            there.convert(path, None, context)
        except click.UsageError as error:
            absent.append(error)
            continue
        try:
            with progress("verify", "records") as show:
                faults = diskreplay.verify(path, progress=show)
            if deep and not faults:
                faults = look_deeper(path)
        except diskreplay.DiskReplayError as error:
            if len(paths) == 1:
                raise
            tell(f"Error: {error}", err=True)
            is_sound = False
            continue
        is_sound = is_sound and not faults
        if as_json:
            click.echo(json.dumps({"path": str(path), "deep": deep, "faults": faults}))
            continue
        tell(f"{path}: {count_of(len(faults), 'fault') if faults else 'sound'}")
        for fault in faults:
            tell(f"  {fault}")
    for one in absent[:-1]:
        tell(f"Error: {one.format_message()}", err=True)
    if absent:
        raise absent[-1]
    if not is_sound:
        context.exit(1)


def look_deeper(path: Path) -> list[str]:
    """Return what is wrong with a store whose bytes are what was written."""
    try:
        buffer = diskreplay.open(path, access="read", window_bytes=0)
    except diskreplay.DamageError as error:
        return [str(error)]
    faults: list[str] = []
    with buffer, progress("values") as show:
        try:
            buffer.check()
        except diskreplay.DamageError as error:
            faults.append(str(error))
        rows = Scan(buffer, fields=("reward", "done"))
        for write_ids, columns in rows:
            for what, good in (
                ("the reward of write id {} is not finite", np.isfinite(columns["reward"])),
                ("done of write id {} is not 0 or 1", np.isin(columns["done"], (0, 1))),
            ):
                wrong = write_ids[~good.reshape(write_ids.size, -1).all(axis=1)]
                faults += [what.format(n) for n in wrong.tolist()]
            show(rows.done, rows.total)
    return faults
