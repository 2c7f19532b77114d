"""Virtual environments for the peers, one each, since they need different versions of numpy."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click

from bench.driver import PEERS

HERE = Path(__file__).parent


@click.command()
@click.argument("peers", nargs=-1, type=click.Choice(PEERS))
@click.option(
    "--into",
    type=click.Path(path_type=Path),
    default=HERE / ".peers",
    show_default=".peers beside this tool",
    help="A directory; each gets one of its name in it.",
)
def install(peers: tuple[str, ...], into: Path) -> None:
    """Install peers, or all of them.

    Each is made from its requirements file beside this tool. The exit status is 1 when one cannot
    be installed. Example: python -m bench install cpprb sb3
    """  # fmt: skip
    failed = [name for name in peers or PEERS if not is_installed(name, into.absolute() / name)]
    if failed:
        raise click.ClickException(f"these could not be installed: {', '.join(failed)}")


def is_installed(name: str, place: Path) -> bool:
    """Make one environment, and return whether it worked; pip says what did not."""
    python = place / "bin" / "python"
    commands: list[list[str | Path]] = [
        [sys.executable, "-m", "venv", "--clear", place],
        [python, "-m", "pip", "install", "-r", HERE / f"requirements-{name}.txt"],
    ]
    if name == "torchrl":
        commands.append([python, HERE / "build_torchrl.py"])
    for command in commands:
        if subprocess.run(command).returncode:
            click.echo(f"{name} is not installed", err=True)
            return False
    click.echo(f"{name} is installed", err=True)
    return True
