"""The examples run, in a short form, print what their page says, and go on after a kill."""

from __future__ import annotations

import importlib.util
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pages import ROOT

import diskreplay

EXAMPLES = ROOT / "docs" / "examples"
EPISODES = r"(episodes up to \d+: mean return \d+\n)+"
ALE_BANNER = r"(A\.L\.E: .*\n\[Powered by Stella\]\n?)?"  # which it writes where errors go
SAVED = r"(saved at step \d+\n)+"
# By file: arguments that make it short, a pattern of its output, the stores it makes. Of some the
# page shows the output with a kill in between.
SHORT: dict[str, tuple[list[str], str, list[str]]] = {
    "actors_and_learner.py": (
        ["--updates", "60"],
        r"before: mean return \d+\n"
        r"2 actors pushed [\d,]+ transitions\n"
        r"after [\d,]+ updates: mean return \d+\n",
        ["replay"],
    ),
    "atari_dqn.py": (
        ["--steps", "1200", "--learning-starts", "1180", "--save-every", "600"],
        r"(step [\d,]+: an episode ends with a return of -?\d+\n)+"
        r"[\d,]+ transitions of [\d,]+ bytes, instead of 56,\d\d\d\n",
        ["replay"],
    ),
    "cartpole_n_step.py": (
        ["--steps", "700"],
        r"n_step=1: \d+ episodes, mean return of the first 20 \d+, of the last 20 \d+\n"
        r"n_step=3: \d+ episodes, mean return of the first 20 \d+, of the last 20 \d+\n",
        ["1-step", "3-step"],
    ),
    "recurrent_maze.py": (
        ["--episodes", "60"],
        r"right turns: \d+%\nright turns without memory: \d+%\n",
        ["replay"],
    ),
    "offline_from_two_runs.py": (
        ["--steps", "300", "--updates", "30"],
        r"run random: mean return \d+\n"
        r"run rule: mean return \d+\n"
        r"learned from random: mean return \d+\n"
        r"learned from random and rule: mean return \d+\n",
        ["random", "rule"],
    ),
    "sb3_dqn.py": (
        ["--steps", "1500", "--save-every", "500", "--buffer", "prioritized", "--n-envs", "2"],
        r"prioritized, seed 0: 1536 steps in \d+\.\d s, "
        r"mean return of 20 episodes \d+ \(deviation \d+\)\n",
        ["prioritized-0/replay"],
    ),
    "sb3_sac.py": (
        ["--steps", "300", "--save-every", "100"],
        rf"{SAVED}(goes on from step \d+, with \d+ transitions\n{SAVED})*"
        r"mean return of 20 episodes: -\d+\n",
        ["replay"],
    ),
    "torch_dqn.py": (
        ["--episodes", "40", "--save-every", "10"],
        rf"{EPISODES}(goes on from episode \d+\n{EPISODES})*",
        ["replay"],
    ),
}
# What some need beside the packages of the tests.
NEEDED = {
    "atari_dqn.py": ["ale_py", "cv2", "lz4", "torch"],
    "sb3_dqn.py": ["stable_baselines3"],
    "sb3_sac.py": ["stable_baselines3"],
    "torch_dqn.py": ["torch"],
}


def command(name: str, directory: Path, arguments: list[str]) -> list[str]:
    """Return the command that runs an example; skip the test where a package is missing."""
    for package in NEEDED.get(name, []):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    return [sys.executable, "-W", "error", str(EXAMPLES / name), str(directory), *arguments]


