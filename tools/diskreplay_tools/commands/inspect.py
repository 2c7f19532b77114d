"""`diskreplay inspect` and `diskreplay schema`: what is in a store."""

from __future__ import annotations

import math
from pathlib import Path
from typing import cast

import click

import diskreplay
from diskreplay.wording import count_of
from diskreplay_tools.commands.arguments import json_option, store_argument
from diskreplay_tools.plain import json_lines
from diskreplay_tools.terminal import (
    WATCH_SECONDS,
    say,
    show_overview,
    show_transitions,
    watch,
)

_MOST = 1000  # transitions shown
_many = click.IntRange(1, _MOST)


class _Inspect(click.Command):
    """A command whose --watch may be followed by a number, or not."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse --watch with or without a number: click would take the next word for it."""
        args = [*args]
        for i, arg in enumerate(args):
            if arg == "--":
                break
            if arg.startswith("--watch=") and not _is_number(arg[8:]):
                raise click.BadParameter(f"{arg[8:]!r} is no number of seconds", ctx)
            if arg == "--watch" and not (i + 1 < len(args) and _is_number(args[i + 1])):
                args[i] = f"--watch={WATCH_SECONDS:g}"
        return super().parse_args(ctx, args)


def _is_number(text: str) -> bool:
    try:
        return not math.isnan(float(text))  # click's ranges have room for NaN
    except ValueError:
        return False


@click.command(cls=_Inspect)
@store_argument
@click.option("--top", type=_many, metavar="N", help="Show the N largest priorities.")
@click.option("--bottom", type=_many, metavar="N", help="Show the N smallest priorities.")
@click.option("--last", type=_many, metavar="N", help="Show the N newest transitions.")
@click.option("--at", type=click.IntRange(min=0), metavar="WRITE_ID", help="Show one transition.")
@click.option(
    "--watch",
    "again",
    type=click.FloatRange(min=0.1, max=86400),
    metavar="[SECONDS]",
    help=f"Look again and again, every {WATCH_SECONDS:g} seconds by default, until Ctrl-C.",
)
@json_option
def inspect(
    path: Path,
    top: int | None,
    bottom: int | None,
    last: int | None,
    at: int | None,
    again: float | None,
    as_json: bool,
) -> None:
    """Show what is in a store.

    Its size, what it takes of disk and memory, which runs wrote it, who has it open, its marks, the
    lengths and returns of its newest episodes, and how priorities, rewards and ages are
    distributed; or some transitions of it. It changes nothing, and works beside those that write.
    More than 1000 transitions: diskreplay export

    \b
    Example: diskreplay inspect runs/a
             diskreplay inspect runs/a --top 5
             diskreplay inspect runs/a --watch
    """
    given = {"--top": top, "--bottom": bottom, "--last": last, "--at": at, "--watch": again}
    asked = [name for name, value in given.items() if value is not None]
    if len(asked) > 1:
        raise click.UsageError(f"{asked[0]} and {asked[1]} are two views: ask for one of them")
    with diskreplay.open(path, access="read") as buffer:
        if again is not None:
            watch(buffer, click.format_filename(path), again, as_json=as_json)
        elif asked:
            show_transitions(buffer, path, asked[0], cast(int, given[asked[0]]), as_json=as_json)
        else:
            show_overview(buffer, path, as_json=as_json)


@click.command()
@store_argument
@json_option
def schema(path: Path, as_json: bool) -> None:
    """Show the fields of a store, as the constructors take them.

    What it prints can be pasted after schema= in a program, or given to diskreplay.estimate().

    Example: diskreplay schema runs/a
    """
    with diskreplay.open(path, access="read") as buffer:
        found = buffer.schema
        if found is None:
            raise click.ClickException(
                f"{path} has no schema yet: the first transition that is pushed fixes it"
            )
        capacity = buffer.capacity
    means = {f.name: 0 for f in found.fields if f.varies}  # they do not count here
    record_bytes = diskreplay.estimate(found, capacity, mean_bytes=means).record_bytes
    if as_json:
        fields = [
            {
                "name": f.name,
                "dtype": _word(f),
                "shape": f.shape,
                "bytes": None if f.varies else f.payload_bytes,
                "log": f.log,
                "frame_axis": f.frame_axis,
                "codec": f.codec,
            }
            for f in found.fields
        ]
        facts = {"path": str(path.absolute()), "payload_bytes": found.payload_bytes}
        for line in json_lines(facts | {"record_bytes": record_bytes}, fields=fields):
            say(line)
        return
    lines = [f'    "{f.name}": {_as_given(f)},' for f in found.fields]
    sizes = ["varies" if f.varies else f"{f.payload_bytes:,}" for f in found.fields]
    width, digits = max(map(len, lines)), max(map(len, sizes))
    say("{")
    for line, size in zip(lines, sizes, strict=True):
        unit = "" if size == "varies" else f" byte{'s' * (size != '1')}"
        say(f"{line:<{width}}  # {size:>{digits}}{unit}")
    say(f"}}  # {count_of(found.payload_bytes, 'byte')} a transition, {record_bytes:,} as a record")


def _word(each: diskreplay.Field) -> str:
    """Return the type without the shape, as `schema=` takes it."""
    return each.type.partition("[")[0]


def _as_given(each: diskreplay.Field) -> str:
    dtype = f'"{_word(each)}"'
    kept = {"frame_axis": each.frame_axis, "codec": each.codec}
    given = [f"{name}={value!r}" for name, value in kept.items() if value is not None]
    if each.log and (given or not each.varies):
        more = ", ".join(given or ["log=True"])
        return f'Field("{each.name}", {dtype}, {each.shape}, {more})'
    return f"({dtype}, {each.shape})" if each.shape else dtype
