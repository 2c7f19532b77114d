"""`diskreplay top`: rates of a replay, live in the terminal."""

from __future__ import annotations

import click

from diskreplay_tools.commands.arguments import json_option, replay_argument
from diskreplay_tools.stores import Target
from diskreplay_tools.terminal import look_once, watch


@click.command()
@replay_argument
@click.option(
    "--seconds",
    type=click.FloatRange(min=0.1, max=86400),
    default=1.0,
    show_default=True,
    help="The time between two looks.",
)
@click.option("--once", is_flag=True, help="Look twice, print the second look, and end.")
@json_option
def top(target: Target, seconds: float, once: bool, as_json: bool) -> None:
    """Show how fast a replay is written and drawn from, live.

    Transitions pushed, batches drawn, priority updates and commits a second, with fill, size on
    disk, the number of the next draw, and how old the newest row is. Rates are over the last ten
    seconds, from counters that the store keeps; it says where nobody counts. It changes nothing,
    and goes on until Ctrl-C.

    \b
    Example: diskreplay top runs/a
             diskreplay top runs/a --once --json
    """
    with target.open() as replay:
        show = look_once if once else watch
        show(replay, target.place, seconds, as_json=as_json)
