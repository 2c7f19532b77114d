"""Commands, run in this process or in one of their own, and what they print."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from click.testing import Result
from diskreplay_tools.cli import main
from runner import runner

COMMAND = [sys.executable, "-W", "error", "-m", "diskreplay_tools"]
WIDTHS = (40, 80, 120)


def run(
    *arguments: object, status: int = 0, columns: int = 80, charset: str = "utf-8", **more: Any
) -> Result:
    """Run a command in this process, and compare its exit status."""
    environment = {"COLUMNS": str(columns)}
    done = runner(charset=charset).invoke(main, list(map(str, arguments)), env=environment, **more)
    assert done.exit_code == status, (done.output, done.exception)
    assert done.exception is None or isinstance(done.exception, SystemExit)
    return done


def refused(*arguments: object, status: int = 1) -> str:
    """Return the one sentence that an error is."""
    done = run(*arguments, status=status)
    assert done.stdout == ""
    if status == 1:
        assert done.stderr.startswith("Error: ")
        assert done.stderr.count("\n") == 1
    return done.stderr


def shown(*arguments: object, columns: int = 80) -> str:
    """Return what `inspect` shows."""
    done = run("inspect", *arguments, columns=columns)
    assert done.stderr == ""
    return done.stdout


def strict_json(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


def facts(*arguments: object) -> Any:
    return strict_json(shown(*arguments, "--json"))


def process(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own."""
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        capture_output=True, text=True, timeout=300, env={**os.environ, **environment},
    )  # fmt: skip


# Kills a command at random moments, again and again. What its file is before each time is nothing,
# or, where `before` is given, this. What there is in the end is what was there, or what is whole.
KILLER = """
import os, random, signal, sys, time
from pathlib import Path
from diskreplay_tools import cli

def begin():
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        try:
            cli.main([*sys.argv[1:], "--force"], standalone_mode=False)
        finally:
            os._exit(0)
    return child

def kill_often(out, times, before, is_whole):
    rng, killed = random.Random(5), 0
    started = time.monotonic()
    os.waitpid(begin(), 0)
    takes = time.monotonic() - started
    assert is_whole(out)
    for i in range(times):
        if out.exists():
            os.rename(out, out.with_name(f".{i}"))
        if before is not None and i % 2:
            out.write_bytes(before)
        child = begin()
        time.sleep(rng.uniform(0, 0.9 * takes))  # a moment, and not a wait
        os.kill(child, signal.SIGKILL)
        killed += os.WIFSIGNALED(os.waitpid(child, 0)[1])
        is_old = out.exists() and before is not None and i % 2 and out.read_bytes() == before
        assert not out.exists() or is_old or is_whole(out), i
        assert out.exists() or before is None or not i % 2, i
        seen = [path.name for path in out.parent.iterdir() if not path.name.startswith(".")]
        assert seen == [out.name] * out.exists(), seen
    print(killed)
"""
