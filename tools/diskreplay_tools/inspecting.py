"""`diskreplay inspect` and `diskreplay schema`: what is in a store."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import click
import numpy as np
from numpy.typing import NDArray

import diskreplay
from diskreplay.wording import count_of
from diskreplay_tools import overview, watching
from diskreplay_tools.charts import say, screen
from diskreplay_tools.common import json_option, store_argument
from diskreplay_tools.showing import (
    ATTEMPTS,
    Buffer,
    Look,
    Rows,
    Transition,
    json_lines,
    look,
    read_rows,
)

_MOST = 1000  # transitions shown

_many = click.IntRange(1, _MOST)


class _Inspect(click.Command):
    """A command whose --watch may be followed by a number, or not."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Give --watch its number, which click would take from whatever follows."""
        args = [*args]
        for i, arg in enumerate(args):
            if arg == "--":
                break
            if arg.startswith("--watch=") and not _is_number(arg[8:]):
                raise click.BadParameter(f"{arg[8:]!r} is no number of seconds", ctx)
            if arg == "--watch" and not (i + 1 < len(args) and _is_number(args[i + 1])):
                args[i] = f"--watch={watching.SECONDS:g}"
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
    type=click.FloatRange(min=0.1, max=86400),
    metavar="[SECONDS]",
    help=f"Look again and again, every {watching.SECONDS:g} seconds by default, until Ctrl-C.",
)
@json_option
def inspect(
    path: Path,
    top: int | None,
    bottom: int | None,
    last: int | None,
    at: int | None,
    watch: float | None,
    as_json: bool,
) -> None:
    """Show what is in a store.

    Its size, what it takes of disk and memory, which runs wrote it, who has it open, and how
    priorities, rewards and ages are distributed; or some transitions of it. It changes nothing,
    and works beside those that write. More than 1000 transitions: diskreplay export

    \b
    Example: diskreplay inspect runs/a
             diskreplay inspect runs/a --top 5
             diskreplay inspect runs/a --watch
    """
    given = {"--top": top, "--bottom": bottom, "--last": last, "--at": at, "--watch": watch}
    asked = [name for name, value in given.items() if value is not None]
    if len(asked) > 1:
        raise click.UsageError(f"{asked[0]} and {asked[1]} are two views: ask for one of them")
    if watch is not None:
        watching.watch(path, watch, as_json=as_json)
        return
    with diskreplay.open(path, access="read") as buffer:
        if asked:
            _show_transitions(buffer, path, asked[0], cast(int, given[asked[0]]), as_json=as_json)
        else:
            overview.show(buffer, path, as_json=as_json)


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
    record_bytes = diskreplay.estimate(found, capacity).record_bytes
    if as_json:
        fields = [
            {"name": f.name, "dtype": str(f.dtype), "shape": f.shape, "bytes": f.payload_bytes}
            for f in found.fields
        ]
        facts = {"path": str(path.absolute()), "payload_bytes": found.payload_bytes}
        for line in json_lines(facts | {"record_bytes": record_bytes}, fields=fields):
            say(line)
        return
    lines = [f'    "{f.name}": {_as_given(f)},' for f in found.fields]
    sizes = [f"{f.payload_bytes:,}" for f in found.fields]
    width, digits = max(map(len, lines)), max(map(len, sizes))
    say("{")
    for line, size in zip(lines, sizes, strict=True):
        say(f"{line:<{width}}  # {size:>{digits}} byte{'s' * (size != '1')}")
    say(f"}}  # {count_of(found.payload_bytes, 'byte')} a transition, {record_bytes:,} as a record")


def _as_given(each: diskreplay.Field) -> str:
    dtype = f'"{each.dtype}"'
    return f"({dtype}, {each.shape})" if each.shape else dtype


# Transitions


def _show_transitions(buffer: Buffer, path: Path, view: str, n: int, *, as_json: bool) -> None:
    if view in ("--top", "--bottom") and not isinstance(buffer, diskreplay.PrioritizedReplayBuffer):
        raise click.ClickException(
            f"{path} holds a uniform buffer, which has no priorities (expected a prioritized one): "
            f"--last {n} shows the newest transitions"
        )
    for _ in range(ATTEMPTS):
        found = look(buffer)
        wanted = _wanted(found, path, view, n)
        names = () if buffer.schema is None else buffer.schema.names
        rows = read_rows(buffer, wanted, names)
        if not rows.evicted:
            break
    if view == "--at" and not rows.write_ids.size and not rows.damaged:
        _wanted(look(buffer), path, view, n)  # says that it is not live any more
    if view == "--at" and rows.damaged:
        raise click.ClickException(
            f"the record of write id {n} in {path} is damaged: diskreplay repair copies the others"
        )
    shown = _transitions(found, wanted, rows)
    if as_json:
        facts = {**overview.facts_of(found), "evicted": rows.evicted}
        for line in json_lines(facts, transitions=(each.to_plain() for each in shown)):
            say(line)
        return
    on = screen()
    say(textwrap.fill(_title(view, len(wanted) - rows.evicted, found), on.width))
    if rows.evicted:
        say(f"{count_of(rows.evicted, 'more transition')} evicted before being read")
    if buffer.schema is not None:
        for each in shown:
            say("")
            for line in each.lines(buffer.schema, on):
                say(line)


def _wanted(found: Look, path: Path, view: str, n: int) -> NDArray[np.int64]:
    """Return the write ids to show, in their order."""
    first, count = found.first, found.count
    if view == "--at":
        if first <= n < count:
            return np.array([n])
        why = "was not written yet" if n >= count else "was evicted, or cleared"
        live = f"{first} to {count - 1} are" if first < count else "none is"
        raise click.ClickException(f"write id {n} {why}: {live} live in {path}")
    if view == "--last":
        return np.arange(count - 1, max(first, count - n) - 1, -1)
    priorities = np.zeros(0, np.float32) if found.priorities is None else found.priorities
    keys = -priorities if view == "--top" else priorities
    return count - priorities.size + np.argsort(keys, kind="stable")[:n]


def _transitions(found: Look, wanted: NDArray[np.int64], rows: Rows) -> Iterator[Transition]:
    places = {write_id: place for place, write_id in enumerate(rows.write_ids.tolist())}
    damaged = set(rows.damaged)
    for write_id in wanted.tolist():
        if write_id not in places and write_id not in damaged:
            continue
        fields = None
        if write_id in places:
            fields = {name: column[places[write_id]] for name, column in rows.columns.items()}
        age = found.count - 1 - write_id
        yield Transition(write_id, age, found.priority(write_id), fields)


def _title(view: str, n: int, found: Look) -> str:
    size = found.stats["size"]
    if not n:
        return "there are no transitions to show"
    what = {
        "--top": "the largest priorities",
        "--bottom": "the smallest priorities",
        "--last": "the newest",
        "--at": "one",
    }[view]
    return f"{n:,} of {count_of(size, 'transition')}" + (f": {what}" if view != "--at" else "")