def output_of(name: str, directory: Path, arguments: list[str]) -> str:
    """Run an example to its end, and return its output."""
    done = subprocess.run(
        command(name, directory, arguments),
        capture_output=True,
        text=True,
        cwd=directory.parent,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(ALE_BANNER, done.stderr), done.stderr
    return done.stdout


def kill_after(lines: int, name: str, directory: Path, arguments: list[str]) -> None:
    """Run an example, and kill it once it has printed so many lines."""
    with subprocess.Popen(
        command(name, directory, arguments),
        stdout=subprocess.PIPE,
        text=True,
        cwd=directory.parent,
    ) as process:
        assert process.stdout
        for _ in range(lines):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL


def test_each_example_is_short_and_its_page_shows_its_output() -> None:
    assert {path.name for path in EXAMPLES.iterdir() if path.suffix == ".py"} == set(SHORT)
    page = (ROOT / "docs" / "examples.md").read_text()
    for name, (_, pattern, _) in SHORT.items():
        section = page.partition(f"](examples/{name})")[2].partition("\n## ")[0]
        shown = section.partition("```text\n")[2].partition("```")[0]
        assert re.fullmatch(pattern, shown), f"{name} on the page:\n{shown}"
        assert f"```{{literalinclude}} examples/{name}\n" in section
        assert len((EXAMPLES / name).read_text().splitlines()) < 200


@pytest.mark.parametrize("name", sorted(SHORT))
def test_an_example_runs(name: str, tmp_path: Path) -> None:
    arguments, pattern, stores = SHORT[name]
    printed = output_of(name, tmp_path / "runs", arguments)
    assert re.fullmatch(pattern, printed), printed
    for store in stores:
        assert diskreplay.verify(tmp_path / "runs" / store) == []


def test_a_killed_dqn_of_torch_learns_what_one_does_that_runs_through(tmp_path: Path) -> None:
    name, arguments = "torch_dqn.py", SHORT["torch_dqn.py"][0]
    whole = output_of(name, tmp_path / "whole", arguments)
    kill_after(2, name, tmp_path / "runs", [*arguments, "--episodes", "5000"])
    # The kill came shortly after a mark. Add what a later commit would have kept.
    with diskreplay.open(tmp_path / "runs" / "replay") as buffer:
        buffer.push([0.0] * 4, 0, 1.0, [0.0] * 4, False, truncated=False)
        buffer.update_priorities(buffer.sample(8).indices, np.full(8, 5.0))
    first, rest = output_of(name, tmp_path / "runs", arguments).split("\n", 1)
    found = re.fullmatch(r"goes on from episode (\d+)", first)
    assert found, first
    assert int(found[1]) >= 20
    assert rest
    assert whole.endswith(rest)
    with (
        diskreplay.open(tmp_path / "whole" / "replay", access="read") as expected,
        diskreplay.open(tmp_path / "runs" / "replay", access="read") as buffer,
    ):
        ids = range(expected.count)
        assert buffer.count == expected.count
        assert (buffer.priorities(ids) == expected.priorities(ids)).all()
        assert all(map(np.array_equal, buffer.get(ids), expected.get(ids)))


def test_a_killed_sac_of_sb3_goes_on_from_its_newest_checkpoint(tmp_path: Path) -> None:
    name, arguments = "sb3_sac.py", SHORT["sb3_sac.py"][0]
    kill_after(1, name, tmp_path / "runs", [*arguments, "--steps", "100000"])
    printed = output_of(name, tmp_path / "runs", arguments)
    found = re.match(r"goes on from step (\d+), with (\d+) transitions\n", printed)
    assert found, printed
    step, stored = int(found[1]), int(found[2])
    assert step in (100, 200)
    # A checkpoint commits, but SAC stores the step after its callback; there may be more of them.
    assert stored >= step - 1
    assert "saved at step 300\n" in printed
    with diskreplay.open(tmp_path / "runs" / "replay", access="read") as buffer:
        assert buffer.count == stored + 300 - step


def test_a_killed_dqn_of_atari_goes_on_from_its_saved_network(tmp_path: Path) -> None:
    name, steps = "atari_dqn.py", 1100
    arguments = ["--learning-starts", "1150", "--save-every", "1000", "--steps"]
    kill_after(1, name, tmp_path / "runs", [*arguments, "100000"])  # it comes after step 1000
    with diskreplay.open(tmp_path / "runs" / "replay", access="read") as buffer:
        stored = buffer.count
    printed = output_of(name, tmp_path / "runs", [*arguments, str(steps)])
    found = re.match(r"goes on from step (\d+)\n", printed)
    assert found, printed
    added = max(0, steps - int(found[1]))
    assert f"\n{stored + added:,} transitions of" in printed


def test_dqn_of_sb3_goes_on_from_its_saved_model_when_it_is_run_again(tmp_path: Path) -> None:
    name, arguments = "sb3_dqn.py", ["--save-every", "500", "--steps"]
    output_of(name, tmp_path / "runs", [*arguments, "600"])
    printed = output_of(name, tmp_path / "runs", [*arguments, "1000"])
    assert printed.startswith("disk, seed 0: 1012 steps in ")  # 500 and two times 256
    with diskreplay.open(tmp_path / "runs" / "disk-0" / "replay", access="read") as buffer:
        assert buffer.count == 3 * 256 + 2 * 256
