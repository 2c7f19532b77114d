"""The command that measures a service under the load of more and more clients."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import click

import diskreplay
from bench import load_client
from bench.options import shared
from bench.rows import columns

PER_PROCESS = 8  # clients, so that 64 of them fit into the memory of a small machine


@contextlib.contextmanager
def running(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Run a Python module within a block, which asks it by its stdin and stdout."""
    process = subprocess.Popen(
        [sys.executable, "-m", *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        # The rows are random, and continue each other nowhere.
        env={**os.environ, "PYTHONWARNINGS": "ignore:a transition does not continue"},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def said(process: subprocess.Popen[str]) -> str:
    """Return the next line of a process."""
    line = process.stdout.readline() if process.stdout is not None else ""
    if not line:
        raise click.ClickException(f"process {process.pid} has ended")
    return line.strip()


def rate(processes: list[subprocess.Popen[str]], work: str, clients: int, seconds: float) -> float:
    """Return what so many clients do in a second, together."""
    asked = []
    for process in processes:
        k = min(PER_PROCESS, clients)
        clients -= k
        if k and process.stdin is not None:
            process.stdin.write(f"{work} {k} {seconds}\n")
            process.stdin.flush()
            asked.append(process)
    return sum(float(said(process)) for process in asked)


def fill(path: Path) -> None:
    """Make a full prioritized store."""
    task = load_client.TASK
    warnings.simplefilter("ignore", diskreplay.EpisodeWarning)
    with diskreplay.PrioritizedReplayBuffer(task.rows, path=path, seed=task.seed) as buffer:
        for first in range(0, task.rows, task.block):
            buffer.extend(*columns(task, first, task.block))


@click.command()
@click.option("--most", type=click.IntRange(1, 512), default=64, show_default=True, help="Clients.")
@click.option("--seconds", type=click.FloatRange(0.01), default=3, show_default=True, help="Each.")
@shared("place", "out")
def load(most: int, seconds: float, place: Path | None, out: Path | None) -> None:
    """Measure pushes and batches of a service against the number of its clients.

    Server and clients are on this machine: beyond its cores they take the time of each other.
    Example: python -m bench load --most 16
    """
    counts = [1 << i for i in range(most.bit_length())]
    figures = []
    with contextlib.ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=place)))
        fill(home / "store")
        server = ("diskreplay_tools", "serve", home / "store", "--listen", "grpc://127.0.0.1:0")
        url = said(stack.enter_context(running(*server))).split()[-1]
        processes = [
            stack.enter_context(running("bench.load_client", url, PER_PROCESS))
            for _ in range(-(-counts[-1] // PER_PROCESS))
        ]
        for process in processes:
            said(process)
        click.echo("clients   rows pushed/s   batches of 256/s")
        for n in counts:
            pushed, drawn = (rate(processes, work, n, seconds) for work in load_client.WORKS)
            figures.append({"clients": n, "rows": pushed, "batches": drawn})
            click.echo(f"{n:7,}   {pushed:13,.0f}   {drawn:16,.1f}")
    if out is not None:
        out.write_text(json.dumps(figures))
