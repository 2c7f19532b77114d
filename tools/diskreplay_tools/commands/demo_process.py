"""A process of the demo that reports what it does as JSON lines, and may be killed; and its parent.

`report` is for the process itself. `watch` starts one, follows it, and kills it where asked.
"""

import contextlib
import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import click

AVERAGED = 20  # episodes


def report(event: str, **facts: float) -> None:
    """Write one JSON line for the process that started this one."""
    sys.stdout.write(json.dumps({"event": event, **facts}) + "\n")
    sys.stdout.flush()


@dataclass
class Run:
    """What one process reported, from its opening of the store to its end."""

    pid: int
    opened: dict[str, Any] = field(default_factory=dict)
    step: int = 0
    returns: list[float] = field(default_factory=list)


def watch(
    command: list[str],
    label: str,
    end: int,
    *,
    role: str,
    kill: bool,
    when_open: Callable[[Run], None],
) -> Run:
    """Run a process until step `end`, where it is killed, or ends by itself.

    Raises ClickException, after showing its stderr, when it ended in any other way.

    role:  its name in that error, as "learner"
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
            _follow(process, run, label, end, kill=kill, when_open=when_open)
        except BaseException:
            process.kill()  # Ctrl-C must not leave a process behind
            click.echo(f"\nstopped; what it learnt and stored is in {command[3]}", err=True)
            raise
        if process.wait() != (-signal.SIGKILL if kill else 0):
            complaints.seek(0)
            click.echo(complaints.read(), err=True, nl=False)
            raise click.ClickException(
                f"the {role} (process {run.pid}) ended by itself at step {run.step} "
                f"with exit status {process.returncode}"
            )
    return run


def _follow(
    process: subprocess.Popen[str],
    run: Run,
    label: str,
    end: int,
    *,
    kill: bool,
    when_open: Callable[[Run], None],
) -> None:
    """Read into `run` what a process reports; on a terminal, draw a progress bar."""
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


def show_cost(before: Run, after: Run) -> None:
    """Print what the kill cost."""
    opened = after.opened
    lost = max(before.step - opened["step"], 0)
    click.echo(f"process {after.pid} opened the store in {opened['seconds']:.3f} s and goes on")
    click.echo(f"  transitions written before the kill {before.step:>10,}")
    click.echo(f"  transitions found again             {opened['size']:>10,}")
    click.echo(f"  lost, pushed after the last commit  {lost:>10,}")
    if "saved_step" in opened:
        click.echo(f"  network saved at step               {opened['saved_step']:>10,}")


def average(returns: list[float]) -> str:
    """Write the mean of episode returns, or a dash when no episode has ended."""
    return f"{sum(returns) / len(returns):.1f}" if returns else "-"
