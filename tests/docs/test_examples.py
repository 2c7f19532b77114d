"""The examples run, in a short form, and print what their page says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from pages import ROOT

import diskreplay

EXAMPLES = ROOT / "docs" / "examples"
# By file: arguments that make it short, a pattern for each line of its output, the stores it makes.
SHORT: dict[str, tuple[list[str], list[str], list[str]]] = {
    "actors_and_learner.py": (
        ["--updates", "60"],
        [
            r"before: mean return \d+",
            r"2 actors pushed [\d,]+ transitions",
            r"after [\d,]+ updates: mean return \d+",
        ],
        ["replay"],
    ),
    "cartpole_n_step.py": (
        ["--steps", "700"],
        [
            rf"n_step={n}: \d+ episodes, mean return of the first 20 \d+, of the last 20 \d+"
            for n in (1, 3)
        ],
        ["1-step", "3-step"],
    ),
    "recurrent_maze.py": (
        ["--episodes", "60"],
        [r"right turns: \d+%", r"right turns without memory: \d+%"],
        ["replay"],
    ),
    "offline_from_two_runs.py": (
        ["--steps", "300", "--updates", "30"],
        [
            r"run random: mean return \d+",
            r"run rule: mean return \d+",
            r"learned from random: mean return \d+",
            r"learned from random and rule: mean return \d+",
        ],
        ["random", "rule"],
    ),
    "sb3_dqn.py": (
        ["--steps", "1500", "--save-every", "500", "--buffer", "prioritized"],
        [
            r"prioritized, seed 0: 1536 steps in \d+\.\d s, "
            r"mean return of 20 episodes \d+ \(deviation \d+\)"
        ],
        ["prioritized-0/replay"],
    ),
}
# What some need beside the packages of the tests.
NEEDED = {"sb3_dqn.py": "stable_baselines3"}


def test_each_example_is_short_and_its_page_shows_its_output() -> None:
    assert {path.name for path in EXAMPLES.iterdir() if path.suffix == ".py"} == set(SHORT)
    page = (ROOT / "docs" / "examples.md").read_text()
    for name, (_, patterns, _) in SHORT.items():
        section = page.partition(f"](examples/{name})")[2].partition("\n## ")[0]
        shown = section.partition("```text\n")[2].partition("\n```")[0].splitlines()
        assert len(shown) == len(patterns), name
        for line, pattern in zip(shown, patterns, strict=True):
            assert re.fullmatch(pattern, line), line
        assert f"```{{literalinclude}} examples/{name}\n" in section
        assert len((EXAMPLES / name).read_text().splitlines()) < 200


@pytest.mark.parametrize("name", sorted(SHORT))
def test_an_example_runs(name: str, tmp_path: Path) -> None:
    if name in NEEDED:
        pytest.importorskip(NEEDED[name])
    arguments, patterns, stores = SHORT[name]
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / name), str(tmp_path / "runs"), *arguments],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=300,
    )
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert len(lines) == len(patterns)
    for line, pattern in zip(lines, patterns, strict=True):
        assert re.fullmatch(pattern, line), line
    for store in stores:
        assert diskreplay.verify(tmp_path / "runs" / store) == []
