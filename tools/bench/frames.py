"""The command that compares layouts: pairs in records, the observation log, and its codecs."""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import numpy as np

from bench.driver import Leg, Measured, Pythons, measure
from bench.machine import about, load
from bench.options import only_of, shared, stop_if_failed, tell
from bench.recorded import FLOATS, Play, atari, cartpole, record, walk
from bench.report import PER_UNIT, number
from bench.rows import Task

LAPS = 3  # of the ring: the first fills it
WARM_UP = 1  # rounds
LAYOUTS = {"pairs": "", "log": "", "log, lz4": "lz4", "log, zstd": "zstandard"}  # packages
ARRAYS = "numpy arrays in RAM"
PLACES = ("page cache", "window")
HEADS = ("layout", "bytes a transition", f"after {LAPS} laps", "push", *PLACES)


@dataclass(frozen=True)
class Source:
    """Where steps come from."""

    title: str
    play: Play
    width: int  # float32 numbers in a state; 0 stands for stacks of frames


SOURCES = {
    "cartpole": Source("CartPole-v1", cartpole, 4),
    "walk": Source(f"a state of {FLOATS} floats", walk, FLOATS),
    "pong": Source("Pong", atari("Pong"), 0),
    "breakout": Source("Breakout", atari("Breakout"), 0),
}


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    steps: int = 20_000
    pushes: int = 2000  # of a round
    seconds: float = 0.1  # of a round of batches
    batch: int = 256


TINY = Size(steps=600, pushes=100, seconds=0.005)


def legs_of(source: Source, size: Size, place: Path) -> dict[str, Leg]:
    """Return what is measured of each layout, and of arrays in memory."""
    task = Task(
        rows=size.steps, width=source.width, batch=size.batch, seconds=size.seconds,
        count=size.pushes, prioritized=False, recorded=str(place / "steps"),
    )  # fmt: skip
    legs = {ARRAYS: Leg("arrays", "gather", task)}
    windows = {"page cache": 0, "window": 2 * task.rows * task.row_bytes}
    for layout, package in LAYOUTS.items():
        if package and not find_spec(package):
            continue
        stored = replace(task, layout=layout)

        def at(what: str, stored: Task = stored, **changes: Any) -> Task:
            return replace(stored, path=str(place / f"{stored.layout}-{what}"), **changes)

        legs[f"{layout}: disk"] = Leg("diskreplay", "disk", at("disk"), LAPS, warms_up=False)
        legs[f"{layout}: push"] = Leg("diskreplay", "push", at("push", rows=2 * size.pushes))
        for where, window_bytes in windows.items():
            held = at(where.replace(" ", "-"), window_bytes=window_bytes)
            legs[f"{layout}: {where}"] = Leg("diskreplay", "gather", held)
    return legs


class Figures:
    """The figures of a source: bytes of a transition, and times in ns."""

    def __init__(self, measured: dict[str, Measured], size: Size) -> None:
        self._measured, self._size = measured, size

    def _rounds(self, leg: str, name: str) -> list[float]:
        """Return a figure of all rounds, [] where there are none."""
        return self._measured[leg].rounds.get(name, []) if leg in self._measured else []

    def pushes(self, layout: str) -> list[float]:
        """Return the times of a push."""
        return self._rounds(f"{layout}: push", "push")

    def batches(self, leg: str) -> list[float]:
        """Return the times of a batch in fresh arrays."""
        return self._rounds(leg, f"fresh {self._size.batch}")

    def bytes_each(self, layout: str) -> list[float]:
        """Return the bytes of a transition in the data file after each lap."""
        return [value / self._size.steps for value in self._rounds(f"{layout}: disk", "file")]

    def cells(self, layout: str) -> list[str]:
        """Return a row of the table."""
        laps = [number(value) for value in self.bytes_each(layout)]
        missing = f"{LAYOUTS[layout] or 'it'} is missing"
        batches = [spread(self.batches(f"{layout}: {where}"), "ms") for where in PLACES]
        return [
            layout, laps[0] if laps else missing, laps[-1] if laps else "",
            spread(self.pushes(layout), "us"), *batches,
        ]  # fmt: skip


def spread(values: list[float], unit: str) -> str:
    """Return the median and the quartiles of times in ns, in another unit."""
    if not values:
        return ""
    low, median, high = np.quantile(values, [0.25, 0.5, 0.75]) / PER_UNIT[unit]
    return f"{number(median)} {unit} ({number(low)} to {number(high)})"


