"""The command line of the benchmarks: one command for each kind of measurement."""

from __future__ import annotations

import signal

import click

from bench.curve import curve
from bench.endure import endure
from bench.frames import frames
from bench.gpu import gpu
from bench.install import install
from bench.load import load
from bench.plot import plot
from bench.run import run
from bench.service import service


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Measure diskreplay against other replay buffers.

    Example: python -m bench install cpprb sb3 && python -m bench run --against cpprb,sb3
    """
    # Gigabytes of stores are removed on Ctrl-C; let it be so on SIGTERM, too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)


for command in (install, run, curve, plot, endure, gpu, frames, load, service):
    main.add_command(command)
