"""The click group `diskreplay`: its commands, and how errors are told."""

from __future__ import annotations

import difflib
import warnings
from pathlib import Path
from typing import Any

import click

import diskreplay
from diskreplay.errors import printable
from diskreplay.store import explained
from diskreplay_tools.commands import SECTIONS
from diskreplay_tools.terminal import printable_lines, tell


def say_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """Print a warning of the library as a sentence."""
    tell(f"Warning: {message}", err=True)


class Commands(click.Group):
    """A group in which an error is one sentence on stderr and exit status 1."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was asked for."""
        try:
            with warnings.catch_warnings():
                warnings.showwarning = say_warning
                return super().invoke(ctx)
        except diskreplay.DiskReplayError as error:
            raise click.ClickException(str(error)) from error
        except click.ClickException as error:
            # What a file or a store says must not command the terminal.
            vars(error)["message"] = printable_lines(error.message)
            raise
        except BrokenPipeError:
            raise  # click ends quietly when the reader of the output has gone
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            said = explained(error, Path(error.filename or "."))
            raise click.ClickException(printable(f"{where}{said}")) from error
        except MemoryError as error:
            raise click.ClickException("there is not enough memory for that") from error

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that is named first; of a mistyped one, say which it may be."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            near = difflib.get_close_matches(args[0].lower(), self.commands)
            if not near or "Did you mean" in error.message:  # a later click may say it itself
                raise
            meant = f"Did you mean {' or '.join(map(repr, near))}?"
            raise click.UsageError(f"{error.message} {meant}", ctx) from None

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the help."""
        return list(self.commands)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands section by section."""
        width = max(map(len, self.commands))
        limit = formatter.width - width - 6
        for section, commands in SECTIONS.items():
            with formatter.section(section):
                formatter.write_dl(
                    [
                        ((command.name or "").ljust(width), command.get_short_help_str(limit))
                        for command in commands
                    ]
                )


@click.group(
    cls=Commands,
    commands=[command for section in SECTIONS.values() for command in section],
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(diskreplay.__version__, prog_name="diskreplay")
def main() -> None:
    """Experience-replay buffers that live on disk: look into one, compact it, move it.

    Example: diskreplay inspect runs/a
    """
