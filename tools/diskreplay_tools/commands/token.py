"""`diskreplay token`: make a token for a client of a service."""

from __future__ import annotations

from pathlib import Path

import click

from diskreplay.service import RIGHTS, add_token
from diskreplay_tools.terminal import say


@click.command()
@click.argument("name")
@click.option(
    "--rights",
    required=True,
    metavar="RIGHTS",
    help=f"Some of {', '.join(RIGHTS)}, with commas between them.",
)
@click.option(
    "--tokens",
    "file",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="The tokens file of the service; made where it is not there.",
)
def token(name: str, rights: str, file: Path) -> None:
    """Make a token for a client of a service.

    It adds a line to the tokens file, with the name, the rights and a digest (SHA-256) of the
    token, and prints the token, which stands nowhere else. A service reads the file when it
    starts. To take a token away, remove its line and start the service again.

    Example: diskreplay token actors --rights push --tokens tokens.txt
    """
    say(add_token(file, name, rights.split(",")))
