"""The click group `diskreplay`: its commands, and how errors are told."""

from __future__ import annotations

import difflib
import importlib
import warnings
from pathlib import Path
from typing import Any

import click

import diskreplay
from diskreplay.errors import printable
from diskreplay.store import explained
from diskreplay_tools.charts import printable_lines, tell

# By section of the help. A command is loaded when it is asked for: some need what is slow to load.
SECTIONS = {
    "Look into a store": {
        "inspect": "inspecting",
        "schema": "inspecting",
        "report": "reporting",
        "verify": "checking",
    },
    "Change a store": {
        "compact": "changing",
        "resize": "changing",
        "convert": "changing",
        "clear": "changing",
    },
    "Make a store of others": {
        "copy": "making",
        "merge": "making",
        "repair": "making",
        "import": "importing",
    },
    "Take data out": {"export": "exporting"},
    "Try it": {"bench": "measuring", "demo": "demo"},
}
COMMANDS = {name: module for section in SECTIONS.values() for name, module in section.items()}


def say_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """Say a warning of the library as a sentence."""
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
            raise  # click ends quietly when who reads has gone
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
            near = difflib.get_close_matches(args[0].lower(), COMMANDS)
            if not near or "Did you mean" in error.message:  # a later click may say it itself
                raise
            meant = f"Did you mean {' or '.join(map(repr, near))}?"
            raise click.UsageError(f"{error.message} {meant}", ctx) from None

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command by name."""
        if cmd_name not in COMMANDS:
            return super().get_command(ctx, cmd_name)
        module = importlib.import_module(f"diskreplay_tools.{COMMANDS[cmd_name]}")
        name = f"{cmd_name}_" if cmd_name in ("import", "copy") else cmd_name
        command: click.Command = getattr(module, name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands section by section."""
        width = max(map(len, COMMANDS))
        for section, names in SECTIONS.items():
            rows = []
            for name in names:
                command = self.get_command(ctx, name)
                limit = formatter.width - width - 6
                rows.append(
                    (name.ljust(width), command.get_short_help_str(limit) if command else "")
                )
            with formatter.section(section):
                formatter.write_dl(rows)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(diskreplay.__version__, prog_name="diskreplay")
def main() -> None:
    """Experience-replay buffers that live on disk: look into one, compact it, move it.

    Example: diskreplay inspect runs/a
    """
