"""Arguments and options that several commands take."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

store_argument = click.argument(
    "path", type=click.Path(exists=True, file_okay=False, path_type=Path)
)
stores_argument = click.argument(
    "paths",
    nargs=-1,
    required=True,
    metavar="PATH...",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
)
force_option = click.option("--force", is_flag=True, help="Overwrite what is there.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


def out_argument(name: str = "out") -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return the decorator of an argument that names what a command writes."""
    return click.argument(name, type=click.Path(path_type=Path))


def log_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say where a new store keeps its observations."""
    options = (
        click.option(
            "--observations",
            type=click.Choice(["record", "log"]),
            help="Where states are kept; the log has each of them once.",
        ),
        click.option(
            "--frame-axis",
            type=int,
            metavar="AXIS",
            help="The axis along which a state is a stack of frames, as 0 of 4x84x84; for the log.",
        ),
        click.option(
            "--codec", type=click.Choice(["lz4", "zstd"]), help="Compress the states; for the log."
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command
