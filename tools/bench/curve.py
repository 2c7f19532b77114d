"""The command that measures how the time of a step grows with the store and with the batch."""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np

from bench.driver import Leg, Measured, Pythons, measure
from bench.goals import at
from bench.machine import about, load
from bench.options import shared, stop_if_failed, tell
from bench.rows import Task

SYSTEMS = ("diskreplay", "cpprb", "torchrl", "tianshou")  # those with priorities, in memory
WIDTH = 20  # float32 numbers in a state: ten million transitions take 1.8 GB
SIZES = (10_000, 100_000, 1_000_000, 10_000_000)
BATCHES = (16, 64, 256, 1024, 4096)
SMALLEST, LARGEST, MOST_GROWTH = SIZES[1], SIZES[-1], 2.5


def legs_of(system: str, place: Path, *, is_tiny: bool) -> dict[str, dict[str, Leg]]:
    """Return the legs of a system for each curve, named after the number that they belong to."""
    task = Task(rows=1_000_000, width=WIDTH, seconds=0.4)
    if is_tiny:
        task = replace(task, rows=5000, seconds=0.01)
    sizes = {
        str(n): at(task, place, system, rows=5000 + n // 5000 if is_tiny else n) for n in SIZES
    }
    batches = {str(n): at(task, place, f"{system}-{n}", batch=n) for n in BATCHES}
    tasks = {"rows": sizes, "batch": batches}
    return {
        curve: {name: Leg(system, "step", task) for name, task in of_curve.items()}
        for curve, of_curve in tasks.items()
    }


def medians(measured: dict[str, Measured], figure: str) -> dict[str, float]:
    """Return the median of a figure for each leg that has it."""
    return {
        name: float(np.median(leg.rounds[figure])) for name, leg in measured.items() if leg.rounds
    }


@click.command()
@shared("against", "peers", "place", "tiny")
@click.option("--rounds", type=click.IntRange(1), default=10, show_default=True, help="Of each.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default="curve.json",
    show_default=True,
    help="The file for `plot`.",
)
def curve(
    against: list[str], peers: Path, place: Path | None, tiny: bool, rounds: int, out: Path
) -> None:
    """Measure steps at 10^4 to 10^7 rows, and with batches of 16 to 4096.

    The sizes of one system run in turns. States have 20 numbers, so that ten million rows fit into
    a window of 2 GiB; batches are drawn out of a million. Example: python -m bench curve
    """
    pythons = Pythons(peers)
    began, load_before = time.monotonic(), load()
    curves: dict[str, Any] = {}
    done: list[Measured] = []
    for system in SYSTEMS:
        if system not in ("diskreplay", *against):
            continue
        tell(system)
        curves[system] = {}
        with tempfile.TemporaryDirectory(prefix="diskreplay-bench-", dir=place) as stores:
            legs = legs_of(system, Path(stores), is_tiny=tiny)
            for name, of_curve in legs.items():
                measured = measure(of_curve, pythons, rounds, 2, tell)
                done += measured.values()
                found = {leg: one.as_json() for leg, one in measured.items()}
                curves[system][name] = found
                steps = medians(measured, "step")
                for leg, median in steps.items():
                    click.echo(f"{system:12} {name:5} {int(leg):>10,}  {median / 1e3:10,.0f} us")
                if name == "rows" and {str(SMALLEST), str(LARGEST)} <= steps.keys():
                    growth = steps[str(LARGEST)] / steps[str(SMALLEST)]
                    goal = f", goal < {MOST_GROWTH} x" if system == "diskreplay" else ""
                    click.echo(
                        f"{system:12} from {SMALLEST:,} to {LARGEST:,} rows: {growth:.2f} x{goal}"
                    )
    facts = about(pythons, ["diskreplay", *against], began, load_before)
    out.write_text(json.dumps({**facts, "curves": curves}) + "\n")
    stop_if_failed(done)
