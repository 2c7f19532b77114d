"""`diskreplay serve`: serve stores to clients of other processes and machines."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from diskreplay.service import Limits, serve_stores
from diskreplay_tools.extras import needed
from diskreplay_tools.terminal import say

_LOOPBACK = "grpc://127.0.0.1:7777"
_file = click.Path(exists=True, dir_okay=False, path_type=Path)
_DEFAULTS = Limits()


def _limit(name: str, default: int, what: str) -> Callable[[Callable[..., Any]], Any]:
    """Return the decorator of an option that is a limit of the service."""
    return click.option(
        name,
        type=int,
        default=default,
        show_default=True,
        metavar="N",
        help=what,
    )


@click.command()
@click.argument("stores", nargs=-1, required=True, metavar="[NAME=]PATH...")
@click.option(
    "--listen", default=_LOOPBACK, show_default=True, metavar="URL", help="Where clients connect."
)
@click.option("--tokens", type=_file, help="The tokens of clients, see diskreplay token.")
@click.option("--tls-cert", type=_file, help="The certificate of the server, in PEM.")
@click.option("--tls-key", type=_file, help="Its private key, in PEM.")
@click.option("--client-ca", type=_file, help="Ask clients for a certificate that this one signed.")
@click.option("--insecure", is_flag=True, help="Let other machines in without tokens or TLS.")
@click.option("--min-size", type=int, metavar="N", help="Rows before any is sampled.")
@click.option("--samples-per-insert", type=float, metavar="X", help="Of each row, on average.")
@click.option("--tolerance", type=float, metavar="N", help="Samples by which that may be wrong.")
@click.option("--metrics", metavar="HOST:PORT", help="Where Prometheus collects figures.")
@_limit("--max-message-bytes", _DEFAULTS.message_bytes, "Of a group of rows, and of a batch.")
@_limit("--max-rows", _DEFAULTS.rows, "Of a call.")
@_limit("--max-memory-bytes", _DEFAULTS.memory_bytes, "Of large messages, at one time.")
@_limit("--max-calls", _DEFAULTS.calls, "At one time, of all clients, streams included.")
def serve(
    stores: tuple[str, ...],
    listen: str,
    tokens: Path | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    client_ca: Path | None,
    insecure: bool,
    min_size: int | None,
    samples_per_insert: float | None,
    tolerance: float | None,
    metrics: str | None,
    **limits: int,
) -> None:
    """Serve stores to clients of other processes and machines.

    A client opens one with diskreplay.connect(URL), or URL/NAME where there are several; the name
    of a store is that of its directory, unless NAME= says another. Other machines are let in with
    tokens and TLS alone, or with --insecure. SIGTERM and Ctrl-C commit everything and end it; after
    a kill, what clients were told is committed is there. It logs a JSON object a line to stderr.

    \b
    Example: diskreplay serve runs/a
             diskreplay serve runs/a --listen grpc+unix:///run/replay.sock
             diskreplay serve runs/a --samples-per-insert 8 --tolerance 1000
    """
    needed("pyarrow.flight", "service", "diskreplay serve")
    needed("prometheus_client", "service", "diskreplay serve")
    rate = {
        "min_size": min_size, "samples_per_insert": samples_per_insert, "tolerance": tolerance,
    }  # fmt: skip
    given = {name.removeprefix("max_"): n for name, n in limits.items()}
    serve_stores(
        _by_name(stores),
        listen,
        tokens=tokens,
        tls=(tls_cert, tls_key, client_ca),
        insecure=insecure,
        limits=Limits(**given),
        rate={name: value for name, value in rate.items() if value is not None},
        metrics=metrics,
        started=lambda url: say(f"serving at {url}"),
    )
    # Connections that clients keep open have threads that wait for them, which nothing can end.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _by_name(stores: tuple[str, ...]) -> dict[str, Path]:
    """Return the paths of stores by their names."""
    found: dict[str, Path] = {}
    for word in stores:
        name, _, path = word.rpartition("=") if not Path(word).exists() else ("", "", word)
        name = name or Path(path).absolute().name
        if name in found:
            raise click.UsageError(f"two stores have the name {name}: give one of them NAME=PATH")
        found[name] = Path(path)
    return found
