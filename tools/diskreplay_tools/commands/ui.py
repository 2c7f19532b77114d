"""`diskreplay ui`: a web page about a running replay."""

from __future__ import annotations

import os
import signal
import socket

import click

from diskreplay_tools.commands.arguments import replay_argument
from diskreplay_tools.stores import Target
from diskreplay_tools.terminal import tell
from diskreplay_tools.ui import is_loopback, serve_page


@click.command()
@replay_argument
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to serve at.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=7788,
    show_default=True,
    help="The port; 0 takes a free one.",
)
@click.option("--insecure", is_flag=True, help="Serve at an address that others reach.")
def ui(target: Target, host: str, port: int, insecure: bool) -> None:
    """Show a running replay as a web page.

    Fill, rates, priorities, rewards, returns of episodes, and the transitions themselves, with
    images drawn, by run, priority and end of episode; marks, runs, and the processes that have the
    store open. The page follows the commits of the writers, changes nothing, reads little at a
    time, and loads nothing from elsewhere. Only this machine reaches it, unless --host and
    --insecure say otherwise. It goes on until Ctrl-C.

    It needs NiceGUI: pip install 'diskreplay[ui]'

    Example: diskreplay ui runs/a
    """
    if not is_loopback(host) and not insecure:
        raise click.UsageError(
            f"at {host} everybody who reaches this machine can read all of {target.place}, without "
            "a password: --insecure allows it"
        )
    listening = _listening(host, port)
    shown, port = f"[{host}]" if ":" in host else host, listening.getsockname()[1]
    address = f"http://{shown}:{port}"
    received = serve_page(
        target,
        host,
        listening,
        started=lambda: tell(f"{address} shows {target.place} (Ctrl-C ends it)"),
    )
    if received == signal.SIGINT:
        click.echo()  # below the ^C that the terminal shows
    os._exit(0)  # the threads of the server never end


def _listening(host: str, port: int) -> socket.socket:
    """Return a socket that listens at a port, at a free one for 0; raise where it is taken."""
    try:
        family, *_, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return socket.create_server(address, family=family)
    except OSError as error:
        reason = (error.strerror or "").partition(" (while")[0]  # the address is named below
        raise click.ClickException(
            f"cannot serve at {host}, port {port}: {reason}; --port 0 takes a free one"
        ) from None
