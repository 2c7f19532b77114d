"""The options that the commands share, and their messages on the standard error."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import click

from bench.driver import OWN, PEERS, Measured

Callback = Callable[[click.Context, click.Parameter, str], list[str]]


def out_of(known: Sequence[str]) -> Callback:
    """Return what takes apart an option of names with commas between them."""

    def names(_: click.Context, __: click.Parameter, value: str) -> list[str]:
        given = value.split(",")
        for name in given:
            if name not in known:
                raise click.BadParameter(f"{name!r} is none of {', '.join(known)}")
        return [name for name in known if name in given]

    return names


Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def shared(*names: str) -> Decorator:
    """Return a decorator that gives a command the options of these names."""
    options: dict[str, Decorator] = {
        "against": click.option(
            "--against", callback=out_of(PEERS), default=",".join(PEERS), show_default=True,
            help="Peers, with commas between them.",
        ),
        "peers": click.option(
            "--peers", type=click.Path(path_type=Path), default=Path(__file__).parent / ".peers",
            help="Where their virtual environments are.", show_default=".peers beside this tool",
        ),
        "place": click.option(
            "--place", type=click.Path(path_type=Path, file_okay=False, exists=True),
            help="Where stores are made for the time of it; the temporary directory by default.",
        ),
        "out": click.option(
            "--out", type=click.Path(path_type=Path, dir_okay=False),
            help="Write everything that was measured into this file, as JSON.",
        ),
        "tiny": click.option(
            "--tiny", is_flag=True, help="A small size of everything, to see that it works.",
        ),
    }  # fmt: skip

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for name in reversed(names):
            command = options[name](command)
        return command

    return decorate


def only_of(known: Sequence[str], help_text: str = "Groups of rows") -> Decorator:
    """Return the decorator of --only: some names of the known ones, by default all."""
    return click.option(
        "--only", callback=out_of(known), default=",".join(known), show_default=True,
        help=f"{help_text}, with commas between them.",
    )  # fmt: skip


def tell(line: str) -> None:
    """Print how far it is; the table itself goes to stdout."""
    click.echo(line, err=True)


def stop_if_failed(measured: Iterable[Measured]) -> None:
    """End with status 1 when something of ours failed; peers may."""
    for one in measured:
        if one.has_failed and one.leg.system in OWN:
            raise click.ClickException(one.missing)
