"""The command that runs the benchmarks of the goals and prints their table."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click

from bench.driver import OWN, Measured, Pythons, measure
from bench.goals import GROUPS, MIB, TINY, Group, Size
from bench.machine import about, load
from bench.options import only_of, shared, stop_if_failed, tell
from bench.report import page, table, write_into

WARM_UP = 2  # rounds

Groups = dict[str, dict[str, Measured]]


def run_groups(
    groups: Mapping[str, Callable[[Path], Group]],
    pythons: Pythons,
    against: Sequence[str],
    rounds: int,
    place: Path | None,
) -> tuple[Groups, list[str]]:
    """Run groups, each with a directory of its own, and return the figures and the table."""
    began = time.monotonic()
    found: Groups = {}
    lines: list[str] = []
    for name, make in groups.items():
        tell(f"{name}, after {time.monotonic() - began:.0f} s")
        with tempfile.TemporaryDirectory(prefix="diskreplay-bench-", dir=place) as stores:
            group = make(Path(stores))
            legs = {
                leg: what for leg, what in group.legs.items() if what.system in (*OWN, *against)
            }
            found[name] = measure(legs, pythons, rounds, WARM_UP, tell)
        for row in group.rows:
            if {row.ours.leg, (row.theirs or row.ours).leg} <= legs.keys():
                lines += table([row], found[name])
                tell(lines[-1])
    return found, lines


def write_figures(out: Path | None, facts: dict[str, Any], groups: Groups) -> None:
    """Write everything that was measured into a file, if there is one."""
    if out is not None:
        figures = {
            name: {leg: found.as_json() for leg, found in legs.items()}
            for name, legs in groups.items()
        }
        out.write_text(json.dumps({**facts, "groups": figures}) + "\n")


@click.command()
@shared("against", "peers", "place", "out", "tiny")
@only_of(tuple(GROUPS))
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
    chosen = {name: partial(GROUPS[name], size) for name in only}
    groups, lines = run_groups(chosen, pythons, against, rounds, place)
    facts = about(pythons, ["diskreplay", *against], began, load_before)
    if tiny:
        tell("This was a tiny size of everything: its figures say that it runs, and nothing else.")
    text = page(lines, facts)
    click.echo(text)
    write_figures(out, facts, groups)
    if write is not None:
        try:
            write_into(write, text)
        except ValueError as error:
            raise click.ClickException(str(error)) from error
    stop_if_failed(leg for legs in groups.values() for leg in legs.values())
