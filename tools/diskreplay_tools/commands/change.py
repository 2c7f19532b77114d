"""The commands that change a store: `compact`, `resize`, `convert`, `clear`."""

from __future__ import annotations

from pathlib import Path

import click

import diskreplay
from diskreplay.wording import count_of
from diskreplay_tools.commands.arguments import store_argument
from diskreplay_tools.terminal import progress, tell


@click.command()
@store_argument
def compact(path: Path) -> None:
    """Write a store anew, without free pages and in order.

    A data file does not shrink by itself: what is evicted or cleared leaves pages that later
    commits use. Marks are dropped. Nothing else changes, and a run goes on as it would have.
    Nobody may have the store open. A kill at any moment leaves the old data file or the new one,
    whole. The disk needs room for both meanwhile.

    Example: diskreplay compact runs/a
    """
    with progress("compact") as show:
        done = diskreplay.compact(path, progress=show)
    tell(f"{path}: {done}")


@click.command()
@store_argument
@click.option(
    "--capacity",
    type=click.IntRange(1),
    required=True,
    help="Transitions that the store holds when full.",
)
@click.option(
    "--keep-rows",
    type=click.IntRange(0, 2**40),
    metavar="K",
    help="Evicted transitions that stay for rewind. By default as it is.",
)
@click.option("--yes", is_flag=True, help="Do not ask before transitions are dropped.")
def resize(path: Path, capacity: int, keep_rows: int | None, yes: bool) -> None:
    """Change the capacity of a store; the newest transitions stay.

    It asks before transitions are dropped. Write ids and priorities stay what they are, marks are
    dropped, and the data file is as after compact. Programs that open it must give the new
    capacity, too. Nobody may have the store open. A kill at any moment leaves the old store or the
    new one, whole.

    Example: diskreplay resize runs/a --capacity 500000
    """
    with diskreplay.open(path, access="read", window_bytes=0) as buffer:
        dropped = len(buffer) - capacity
    if dropped > 0 and not yes:
        click.confirm(f"Drop the oldest {count_of(dropped, 'transition')} of {path}?", abort=True)
    with progress("resize") as show:
        done = diskreplay.resize(path, capacity, keep_rows=keep_rows, progress=show)
    tell(f"{path}: capacity {capacity:,}; {done}")


@click.command()
@store_argument
@click.option(
    "--to", "kind", type=click.Choice(["prioritized", "uniform"]), required=True, help="The kind."
)
@click.option("--alpha", type=float, help="0 draws uniformly, 1 in full proportion.")
@click.option("--beta-start", type=float, help="Exponent of the importance weights, at first.")
@click.option("--beta-end", type=float, help="The same after --beta-frames.")
@click.option("--beta-frames", type=int, help="Batches until it is the last.")
@click.option("--epsilon", type=float, help="Added to each priority.")
@click.option("--yes", is_flag=True, help="Do not ask before priorities are dropped.")
def convert(path: Path, kind: str, yes: bool, **settings: float | None) -> None:
    """Make a uniform store prioritized, or the reverse.

    Transitions, write ids, runs and random stream stay. Each transition gets the priority 1, and
    settings are those of the constructor where they are not given; or the priorities are dropped,
    before which it asks. Nobody may have the store open. A kill at any moment leaves the old store
    or the new one, whole.

    Example: diskreplay convert runs/a --to prioritized --alpha 0.7
    """
    given = {name: value for name, value in settings.items() if value is not None}
    with diskreplay.open(path, access="read", window_bytes=0) as buffer:
        n = len(buffer) if isinstance(buffer, diskreplay.PrioritizedReplayBuffer) else 0
    if kind == "uniform" and n and not yes:
        click.confirm(f"Drop the priorities of {count_of(n, 'transition')} of {path}?", abort=True)
    with progress("convert") as show:
        done = diskreplay.convert(path, kind, progress=show, **given)
    tell(f"{path}: {kind}; {done}")


@click.command()
@store_argument
@click.option("--yes", is_flag=True, help="Do not ask.")
def clear(path: Path, yes: bool) -> None:
    """Remove all transitions of a store.

    Schema, settings and annealing stay, and write ids go on counting. The data file keeps its
    size until compact gives the pages back.

    Example: diskreplay clear runs/a --yes
    """
    with diskreplay.open(path) as buffer:
        if not yes:
            click.confirm(
                f"Remove all {count_of(len(buffer), 'transition')} of {path}?", abort=True
            )
        n = len(buffer)
        buffer.clear()
    tell(f"{path}: {count_of(n, 'transition')} removed")
