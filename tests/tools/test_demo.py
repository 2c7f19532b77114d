from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
from commands import COMMAND, process
from diskreplay_tools.cli import Commands
from diskreplay_tools.commands import dqn
from numpy.typing import NDArray
from runner import runner

import diskreplay

pytest.importorskip("gymnasium")


def number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    assert found, f"no {pattern!r} in:\n{text}"
    return int(found[1].replace(",", ""))


def averages(report: str) -> dict[str, float]:
    return {
        which: float(average)
        for which, average in re.findall(r"^  (\w+ \d+ episodes.*?) +([\d.]+)$", report, re.M)
    }


# The whole of it


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The directory and the report of a short demo with its kill."""
    path = tmp_path_factory.mktemp("demo") / "new" / "cartpole"
    result = process("demo", "--steps", 2000, "--path", path)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    return path, result.stdout


def test_the_learner_is_killed_and_another_process_goes_on(killed: tuple[Path, str]) -> None:
    _, report = killed
    first = number(r"process (\d+) learns", report)
    assert number(r"process (\d+) was killed half-way, with signal 9", report) == first
    assert number(r"process (\d+) opened the store", report) != first


def test_the_cost_of_the_kill_is_told(killed: tuple[Path, str]) -> None:
    _, report = killed
    written = number(r"written before the kill +([\d,]+)", report)
    found = number(r"found again +([\d,]+)", report)
    assert written >= 1000
    assert found >= number(r"network saved at step +([\d,]+)", report) >= dqn.CHECKPOINT_STEPS
    lost = number(r"lost, pushed after the last commit +([\d,]+)", report)
    assert lost == max(written - found, 0)


def test_what_is_left_is_one_store_written_by_two_runs(killed: tuple[Path, str]) -> None:
    path, report = killed
    found = number(r"found again +([\d,]+)", report)
    assert f"diskreplay.open({str(path / 'replay')!r})" in report
    with diskreplay.open(path / "replay", access="read") as buffer:
        stats = buffer.stats()
        batch = buffer.get(np.arange(2000))
    assert stats["size"] == stats["count"] == 2000
    assert len(stats["runs"]) == 2
    # Each transition begins where the one before it ended, but for the first of an episode.
    breaks = np.any(batch.states[1:] != batch.next_states[:-1], axis=1)
    ended = batch.dones[:-1] == 1.0
    ended[found - 1] = True
    np.testing.assert_array_equal(breaks, ended)
    assert dqn.Learner(0).load(path / "network.npz") == 2000


def test_the_report_compares_returns_before_and_after(killed: tuple[Path, str]) -> None:
    _, report = killed
    found = averages(report)
    assert list(found) == [
        "first 20 episodes",
        "last 20 episodes before the kill",
        "first 20 episodes after the kill",
        "last 20 episodes",
    ]
    assert all(1 <= average <= 500 for average in found.values())


def test_without_kill_and_path_it_learns_in_a_temporary_directory(tmp_path: Path) -> None:
    result = process("demo", "--steps", 4000, "--no-kill", TMPDIR=str(tmp_path))
    assert result.returncode == 0, result.stderr
    assert "signal" not in result.stdout
    found = averages(result.stdout)
    assert list(found) == ["first 20 episodes", "last 20 episodes"]
    assert found["last 20 episodes"] > 2 * found["first 20 episodes"]
    (path,) = tmp_path.iterdir()  # it is kept
    assert f"in {path}\n" in result.stdout
    with diskreplay.open(path / "replay", access="read") as buffer:
        stats = buffer.stats()
    assert stats["count"] == 4000
    assert len(stats["runs"]) == 1


# What can go wrong


def test_a_path_that_holds_anything_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("mine")
    result = process("demo", "--path", tmp_path)
    assert result.returncode == 2
    assert f"{tmp_path} is not empty" in result.stderr
    assert "give a new directory, or remove this one" in result.stderr
    assert result.stdout == ""
    assert [path.name for path in tmp_path.iterdir()] == ["notes"]


def test_a_path_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = process("demo", "--path", tmp_path / "file" / "below")
    assert result.returncode == 1
    assert result.stderr == (
        f"Error: cannot make {tmp_path / 'file' / 'below'}: Not a directory: a part of the path is "
        "a file: choose another path\n"
    )


def test_a_learner_that_dies_is_shown(tmp_path: Path) -> None:
    (tmp_path / "gymnasium.py").write_text("raise RuntimeError('no poles today')\n")
    result = process("demo", "--path", tmp_path / "new", PYTHONPATH=str(tmp_path))
    assert result.returncode == 1
    assert "RuntimeError: no poles today\n" in result.stderr
    assert re.search(
        r"\nError: the learner \(process \d+\) ended by itself at step 0 with exit status 1\n$",
        result.stderr,
    )


def test_an_interrupt_leaves_no_learner_behind(tmp_path: Path) -> None:
    with subprocess.Popen(
        [*COMMAND, "demo", "--path", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        parent.stdout.readline()
        learner = number(r"process (\d+) learns", parent.stdout.readline())
        parent.send_signal(signal.SIGINT)  # to the parent alone, unlike Ctrl-C
        _, complaints = parent.communicate(timeout=300)
    assert parent.returncode == 1
    assert f"is in {tmp_path}" in complaints
    assert complaints.endswith("Aborted!\n")
    with pytest.raises(ProcessLookupError):
        os.kill(learner, 0)


# The command line


def test_an_error_of_the_library_is_one_sentence(tmp_path: Path) -> None:
    group = Commands("group")

    @group.command()
    def look() -> None:
        diskreplay.open(tmp_path / "nothing")

    result = runner().invoke(group, ["look"])
    assert result.exit_code == 1
    assert re.fullmatch(rf"Error: [^\n]*{re.escape(str(tmp_path))}[^\n]*\n", result.stderr)


def test_usage_errors_and_the_version() -> None:
    assert process("demo", "--steps", 10).returncode == 2
    assert process("--version").stdout == f"diskreplay, version {diskreplay.__version__}\n"


# The network


def loss(
    theta: NDArray[np.float64],
    states: NDArray[np.float64],
    actions: NDArray[np.int64],
    targets: NDArray[np.float64],
    weights: NDArray[np.float64],
) -> float:
    """The weighted mean Huber loss, from its definition."""
    values = dqn.q_values(theta, states)
    total = 0.0
    for value, action, target, weight in zip(values, actions, targets, weights, strict=True):
        error = abs(value[action] - target)
        knee = dqn.HUBER
        total += weight * (error**2 / 2 if error <= knee else knee * (error - knee / 2))
    return total / len(actions)


def test_the_gradient_is_that_of_the_loss() -> None:
    rng = np.random.default_rng(0)
    theta = dqn.initial_parameters(rng).astype(np.float64)
    theta += rng.normal(0.0, 0.1, theta.shape)  # biases other than 0
    states = rng.normal(0.0, 1.0, (8, 4))
    actions = rng.integers(2, size=8)
    targets = rng.normal(0.0, 2.0 * dqn.HUBER, 8)  # on both sides of the knee
    weights = rng.random(8)
    slope, td_errors = dqn.gradient(theta, states, actions, targets, weights)
    assert 0 < np.count_nonzero(np.abs(td_errors) > dqn.HUBER) < 8
    np.testing.assert_array_equal(
        td_errors, dqn.q_values(theta, states)[np.arange(8), actions] - targets
    )
    step = 1e-6
    for i in rng.choice(theta.size, 300, replace=False):
        change = np.zeros_like(theta)
        change[i] = step
        above = loss(theta + change, states, actions, targets, weights)
        below = loss(theta - change, states, actions, targets, weights)
        assert slope[i] == pytest.approx((above - below) / (2 * step), rel=1e-5, abs=1e-7)


def batch_of(rng: np.random.Generator) -> diskreplay.PrioritizedBatch:
    with diskreplay.PrioritizedReplayBuffer(64, seed=0) as buffer:
        buffer.extend(
            rng.normal(size=(64, 4)).astype(np.float32),
            rng.integers(2, size=64),
            np.ones(64),
            rng.normal(size=(64, 4)).astype(np.float32),
            rng.random(64) < 0.1,
        )
        return buffer.sample(32)


def test_a_loaded_checkpoint_learns_on_exactly(tmp_path: Path) -> None:
    batch = batch_of(np.random.default_rng(0))
    learner = dqn.Learner(seed=1)
    for _ in range(10):
        learner.update(batch, 1e-3)
    learner.save(tmp_path / "network.npz", step=10)
    assert [path.name for path in tmp_path.iterdir()] == ["network.npz"]

    other = dqn.Learner(seed=2)
    assert other.load(tmp_path / "network.npz") == 10
    np.testing.assert_array_equal(learner.update(batch, 1e-3), other.update(batch, 1e-3))
    np.testing.assert_array_equal(learner.theta, other.theta)
    np.testing.assert_array_equal(learner.target, other.target)
