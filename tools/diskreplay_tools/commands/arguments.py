"""Arguments and options that several commands take."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from diskreplay_tools.stores import TOKEN_VARIABLE, Target, is_url

store_argument = click.argument(
    "path", type=click.Path(exists=True, file_okay=False, path_type=Path)
)


class _PathOrURL(click.Path):
    """The path of a store, or the URL of a service."""

    def __init__(self) -> None:
        super().__init__(exists=True, file_okay=False)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the words as they are, if they are a URL or there is a directory."""
        text = os.fsdecode(value)
        return text if is_url(text) else os.fsdecode(super().convert(value, param, ctx))


def replay_argument(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the argument that names a replay, and the options of a client of a service.

    The command gets them as one `target`.
    """

    @functools.wraps(command)
    def with_target(
        *arguments: Any,
        target: str,
        token_file: Path | None,
        ca: Path | None,
        cert: Path | None,
        key: Path | None,
        **options: Any,
    ) -> Any:
        files = {"--token-file": token_file, "--ca": ca, "--cert": cert, "--key": key}
        given = [name for name, file in files.items() if file is not None]
        if given and not is_url(target):
            raise click.UsageError(
                f"{given[0]} is for the URL of a service (found the path {target})"
            )
        if (cert is None) != (key is None):
            raise click.UsageError("a certificate needs its key: give both --cert and --key")
        pair = (cert, key) if cert is not None and key is not None else None
        return command(*arguments, target=Target(target, token_file, ca, pair), **options)

    file = click.Path(exists=True, dir_okay=False, path_type=Path)
    for decorate in (
        click.option("--key", type=file, metavar="FILE", help="Its private key, in PEM."),
        click.option(
            "--cert", type=file, metavar="FILE", help="The certificate of this client, in PEM."
        ),
        click.option(
            "--ca", type=file, metavar="FILE", help="The authority of the service's certificate."
        ),
        click.option(
            "--token-file",
            type=file,
            metavar="FILE",
            help=f"The file with the token for a URL; else it is that of {TOKEN_VARIABLE}.",
        ),
        click.argument("target", metavar="PATH|URL", type=_PathOrURL()),
    ):
        with_target = decorate(with_target)
    return with_target


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
