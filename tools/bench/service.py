"""The command that measures a service over loopback, beside Reverb's and beside Arrow Flight."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import click

from bench.driver import Leg, Pythons
from bench.goals import Group, Row, at, pair
from bench.machine import about, load
from bench.options import only_of, shared, stop_if_failed, tell
from bench.report import page
from bench.rows import Task
from bench.run import run_groups, write_figures

LOCAL = "buffer in the process"
SAMPLE, BATCHES = "diskreplay, sample", "diskreplay, batches"
REVERB_SAMPLE, REVERB_DATASET = "reverb, sample", "reverb, TimestepDataset"
REVERB_TRAJECTORIES, REVERB_WRITER = "reverb, trajectory_writer", "reverb, writer"
EXCHANGE, STREAM = "a bare do_exchange", "a plain do_get stream"


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    rows: int = 100_000
    pixel_rows: int = 3000
    seconds: float = 0.4  # of a round of batches
    pushes: int = 20_000  # of a round, and of each client
    reverb_pushes: int = 2000
    clients: int = 4


TINY = Size(rows=1000, pixel_rows=300, seconds=0.02, pushes=300, reverb_pushes=100, clients=2)


def sample(size: Size, place: Path) -> Group:
    """Batches of small rows."""
    task = Task(rows=size.rows, seconds=size.seconds)
    legs = {
        LOCAL: Leg("diskreplay", "sample", at(task, place, "a")),
        SAMPLE: Leg("service", "sample", at(task, place, "b")),
        BATCHES: Leg("service", "batches", at(task, place, "c")),
        EXCHANGE: Leg("flight", "exchange", task),
        STREAM: Leg("flight", "stream", task),
        REVERB_SAMPLE: Leg("reverb", "client sample", task),
        REVERB_DATASET: Leg("reverb", "client dataset", task),
    }
    one, ahead = "sample(256)", "batches(256, prefetch=4)"
    rows = [
        Row(one, *pair(SAMPLE, REVERB_SAMPLE, "sample"), "batches/s", ">=", 10),
        Row(ahead, *pair(BATCHES, REVERB_SAMPLE, "sample"), "batches/s", ">=", 10),
        Row(ahead, *pair(BATCHES, REVERB_DATASET, "sample"), "batches/s", ">=", 10),
        Row(one, *pair(SAMPLE, LOCAL, "sample"), "ms"),
        Row(one, *pair(SAMPLE, EXCHANGE, "sample"), "ms"),
        Row(ahead, *pair(BATCHES, STREAM, "sample"), "ms"),
    ]
    return Group(legs, rows)


def push(size: Size, place: Path) -> Group:
    """Pushes one by one, until their commit is acknowledged."""
    legs: dict[str, Leg] = {}
    rows: list[Row] = []
    for n in (1, size.clients):
        count = "1 client" if n == 1 else f"{n} clients"
        task = Task(rows=size.rows, count=size.pushes, clients=n)
        ours = f"diskreplay, {count}"
        legs[ours] = Leg("service", "push", at(task, place, str(n)))
        for peer, kind in (
            (REVERB_TRAJECTORIES, "client trajectory"), (REVERB_WRITER, "client writer"),
        ):  # fmt: skip
            theirs = f"{peer}, {count}"
            legs[theirs] = Leg("reverb", kind, replace(task, count=size.reverb_pushes))
            work = f"pushes and a flush, {count}"
            rows.append(Row(work, *pair(ours, theirs, "push"), "rows/s", ">=", 3))
    return Group(legs, rows)


def pixels(size: Size, place: Path) -> Group:
    """Batches of images."""
    task = Task(rows=size.pixel_rows, width=0, seconds=size.seconds)
    legs = {
        SAMPLE: Leg("service", "sample", at(task, place, "a")),
        BATCHES: Leg("service", "batches", at(task, place, "b")),
        STREAM: Leg("flight", "stream", task),
    }
    rows = [
        Row(f"{work} of pixels", *pair(ours, STREAM, "sample"), "batches/s", ">=", 0.5)
        for work, ours in (("sample(256)", SAMPLE), ("batches(256, prefetch=4)", BATCHES))
    ]
    return Group(legs, rows)


GROUPS: dict[str, Callable[[Size, Path], Group]] = {
    "sample": sample, "push": push, "pixels": pixels,
}  # fmt: skip


@click.command()
@shared("peers", "place", "out", "tiny")
@only_of(tuple(GROUPS))
@click.option("--rounds", type=click.IntRange(1), default=20, show_default=True, help="Of each.")
def service(
    peers: Path, place: Path | None, out: Path | None, tiny: bool, only: list[str], rounds: int
) -> None:
    """Measure a service over loopback, in turns with Reverb's, and print a table.

    Servers and clients are processes of their own, on this machine. `sample` has batches of 256
    rows of 496 bytes, `push` the rows that one client and several clients push until they are
    committed, and `pixels` batches of 256 rows of two images, beside a plain stream of Arrow
    Flight. Reverb is measured where it is installed: python -m bench install reverb.

    The exit status is 1 when something of ours failed. Example: python -m bench service --only push
    """
    size = TINY if tiny else Size()
    pythons = Pythons(peers)
    began, load_before = time.monotonic(), load()
    groups, lines = run_groups(
        {name: partial(GROUPS[name], size) for name in only}, pythons, ["reverb"], rounds, place
    )
    facts = about(pythons, ["service", "reverb"], began, load_before)
    if tiny:
        tell("This was a tiny size of everything: its figures say that it runs, and nothing else.")
    click.echo(page(lines, facts))
    write_figures(out, facts, groups)
    stop_if_failed(leg for legs in groups.values() for leg in legs.values())
