"""The command that pushes through a ring for long, and watches memory and file."""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path

import click

from bench.driver import Leg, Pythons
from bench.options import shared, tell
from bench.rows import Task

FLAT = 1.03  # how much larger the largest may be than the largest of the first part
WATCHED = {"resident": "resident memory", "private": "private memory", "file": "data file"}


@click.command()
@click.option(
    "--pushes", type=click.IntRange(1), default=50_000_000, show_default=True, help="In all."
)
@click.option(
    "--capacity", type=click.IntRange(1000), default=1_000_000, show_default=True, help="Rows."
)
@click.option("--width", type=click.IntRange(1), default=4, show_default=True, help="Of a state.")
@click.option(
    "--window",
    type=click.IntRange(0),
    default=16,
    show_default=True,
    help="MiB, less than all rows so that they leave it.",
)
@shared("place")
def endure(pushes: int, capacity: int, width: int, window: int, place: Path | None) -> None:
    """Push through a ring, lap after lap, and tell whether memory and file stay as they are.

    Nine tenths come in extends of a thousand and the others one by one, with a sample and an update
    after each ten thousand. What counts is from the end of the second lap on: the largest size in
    the last half of that against the largest in the first. The exit status is 1 when one has grown.

    Example: python -m bench endure --pushes 50000000 --capacity 1000000
    """
    if pushes < 6 * capacity:
        raise click.UsageError(f"--pushes has to be 6 times the capacity: {6 * capacity} or more")
    rounds = min(50, pushes // capacity)
    task = Task(
        rows=capacity, width=width, window_bytes=window << 20, count=pushes // rounds,
        batch=min(256, capacity),
    )  # fmt: skip
    seen: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory(prefix="diskreplay-bench-", dir=place) as stores:
        leg = Leg("diskreplay", "endure", replace(task, path=str(Path(stores) / "store")))
        with Pythons(Path()).worker("diskreplay") as worker:
            worker.start(leg)
            began = time.monotonic()
            for _ in range(rounds):
                seen.append(worker.round())
                one = seen[-1]
                sizes = ", ".join(
                    f"{what} {one[name] / 1e6:,.1f} MB" for name, what in WATCHED.items()
                )
                tell(f"{one['pushed']:>14,.0f} pushed, {time.monotonic() - began:,.0f} s: {sizes}")
    growths = growths_of(seen, capacity)
    for what, growth in growths.items():
        word = "flat" if growth <= FLAT else "grows"
        click.echo(f"{what}: {word}, {growth:.3f} x from one half to the other")
    if max(growths.values()) > FLAT:
        raise click.ClickException("not everything stays as it is")


def growths_of(seen: list[dict[str, float]], capacity: int) -> dict[str, float]:
    """Return how much larger each size is in the last half than in the first, after two laps."""
    steady = [one for one in seen if one["pushed"] >= 2 * capacity]
    half = len(steady) // 2
    return {
        what: max(one[name] for one in steady[half:]) / max(one[name] for one in steady[:half])
        for name, what in WATCHED.items()
    }
