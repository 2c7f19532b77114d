"""The commands: install, run, curve, plot, endure."""

from __future__ import annotations

import datetime
import json
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import click

from bench import machine
from bench.driver import OWN, PEERS, Measured, Pythons, measure
from bench.goals import GROUPS, MIB, TINY, Size
from bench.install import install
from bench.report import page, table, write_into

HERE = Path(__file__).parent
WARM_UP = 2


Callback = Callable[[click.Context, click.Parameter, str], list[str]]


def out_of(known: Sequence[str]) -> Callback:
    """Return what takes apart an option of names with commas between them."""

    def names(_: click.Context, __: click.Parameter, value: str) -> list[str]:
        given = value.split(",")
        for name in given:
            if name not in known:
                raise click.BadParameter(f"{name!r} is none of {', '.join(known)}")
        return [name for name in known if name in given]

    return names


Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def shared(*names: str) -> Decorator:
    """Return a decorator that gives a command the options of these names."""
    options: dict[str, Decorator] = {
        "against": click.option(
            "--against", callback=out_of(PEERS), default=",".join(PEERS), show_default=True,
            help="Peers, with commas between them.",
        ),
        "peers": click.option(
            "--peers", type=click.Path(path_type=Path), default=HERE / ".peers",
            help="Where their virtual environments are.", show_default=".peers beside this tool",
        ),
        "place": click.option(
            "--place", type=click.Path(path_type=Path, file_okay=False, exists=True),
            help="Where stores are made for the time of it; the temporary directory by default.",
        ),
        "out": click.option(
            "--out", type=click.Path(path_type=Path, dir_okay=False),
            help="Write everything that was measured into this file, as JSON.",
        ),
        "tiny": click.option(
            "--tiny", is_flag=True, help="A small size of everything, to see that it works.",
        ),
    }  # fmt: skip

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for name in reversed(names):
            command = options[name](command)
        return command

    return decorate


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Measure diskreplay against other replay buffers.

    Example: python -m bench install cpprb sb3 && python -m bench run --against cpprb,sb3
    """


main.add_command(install)


@main.command()
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
    began = time.monotonic()
    groups: dict[str, dict[str, Measured]] = {}
    lines: list[str] = []
    for name in only:
        click.echo(f"{name}", err=True)
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
    facts = about(pythons, ["diskreplay", *against], began)
    text = page(lines, facts)
    click.echo(text)
    if out is not None:
        save(
            out,
            {
                **facts,
                "groups": {
                    name: {leg: found.as_json() for leg, found in legs.items()}
                    for name, legs in groups.items()
                },
            },
        )
    if write is not None:
        try:
            write_into(write, text)
        except ValueError as error:
            raise click.ClickException(str(error)) from error
    stop_if_failed(leg for legs in groups.values() for leg in legs.values())


def tell(line: str) -> None:
    """Print how far it is; the table itself goes to stdout."""
    click.echo(line, err=True)


def about(pythons: Pythons, systems: list[str], began: float) -> dict[str, Any]:
    """Return what has to be known to judge figures, and to measure them again."""
    return {
        "command": shlex.join(["python", "-m", "bench", *sys.argv[1:]]),
        "date": datetime.date.today().isoformat(),
        "minutes": (time.monotonic() - began) / 60,
        "machine": machine.facts(),
        "versions": {name: pythons.versions(name) for name in systems if pythons.has(name)},
    }


def save(file: Path, facts: dict[str, Any]) -> None:
    """Write a file of JSON."""
    file.write_text(json.dumps(facts, indent=1) + "\n")


def stop_if_failed(measured: Iterable[Measured]) -> None:
    """End with status 1 when something of ours has no figures, though it could have some."""
    failed = [one for one in measured if one.leg.system in OWN and one.missing]
    if failed and not all(one.leg.limit_bytes for one in failed):
        raise click.ClickException(failed[0].missing)
