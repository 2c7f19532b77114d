"""A progress bar on a terminal, and nothing anywhere else."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import click

Progress = Callable[[int, int], None]


@contextlib.contextmanager
def progress(label: str, unit: str = "transitions") -> Iterator[Progress]:
    """Yield a function to call with the parts that are done and all there are.

    It draws a bar on stderr where that is a terminal, and nothing elsewhere.
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
