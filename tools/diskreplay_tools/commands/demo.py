"""`diskreplay demo`: a process learns CartPole-v1, is killed, and another one goes on.

This is the parent. The learner is dqn.py, in a process of its own that is not told of the kill. The
same with an Atari game is in demo_atari.py.
"""

import importlib.util
import signal
import sys
import tempfile
import time
from pathlib import Path

import click

from diskreplay.store import explained
from diskreplay.wording import count_of
from diskreplay_tools.commands import demo_atari
from diskreplay_tools.commands.demo_process import AVERAGED, Run, average, show_cost, watch

STEPS, ATARI_STEPS = 40_000, 10_000


@click.command()
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Of the network, the exploration, the environment and the buffer.",
)
@click.option(
    "--path",
    type=click.Path(file_okay=False, path_type=Path),
    help="A new or empty directory, for the store (replay/) and the network (network.npz).  "
    "[default: a temporary directory, which is kept]",
)
@click.option(
    "--steps",
    type=click.IntRange(2000, 200_000),
    help="Steps in the environment; each one is a transition.  "
    f"[default: {STEPS:,}, with --atari {ATARI_STEPS:,}]",
)
@click.option("--no-kill", is_flag=True, help="Learn in one process, undisturbed.")
@click.option("--atari", is_flag=True, help="Random play of an Atari game instead.")
@click.option("--game", help="The Atari game.  [default: Pong]")
def demo(
    seed: int, path: Path | None, steps: int | None, no_kill: bool, atari: bool, game: str | None
) -> None:
    """Learn CartPole-v1, and survive a kill half-way.

    A small deep Q-network in numpy learns to balance a pole from a PrioritizedReplayBuffer on
    disk. Half-way its process is killed (kill -9), and a new one opens the same store and goes on.
    It takes a minute or two and needs gymnasium: pip install 'diskreplay[demo]'

    With --atari a game is played at random, its frames go to the disk in stacks of four, and the
    report compares what a transition takes there, stored in several ways. It takes half a minute
    and needs ale-py: pip install 'diskreplay[atari]'

    Example: diskreplay demo --seed 1 --path runs/cartpole
    """
    if game is not None and not atari:
        raise click.UsageError("--game chooses an Atari game: give --atari, too")
    if atari:
        demo_atari.check(game or demo_atari.GAME)
        directory = new_directory(path)
        demo_atari.demo(directory, game or demo_atari.GAME, seed, steps or ATARI_STEPS, not no_kill)
        return
    if importlib.util.find_spec("gymnasium") is None:
        raise click.ClickException(
            "the demo needs gymnasium, which is not installed: pip install 'diskreplay[demo]'"
        )
    learn(new_directory(path), seed, steps or STEPS, not no_kill)


def learn(directory: Path, seed: int, steps: int, kill: bool) -> None:
    """Learn CartPole-v1 in a process, kill it half-way where that is asked, and report."""
    command = [sys.executable, "-m", "diskreplay_tools.commands.dqn", str(directory)]
    command += ["--seed", str(seed), "--steps", str(steps)]
    click.echo(f"CartPole-v1, {count_of(steps, 'step')}, seed {seed}, in {directory}")
    began = time.monotonic()
    if not kill:
        run = watch(command, "learning", steps, role="learner", kill=False, when_open=show_start)
        averages = {"first": run.returns[:AVERAGED], "last": run.returns[-AVERAGED:]}
    else:
        before = watch(
            command, "first half", steps // 2, role="learner", kill=True, when_open=show_start
        )
        click.echo(f"process {before.pid} was killed half-way, with signal {signal.SIGKILL:d}")
        after = watch(
            command, "second half", steps, role="learner", kill=False,
            when_open=lambda run: show_cost(before, run),
        )  # fmt: skip
        averages = {
            "first": before.returns[:AVERAGED],
            "last before the kill": before.returns[-AVERAGED:],
            "first after the kill": after.returns[:AVERAGED],
            "last": (before.returns + after.returns)[-AVERAGED:],
        }
    click.echo(f"average return (all took {time.monotonic() - began:.0f} s)")
    for which, returns in averages.items():
        words = which.split(maxsplit=1)
        words.insert(1, f"{len(returns)} episodes")
        click.echo(f"  {' '.join(words):<36}{average(returns):>10}")
    click.echo(f"the store is kept: diskreplay.open({str(directory / 'replay')!r})")


def new_directory(path: Path | None) -> Path:
    """Make the directory of the demo. A path that holds anything is refused."""
    if path is None:
        return Path(tempfile.mkdtemp(prefix="diskreplay-demo-"))
    if path.exists() and any(path.iterdir()):
        raise click.BadParameter(
            f"{path} is not empty, and the demo does not overwrite: "
            f"give a new directory, or remove this one.",
            param_hint="'--path'",
        )
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise click.ClickException(f"cannot make {path}: {explained(error, path)}") from error
    return path


def show_start(run: Run) -> None:
    """Print which process learns."""
    click.echo(f"process {run.pid} learns")
