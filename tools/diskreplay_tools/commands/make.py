"""The commands that make a store of others: `copy`, `merge`, `repair`, `transform`."""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

import diskreplay
from diskreplay.store import real_path
from diskreplay.wording import count_of
from diskreplay_tools.commands.arguments import (
    force_option,
    out_argument,
    store_argument,
    stores_argument,
)
from diskreplay_tools.files import new_store, refuse_same
from diskreplay_tools.terminal import Progress, progress, tell


@click.command()
@store_argument
@out_argument()
@force_option
def copy(path: Path, out: Path, force: bool) -> None:
    """Copy a store to OUT, also beside a writer.

    The copy is one commit of the store, without its free pages. It opens and goes on like the
    original. To copy the files with other programs while somebody writes gives a broken store.

    Example: diskreplay copy runs/a backup/a
    """
    refuse_same(path, out)
    made = real_path(out)
    with diskreplay.open(path, access="read", window_bytes=0) as buffer:
        stats = buffer.stats()
        used = stats["disk_bytes"] - stats["free_bytes"]
        with (
            new_store(out, force=force) as place,
            progress("copy", "bytes") as show,
            growth(place, used, show),
        ):
            buffer.save(place)
    with diskreplay.open(made, access="read", window_bytes=0) as copied:
        first, end = copied.first, copied.count
        tell(f"{out}: {count_of(len(copied), 'transition')}, write ids [{first:,}, {end:,})")


@contextlib.contextmanager
def growth(place: Path, total: int, show: Progress) -> Iterator[None]:
    """Show, while the block makes a store at `place`, how large it is: the engine does not say."""
    done = threading.Event()

    def look() -> None:
        while not done.wait(0.2):
            sizes = [0]
            for file in place.parent.glob(".diskreplay-new-*/data.mdb"):
                with contextlib.suppress(OSError):
                    sizes.append(file.stat().st_size)
            show(min(max(sizes), total), total)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@click.command()
@stores_argument
@click.option(
    "-o",
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    help="The directory of the new store.",
)
@click.option(
    "--order",
    type=click.Choice(["sequence", "interleaved"]),
    default="sequence",
    show_default=True,
    help="One after the other, or each in its share everywhere.",
)
@click.option("--capacity", type=click.IntRange(1), help="By default, as many as there are.")
@force_option
def merge(
    paths: tuple[Path, ...], out: Path, order: str, capacity: int | None, force: bool
) -> None:
    """Write the transitions of several stores to a new one.

    The stores must be of one kind and have the same fields. Priorities are kept, and the table of
    runs says who wrote what. Settings are those of the first; write ids, annealing and random
    stream begin anew. The stores are not changed.

    Example: diskreplay merge runs/a runs/b -o runs/both
    """
    if len({real_path(path) for path in paths}) < len(paths):
        raise click.UsageError("a store is given twice: its transitions are there once")
    for path in paths:
        refuse_same(path, out)
    with new_store(out, force=force) as place, progress("merge") as show:
        n = diskreplay.merge(paths, place, order=order, capacity=capacity, progress=show)
    tell(f"{out}: {count_of(n, 'transition')} of {count_of(len(paths), 'store')}")


@click.command()
@store_argument
@out_argument()
@force_option
@click.pass_context
def repair(context: click.Context, path: Path, out: Path, force: bool) -> None:
    """Copy what can be read of a damaged store to a new one.

    The damaged store is not changed. In the new one, transitions before a lost one move up, so that
    write ids have no gap; the newest keeps its own. The exit status is 1 when something could not
    be read; it is told what.

    Example: diskreplay repair runs/a runs/a-repaired
    """
    refuse_same(path, out)
    with new_store(out, force=force) as place, progress("repair") as show:
        result = diskreplay.repair(path, place, progress=show)
    for fault in result.faults:
        tell(f"  {fault}", err=True)
    tell(f"{out}: {result}")
    if result.lost or result.priorities_lost or result.state_lost:
        context.exit(1)


@click.command()
@store_argument
@out_argument()
@click.argument("function", metavar="MODULE:FUNCTION")
@force_option
def transform(path: Path, out: Path, function: str, force: bool) -> None:
    """Write a store to OUT with fields changed by a function.

    The function of a Python module, which is looked for in the working directory, too, gets
    columns by name, some transitions at a time, and returns a dictionary of those that change:
    {"reward": columns["reward"] * 2} relabels rewards, a new name adds a field, and None removes
    one. All else stays: priorities, episodes, runs, random stream. The store is not changed.

    Example: diskreplay transform runs/a runs/clipped relabel:clip
    """
    refuse_same(path, out)
    found = _loaded(function)
    with new_store(out, force=force) as place, progress("transform") as show:
        n = diskreplay.transform(path, place, _told(function, found), progress=show)
    tell(f"{out}: {count_of(n, 'transition')} of {path}, changed by {function}")


def _loaded(name: str) -> Any:
    """Return the function of a name such as module:function."""
    module, colon, function = name.partition(":")
    if not (colon and module and function):
        raise click.UsageError(f"expected MODULE:FUNCTION, as relabel:clip (found {name!r})")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found: Any = importlib.import_module(module)
    except Exception as error:
        absent = isinstance(error, ModuleNotFoundError) and error.name == module
        told = f"there is no {module}.py in {os.getcwd()}" if absent else _where(error)
        raise click.ClickException(f"cannot import {module}: {told}") from None
    found = functools.reduce(
        lambda owner, part: getattr(owner, part, None), function.split("."), found
    )
    if not callable(found):
        raise click.ClickException(f"{module} has no function {function!r}")
    return found


def _told(name: str, function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return a function whose errors are one sentence, with the line where they were raised."""

    def called(columns: Any) -> Any:
        try:
            return function(columns)
        except Exception as error:
            raise click.ClickException(f"{name} failed: {_where(error)}") from error

    return called


def _where(error: Exception) -> str:
    line = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({line.filename}, line {line.lineno})"
