"""`diskreplay report`: what is in a store, as one HTML page with figures."""

from __future__ import annotations

from pathlib import Path

import click

import diskreplay
from diskreplay.wording import human
from diskreplay_tools.commands.arguments import force_option, store_argument
from diskreplay_tools.files import new_file
from diskreplay_tools.report import Figures, page_of
from diskreplay_tools.terminal import progress


@click.command()
@store_argument
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    default=Path("report.html"),
    show_default=True,
    help="The page to write.",
)
@force_option
def report(path: Path, out: Path, force: bool) -> None:
    """Draw what is in a store, as one HTML page.

    The page shows priorities, rewards, episodes, actions, observations (images as a contact sheet)
    and which run wrote what, with the facts of the store. It is one file that loads nothing and
    runs nothing, for a browser on a desk or a phone, in light or dark. Of a large store a part is
    read, and each figure says which. The store may be in use meanwhile.

    It needs matplotlib: pip install 'diskreplay[report]'

    Example: diskreplay report runs/a -o report.html
    """
    figures = Figures()
    with (
        new_file(out, force=force) as place,
        diskreplay.open(path, access="read", window_bytes=0) as buffer,
        progress("reading") as show,
    ):
        place.write_text(page_of(buffer, figures, show), encoding="utf-8")
    click.echo(f"{click.format_filename(out)}: {human(out.stat().st_size)}")
