"""The command that runs the benchmarks of the goals and prints their table."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path

import click

from bench.driver import OWN, Measured, Pythons, measure
from bench.goals import GROUPS, MIB, TINY, Size
from bench.machine import about, load
from bench.options import out_of, shared, stop_if_failed, tell
from bench.report import page, table, write_into

WARM_UP = 2  # rounds


@click.command()
@shared("against", "peers", "place", "out", "tiny")
@click.option(
    "--only",
    callback=out_of(tuple(GROUPS)),
    default=",".join(GROUPS),
    show_default=True,
    help="Groups of rows, with commas between them.",
)
@click.option("--rounds", type=click.IntRange(1), default=30, show_default=True, help="Of each.")
@click.option(
    "--limit",
    type=click.IntRange(64),
    default=256,
    show_default=True,
    help="MiB of memory for what is larger than memory; the store is four times that.",
)
@click.option(
    "--write",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Replace the table in this page.",
)
def run(
    against: list[str],
    peers: Path,
    place: Path | None,
    out: Path | None,
    tiny: bool,
    only: list[str],
    rounds: int,
    limit: int,
    write: Path | None,
) -> None:
    """Run the rows of the goals, ours and theirs in turns, and print a table.

    The exit status is 1 when something of ours failed. Example: python -m bench run --only step
    """
    size = TINY if tiny else Size(limit_bytes=limit * MIB)
    pythons = Pythons(peers)
    began, load_before = time.monotonic(), load()
    groups: dict[str, dict[str, Measured]] = {}
    lines: list[str] = []
    for name in only:
        tell(f"{name}, after {time.monotonic() - began:.0f} s")
        with tempfile.TemporaryDirectory(prefix="diskreplay-bench-", dir=place) as stores:
            group = GROUPS[name](size, Path(stores))
            legs = {
                leg: what for leg, what in group.legs.items() if what.system in (*OWN, *against)
            }
            groups[name] = measure(legs, pythons, rounds, WARM_UP, tell)
        for row in group.rows:
            if {row.ours.leg, (row.theirs or row.ours).leg} <= legs.keys():
                lines += table([row], groups[name])
                tell(lines[-1])
    facts = about(pythons, ["diskreplay", *against], began, load_before)
    if tiny:
        tell("This was a tiny size of everything: its figures say that it runs, and nothing else.")
    text = page(lines, facts)
    click.echo(text)
    if out is not None:
        figures = {
            name: {leg: found.as_json() for leg, found in legs.items()}
            for name, legs in groups.items()
        }
        out.write_text(json.dumps({**facts, "groups": figures}) + "\n")
    if write is not None:
        try:
            write_into(write, text)
        except ValueError as error:
            raise click.ClickException(str(error)) from error
    stop_if_failed(leg for legs in groups.values() for leg in legs.values())
