"""What the commands share: arguments, progress, outputs that appear whole or not at all."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

import diskreplay
from diskreplay.store import check_outside, explained, real_path, replacing, work_directory

Progress = Callable[[int, int], None]

store_argument = click.argument(
    "path", type=click.Path(exists=True, file_okay=False, path_type=Path)
)
stores_argument = click.argument(
    "paths",
    nargs=-1,
    required=True,
    metavar="PATH...",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
)
force_option = click.option("--force", is_flag=True, help="Overwrite what is there.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


def out_argument(name: str = "out") -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return the decorator of an argument that names what a command writes."""
    return click.argument(name, type=click.Path(path_type=Path))


@contextlib.contextmanager
def progress(label: str, unit: str = "transitions") -> Iterator[Progress]:
    """Give a function to call with what is done and what there is in all.

    It draws a bar on a terminal, on stderr, and nothing anywhere else.
    """
    stream = sys.stderr
    if not stream.isatty():
        yield lambda done, total: None
        return
    with contextlib.ExitStack() as stack:
        bars: list[Any] = []

        def show(done: int, total: int) -> None:
            if not bars:
                bar: Any = click.progressbar(
                    length=max(total, 1),
                    label=label,
                    width=20,  # so that all of it fits a line
                    file=stream,
                    item_show_func=lambda _: f"{bars[0].pos:,} {unit}" if bars else "",
                )
                bars.append(stack.enter_context(bar))
            bars[0].update(done - bars[0].pos)

        yield show


@contextlib.contextmanager
def new_file(out: Path, *, force: bool) -> Iterator[Path]:
    """Give a path to write a file at; at the end of the block it gets its name, whole.

    When the block raises, or is killed, there is nothing at `out`, or what was there before.
    """
    if str(out) == "-":
        raise click.ClickException("it cannot be written to a pipe: give the name of a file")
    refuse_existing(out, force=force)
    out = real_path(out)
    if out.exists() and not out.is_file():
        raise click.ClickException(f"{out} is no regular file: give the name of a file")
    check_outside(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with work_directory(out.parent) as hidden:
            yield hidden / out.name
            os.replace(hidden / out.name, out)
    except diskreplay.DiskReplayError:
        raise
    except OSError as error:
        raise click.ClickException(f"cannot write {out}: {explained(error, out)}") from None


def refuse_same(path: Path, out: Path) -> None:
    """Refuse an output that is the input, or that the input is inside of."""
    if real_path(out) == real_path(path):
        raise click.UsageError(f"{out} is the store itself: give a new directory")
    if real_path(out) in real_path(path).parents:
        raise click.UsageError(f"{path} is inside of {out}: give a new directory")


def refuse_existing(out: Path, *, force: bool) -> None:
    """Refuse an output that exists, unless it may be overwritten."""
    if not force and (out.is_symlink() or out.exists()) and not is_empty_directory(out):
        raise click.ClickException(f"{out} exists: give another name, or --force to overwrite it")


def is_empty_directory(path: Path) -> bool:
    """Return whether there is a directory with nothing in it."""
    return path.is_dir() and not any(path.iterdir())


def spread_ids(first: int, count: int, n: int) -> NDArray[np.int64]:
    """Return write ids of [first, count), one of each of n equal shares, or all when n is as many.

    Which one is drawn, with a fixed seed: what comes at every tenth step would else be always seen,
    or never.
    """
    size = count - first
    if n >= size:
        return np.arange(first, count)
    ends = np.arange(n + 1) * size // n
    places: NDArray[np.int64] = np.random.default_rng(0).integers(ends[:-1], ends[1:])
    return first + places


def needed(module: str, extra: str, what: str) -> ModuleType:
    """Return a module that not everybody has installed, or say how to install it."""
    try:
        return importlib.import_module(module)
    except ImportError:
        name = module.split(".")[0]
        raise click.ClickException(
            f"{what} needs {name}, which is not installed: pip install 'diskreplay[{extra}]'"
        ) from None


@contextlib.contextmanager
def new_store(out: Path, *, force: bool) -> Iterator[Path]:
    """Give a path to make a store at, which is `out`, or becomes it at the end of the block.

    A store that is overwritten stays whole until then; nobody may have it open.
    """
    refuse_existing(out, force=force)
    out = real_path(out)
    if not out.exists() or is_empty_directory(out):
        yield out
        return
    try:
        with replacing(out) as place:
            yield place
    except diskreplay.NotAStoreError as error:
        raise click.ClickException(str(error)) from None
