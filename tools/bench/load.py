"""The command that measures a service under the load of more and more clients."""

from __future__ import annotations

import contextlib
import json
import tempfile
from dataclasses import replace
from pathlib import Path

import click

from bench import load_client
from bench.beside import EndedError, Process, ask, running, said
from bench.options import shared
from bench.workers.service import served

PER_PROCESS = 8  # clients, so that 64 of them fit into the memory of a small machine


def rate(processes: list[Process], work: str, clients: int, seconds: float) -> float:
    """Return what so many clients do in a second, together."""
    asked = []
    for process in processes:
        k = min(PER_PROCESS, clients)
        clients -= k
        if k:
            ask(process, f"{work} {k} {seconds}")
            asked.append(process)
    return sum(float(said(process)) for process in asked)


@click.command()
@click.option("--most", type=click.IntRange(1, 512), default=64, show_default=True, help="Clients.")
@click.option("--seconds", type=click.FloatRange(0.01), default=3, show_default=True, help="Each.")
@shared("place", "out")
def load(most: int, seconds: float, place: Path | None, out: Path | None) -> None:
    """Measure pushes and batches of a service against the number of its clients.

    Server and clients are on this machine: beyond its cores they take the time of each other.
    Example: python -m bench load --most 16
    """
    try:
        figures = curve(most, seconds, place)
    except EndedError as error:
        raise click.ClickException(str(error)) from None
    if out is not None:
        out.write_text(json.dumps(figures))


def curve(most: int, seconds: float, place: Path | None) -> list[dict[str, float]]:
    """Return and print what 1, 2, 4 and more clients do."""
    counts = [1 << i for i in range(most.bit_length())]
    figures: list[dict[str, float]] = []
    with contextlib.ExitStack() as stack:
        home = stack.enter_context(tempfile.TemporaryDirectory(dir=place))
        url = stack.enter_context(served(replace(load_client.TASK, path=f"{home}/store")))
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
    return figures
