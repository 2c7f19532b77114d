"""Text for a terminal: headings, labelled entries, and no command to the terminal."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from dataclasses import dataclass

import click

from diskreplay.errors import printable

_EIGHTHS = " ▏▎▍▌▋▊▉█"
_LEVELS = "▁▂▃▄▅▆▇█"
_SHADES = " ░▒▓█"
_WIDEST, _NARROWEST = 100, 30
_LABEL = 12


@dataclass(frozen=True)
class Screen:
    """What is printed on: its width in columns, and whether it has block characters."""

    width: int
    blocks: bool


def screen() -> Screen:
    """Return what stdout is printed on; what is no terminal has 80 columns."""
    width = shutil.get_terminal_size().columns
    try:
        (_EIGHTHS + _LEVELS + _SHADES + "│").encode(_encoding())
        blocks = os.environ.get("TERM") != "linux"  # the console of the kernel lacks the eighths
    except UnicodeError:
        blocks = False
    return Screen(max(_NARROWEST, min(width, _WIDEST)), blocks)


def say(*texts: str, err: bool = False) -> None:
    """Print texts, with escapes in the place of what the output's encoding cannot say."""
    encoding = _encoding()
    for text in texts:
        click.echo(text.encode(encoding, "backslashreplace").decode(encoding), err=err)


def tell(text: str, *, err: bool = False) -> None:
    """Print plain lines: whatever is quoted in them does not command the terminal."""
    say(printable_lines(text), err=err)


def printable_lines(text: str) -> str:
    """Return text of several lines with escapes in the place of what would command a terminal."""
    return "\n".join(map(printable, text.split("\n")))


def heading(text: str, rest: str = "", on: Screen | None = None) -> str:
    """Return the first line of a section, or several where it is too long for one."""
    if on is not None:
        rest = _wrapped(text, rest, 2, on)[len(text) :]
    return click.style(text, bold=True) + rest


def entry(label: str, text: str, on: Screen) -> str:
    """Return a labelled text, on several lines where it is too long for one."""
    return _wrapped(f"  {label:<{_LABEL}} ", text, _LABEL + 3, on)


def item(text: str, more: str, on: Screen) -> str:
    """Return an item of a list: what it is, and what there is to say of it below."""
    return "\n".join(_wrapped("  " + " " * by, part, 4, on) for by, part in ((0, text), (2, more)))


def _wrapped(lead: str, text: str, indent: int, on: Screen) -> str:
    lines = textwrap.wrap(text, on.width - len(lead), break_on_hyphens=False)
    return ("\n" + " " * indent).join([(lead + (lines or [""])[0]).rstrip(), *lines[1:]])


def _encoding() -> str:
    return getattr(sys.stdout, "encoding", None) or "ascii"