def table(figures: Figures, source: Source, size: Size) -> list[str]:
    """Return the table of a source."""
    rows = [figures.cells(layout) for layout in LAYOUTS]
    arrays = spread(figures.batches(ARRAYS), "ms")
    rows.append([ARRAYS, f"{payload(source):,}", "", "", "", arrays])
    head = [source.title, *HEADS[1:4], *(f"sample({size.batch}), {where}" for where in PLACES)]
    return ["", *("| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows))]


def payload(source: Source) -> int:
    """Return the bytes of a transition's values."""
    return Task(width=source.width).row_bytes


def goals(figures: Figures, source: Source) -> list[str]:
    """Return the goals for stacks of frames, a line each."""
    if source.width:
        return []
    lines = []

    def goal(what: str, value: float, most: float, unit: str = "x") -> None:
        verdict = "yes" if value <= most else "no"
        lines.append(f"- {what}: {number(value)} {unit}, goal <= {most:g} {unit}: {verdict}")

    frame = payload(source) // 8
    sizes = {layout: figures.bytes_each(layout) for layout in LAYOUTS}
    if sizes["log"]:
        goal("the log, bytes a transition to a frame", max(sizes["log"]) / frame, 1.15)
    if sizes["log, lz4"] and source.title == "Pong":
        goal("lz4, bytes a transition", max(sizes["log, lz4"]), 1000, "bytes")
    if figures.pushes("log") and figures.pushes("pairs"):
        ratio = np.median(figures.pushes("log")) / np.median(figures.pushes("pairs"))
        goal("a push to the log, to one of pairs", float(ratio), 0.25)
    for layout, where, most in (
        ("log", "window", 2.0), ("log", "page cache", 5.0),
        ("log, lz4", "window", 5.0), ("log, lz4", "page cache", 5.0),
    ):  # fmt: skip
        batches = figures.batches(f"{layout}: {where}")
        if batches and figures.batches(ARRAYS):
            ratio = np.median(batches) / np.median(figures.batches(ARRAYS))
            goal(f"a batch, {layout}, {where}, to arrays in RAM", float(ratio), most)
    return ["", *lines]


@click.command()
@shared("place", "out", "tiny")
@only_of(tuple(SOURCES), "Sources of steps")
@click.option("--rounds", type=click.IntRange(1), default=10, show_default=True, help="Of each.")
def frames(place: Path | None, out: Path | None, tiny: bool, only: list[str], rounds: int) -> None:
    """Compare pairs of states in records with the observation log and its codecs.

    Steps of random play are recorded once, and all layouts store the same. The table has the data
    file after the ring was filled and after two laps more, a push with its commits, and a batch;
    everything in turns, beside a copy of as many rows out of arrays in memory. The games need the
    extra atari, and the codecs lz4 and zstd. The exit status is 1 when something failed.

    Example: python -m bench frames --only pong
    """
    size = TINY if tiny else Size()
    pythons = Pythons(Path())
    began, load_before = time.monotonic(), load()
    sources: dict[str, dict[str, Measured]] = {}
    lines: list[str] = []
    for name in only:
        source = SOURCES[name]
        tell(f"{source.title}, after {time.monotonic() - began:.0f} s")
        with tempfile.TemporaryDirectory(prefix="diskreplay-bench-", dir=place) as stores:
            record(source.play, size.steps, not source.width, Path(stores) / "steps")
            legs = legs_of(source, size, Path(stores))
            sources[name] = measure(legs, pythons, rounds, WARM_UP, tell)
        figures = Figures(sources[name], size)
        lines += [*table(figures, source, size), *goals(figures, source)]
    facts = about(pythons, ["diskreplay"], began, load_before)
    machine = facts["machine"]
    click.echo(
        f"{size.steps:,} steps of each; {machine['cores']} cores of {machine['cpu']}, Python "
        f"{machine['python']}; {facts['minutes']:.0f} minutes from a load of "
        f"{load_before:.1f} on, by `{facts['command']}`."
    )
    click.echo("\n".join(lines))
    if out is not None:
        figures_of = {
            name: {leg: found.as_json() for leg, found in legs.items()}
            for name, legs in sources.items()
        }
        out.write_text(json.dumps({**facts, "sources": figures_of}) + "\n")
    stop_if_failed(leg for legs in sources.values() for leg in legs.values())
