"""The click group `diskreplay`: its commands, and how errors of the library are told."""

from typing import Any

import click

import diskreplay
from diskreplay_tools.demo import demo


class Commands(click.Group):
    """A group in which an error of the library is one sentence on stderr and exit status 1."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except diskreplay.DiskReplayError as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(diskreplay.__version__, prog_name="diskreplay")
def main() -> None:
    """Experience-replay buffers that live on disk.

    Example: diskreplay demo --seed 1
    """


main.add_command(demo)
