"""The injectors that kill processes: short runs, as a user starts them, and what they can see."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / "tools"
BEFORE = """\
import os, signal, diskreplay
from crash import kill, share
kinds = diskreplay.ReplayBuffer, diskreplay.PrioritizedReplayBuffer
"""
# What is broken in a writer before it is told to write, and what then has to be reported.
SABOTAGE = {
    "acknowledged before it is committed": (
        "for kind in kinds: kind.flush = lambda self: None",
        r"[1-9]\d* transitions are lost",
    ),
    "get() mixes two transitions": (
        """
        for kind in kinds:
            def get(self, indices, real=kind.get):
                batch = real(self, indices)
                batch.rewards[-1] = batch.rewards[0] + 1
                return batch
            kind.get = get
        """,
        "transitions are not whole",
    ),
    "the process that reopens the store dies": (
        "for kind in kinds: kind.check = lambda self: os.kill(os.getpid(), signal.SIGSEGV)",
        "it ended with status -11",
    ),
}


def run(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        cwd=TOOLS,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        timeout=1000,
    )


def last_line(result: subprocess.CompletedProcess[str]) -> str:
    return result.stdout.splitlines()[-1]


def test_kills_lose_nothing(tmp_path: Path, long: bool) -> None:
    rounds = 1000 if long else 12
    result = run(tmp_path, "-m", "crash.kill", "--rounds", str(rounds), "--seed", "3")
    assert result.returncode == 0, result.stdout + result.stderr
    found = re.fullmatch(
        rf"{rounds:,} rounds in \d+ s: of ([\d,]+) acknowledged transitions 0 lost, "
        r"of ([\d,]+) priorities 0 undone, 0 wrong reads, 0 failed stores",
        last_line(result),
    )
    assert found, result.stdout
    assert all(int(number.replace(",", "")) > 0 for number in found.groups())
    assert not list(tmp_path.iterdir())


def test_the_kinds_of_kills_can_be_chosen(tmp_path: Path) -> None:
    result = run(
        tmp_path, "-m", "crash.kill", "--rounds", "2", "--access", "exclusive",
        "--durability", "full",
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    assert [line.split()[:2] for line in result.stdout.splitlines()[2:-1]] == [
        ["exclusive,", "full"]
    ]


@pytest.mark.parametrize("what", list(SABOTAGE))
def test_kills_of_a_broken_writer_are_seen(what: str, tmp_path: Path) -> None:
    broken, expected = SABOTAGE[what]
    options = ["--rounds", "5", "--durability", "process", "--access", "exclusive"]
    result = run(tmp_path, "-c", f"{BEFORE}{textwrap.dedent(broken)}\nkill.main({options})")
    assert result.returncode == 1, result.stdout + result.stderr
    assert re.search(expected, result.stderr), result.stderr
    kept = re.findall(r"^(\S+) is kept", result.stderr, re.MULTILINE)
    assert kept
    assert all((Path(path) / "data.mdb").exists() for path in kept)


def test_sharing_loses_nothing(tmp_path: Path, long: bool) -> None:
    minutes = 5 if long else 0.04
    result = run(tmp_path, "-m", "crash.share", "--minutes", str(minutes), "--seed", "1")
    assert result.returncode == 0, result.stdout + result.stderr
    assert last_line(result) == "0 failures"
    rows = dict(re.findall(r"^(.+?)  +(\S+  +\S+)$", result.stdout, re.MULTILINE))
    for fact in ("lost", "undone", "wrong reads", "reader slots of the dead"):
        assert rows[fact].split() == ["0", "0"]
    for fact in ("killed", "batches that readers checked", "acknowledged transitions found"):
        assert all(int(value.replace(",", "")) > 0 for value in rows[fact].split()), result.stdout
    assert not list(tmp_path.iterdir())


def test_sharing_with_a_broken_writer_is_seen(tmp_path: Path) -> None:
    broken, expected = SABOTAGE["acknowledged before it is committed"]
    options = ["--minutes", "0.03", "--readers", "1"]
    result = run(tmp_path, "-c", f"{BEFORE}{broken}\nshare.main({options})")
    assert result.returncode == 1, result.stdout + result.stderr
    assert re.search(expected, result.stderr), result.stderr
