"""Outputs that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import click

import diskreplay
from diskreplay.store import check_outside, explained, real_path, replacing, work_directory


@contextlib.contextmanager
def new_file(out: Path, *, force: bool) -> Iterator[Path]:
    """Yield a path to write a file at; the end of the block moves it to `out`, whole.

    When the block raises, or is killed, `out` stays as it was.
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


@contextlib.contextmanager
def new_store(out: Path, *, force: bool) -> Iterator[Path]:
    """Yield a path to make a store at, which is `out` or is moved there by the end of the block.

    A store that is overwritten stays whole until then; no process may have it open.
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
