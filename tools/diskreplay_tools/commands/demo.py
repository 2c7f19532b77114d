"""`diskreplay demo`: a process learns CartPole-v1, is killed, and another one goes on.

This is the parent. The learner is dqn.py, in a process of its own that is not told of the kill.
"""

import contextlib
import importlib.util
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from diskreplay.store import explained
from diskreplay.wording import count_of

AVERAGED = 20  # episodes


@dataclass
class Run:
    """What one learner process reported, from its opening of the store to its end."""

    pid: int
    opened: dict[str, Any] = field(default_factory=dict)
    step: int = 0
    returns: list[float] = field(default_factory=list)


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
    default=40_000,
    show_default=True,
    help="Steps in the environment; each one is a transition.",
)
@click.option("--no-kill", is_flag=True, help="Learn in one process, undisturbed.")
def demo(seed: int, path: Path | None, steps: int, no_kill: bool) -> None:
    """Learn CartPole-v1, and survive a kill half-way.

    A small deep Q-network in numpy learns to balance a pole from a PrioritizedReplayBuffer on
    disk. Half-way its process is killed (kill -9), and a new one opens the same store and goes on.
    It takes a minute or two and needs gymnasium: pip install 'diskreplay[demo]'

    Example: diskreplay demo --seed 1 --path runs/cartpole
    """
    if importlib.util.find_spec("gymnasium") is None:
        raise click.ClickException(
            "the demo needs gymnasium, which is not installed: pip install 'diskreplay[demo]'"
        )
    directory = new_directory(path)
    command = [sys.executable, "-m", "diskreplay_tools.commands.dqn", str(directory)]
    command += ["--seed", str(seed), "--steps", str(steps)]
    click.echo(f"CartPole-v1, {count_of(steps, 'step')}, seed {seed}, in {directory}")
    began = time.monotonic()
    if no_kill:
        run = watch(command, "learning", steps, kill=False, when_open=show_start)
        averages = {"first": run.returns[:AVERAGED], "last": run.returns[-AVERAGED:]}
    else:
        before = watch(command, "first half", steps // 2, kill=True, when_open=show_start)
        click.echo(f"process {before.pid} was killed half-way, with signal {signal.SIGKILL:d}")
        after = watch(
            command, "second half", steps, kill=False, when_open=lambda run: show_cost(before, run)
        )
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


def watch(
    command: list[str], label: str, end: int, *, kill: bool, when_open: Callable[[Run], None]
) -> Run:
    """Run a learner until step `end`, where it is killed, or ends by itself.

    Raises ClickException, after showing its stderr, when it ended in any other way.
    """
    with (
        tempfile.TemporaryFile("w+") as complaints,
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=complaints,
            text=True,
        ) as process,
    ):
        run = Run(process.pid)
        try:
            follow(process, run, label, end, kill=kill, when_open=when_open)
        except BaseException:
            process.kill()  # Ctrl-C must not leave a learner behind
            click.echo(f"\nstopped; what it learnt and stored is in {command[3]}", err=True)
            raise
        if process.wait() != (-signal.SIGKILL if kill else 0):
            complaints.seek(0)
            click.echo(complaints.read(), err=True, nl=False)
            raise click.ClickException(
                f"the learner (process {run.pid}) ended by itself at step {run.step} "
                f"with exit status {process.returncode}"
            )
    return run


def follow(
    process: subprocess.Popen[str],
    run: Run,
    label: str,
    end: int,
    *,
    kill: bool,
    when_open: Callable[[Run], None],
) -> None:
    """Read into `run` what a learner reports; on a terminal, draw a progress bar."""
    bar: Any = None
    with contextlib.ExitStack() as stack:
        for line in process.stdout or ():
            facts = json.loads(line)
            if facts["event"] == "open":
                run.opened, run.step = facts, facts["step"]
                when_open(run)
                if sys.stderr.isatty():
                    bar = click.progressbar(
                        length=end - run.step,
                        label=label,
                        item_show_func=lambda _: f"return {average(run.returns[-AVERAGED:])}",
                        file=sys.stderr,
                        width=24,  # with the rest of the line within 80 columns
                        update_min_steps=50,
                    )
                    stack.enter_context(bar)
            elif facts["event"] == "episode":
                run.returns.append(facts["episode_return"])
            else:
                run.step = facts["step"]
                if bar is not None:
                    bar.update(1)
                if kill and run.step == end:
                    process.kill()


def show_start(run: Run) -> None:
    """Print which process learns."""
    click.echo(f"process {run.pid} learns")


def show_cost(before: Run, after: Run) -> None:
    """Print what the kill cost."""
    opened = after.opened
    lost = max(before.step - opened["step"], 0)
    click.echo(f"process {after.pid} opened the store in {opened['seconds']:.3f} s and goes on")
    click.echo(f"  transitions written before the kill {before.step:>10,}")
    click.echo(f"  transitions found again             {opened['size']:>10,}")
    click.echo(f"  lost, pushed after the last commit  {lost:>10,}")
    click.echo(f"  network saved at step               {opened['saved_step']:>10,}")


def average(returns: list[float]) -> str:
    """Write the mean of episode returns, or a dash when no episode has ended."""
    return f"{sum(returns) / len(returns):.1f}" if returns else "-"
