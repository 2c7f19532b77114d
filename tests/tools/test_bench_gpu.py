"""The benchmark with a GPU: a tiny run without one, and the network that it trains.

No time is asserted.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

TOOLS = Path(__file__).parents[2] / "tools"
sys.path.append(str(TOOLS))

needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="torch is not installed"
)


def gpu(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the command as on a machine that has a checkout and nothing of ours installed."""
    return subprocess.run(
        [sys.executable, "-m", "bench", "gpu", *map(str, arguments)],
        capture_output=True, text=True, timeout=300,
        cwd=TOOLS.parent, env={**os.environ, "PYTHONPATH": ".:tools"},
    )  # fmt: skip


@needs_torch
def test_a_learner_is_fed_in_each_way(tmp_path: Path) -> None:
    from bench.gpu_feeds import FEEDS
    from bench.gpu_stores import LOGS

    (stores := tmp_path / "stores").mkdir()
    out = tmp_path / "out.json"
    sizes = ["--rows", 120, "--batch", 8, "--batch", 16, "--seconds", 0.02, "--step-ms", 0.1]
    result = gpu("--device", "cpu", *sizes, "--place", stores, "--out", out)
    assert result.returncode == 0, result.stdout + result.stderr
    found = json.loads(out.read_text())
    assert [table["batch"] for table in found["tables"]] == [8, 16]
    for table in found["tables"]:
        assert table["feeds"].keys() == FEEDS.keys()
        for one in table["feeds"].values():
            assert not one["missing"]
            assert len(one["step"]) == len(one["wait"]) == len(one["give back"]) >= 2
            assert all(
                0 < wait + back <= step
                for wait, back, step in zip(one["wait"], one["give back"], one["step"], strict=True)
            )
        assert all(values for values in table["pieces"].values())
        assert table["bytes"].keys() == {"pairs", *LOGS}
        assert table["bytes"]["pairs"] == table["batch"] * (2 * 84 * 84 * 4 + 20)
        for log in LOGS:
            assert table["bytes"][log] <= 0.7 * table["bytes"]["pairs"]
    assert {"cpu", "cores", "memory_bytes", "python"} <= found["machine"].keys()
    assert found["versions"].keys() == {"diskreplay", "numpy", "torch", "CUDA"}
    assert found["card"] == "none"
    assert all(result.stdout.count(f"| {name} | ") == 2 for name in FEEDS)
    assert not list(stores.iterdir())


@needs_torch
def test_a_feed_that_fails_has_a_reason_and_the_others_go_on(tmp_path: Path) -> None:
    import torch
    from bench import gpu as command
    from bench.gpu_feeds import ALONE, Setting
    from bench.gpu_learner import Wait
    from bench.gpu_stores import filled

    columns = filled(str(tmp_path / "pixels"), 50)
    setting = Setting(str(tmp_path / "nothing"), columns, 4, torch.device("cpu"))
    found = command.measured(setting, Wait(0.1), 0.01)
    assert "NotAStoreError" in found["sample"]["missing"]
    assert not found[ALONE]["missing"]
    assert found["numpy arrays in RAM"]["step"]


@needs_torch
def test_the_stored_pixels_are_those_in_memory(tmp_path: Path) -> None:
    import torch
    from bench.gpu_feeds import Setting, gathered, sampled
    from bench.gpu_stores import filled

    columns = filled(str(tmp_path / "pixels"), 70)
    setting = Setting(str(tmp_path / "pixels"), columns, 16, torch.device("cpu"))
    with sampled(setting) as (take, give_back):
        batch = take()
        same = gathered(setting, batch.indices)
        for ours, theirs in zip(batch[:5], same[:5], strict=True):
            assert ours.dtype == theirs.dtype
            assert torch.equal(ours, theirs)
        assert len(torch.unique(batch.states)) == 256
        give_back(batch, batch.rewards.abs())


@needs_torch
def test_the_network_learns_by_the_rule_of_q_learning() -> None:
    import torch
    from bench.gpu_feeds import Tensors
    from bench.gpu_learner import ACTIONS, DISCOUNT, Network

    rng = np.random.default_rng(1)
    states, next_states = torch.from_numpy(rng.integers(0, 256, (2, 6, 84, 84, 4), np.uint8))
    actions = torch.arange(6) % ACTIONS
    rewards, weights = torch.linspace(-1, 1, 6), torch.ones(6)
    dones = torch.tensor([0.0, 1, 0, 0, 1, 0])
    batch: Any = Tensors(states, actions, rewards, next_states, dones, weights, None)
    learner = Network("cpu")

    def values(network: Any, frames: Any) -> Any:
        return network(torch.from_numpy(np.moveaxis(frames.numpy(), 3, 1) / np.float32(255)))

    with torch.no_grad():
        goals = rewards + DISCOUNT * (1 - dones) * values(learner.target, next_states).amax(1)
        expected = (goals - values(learner.online, states)[torch.arange(6), actions]).abs()
    errors = [learner(batch) for _ in range(20)]
    torch.testing.assert_close(errors[0], expected)
    assert errors[-1].mean() < 0.5 * errors[0].mean()


@pytest.mark.skipif(importlib.util.find_spec("torch") is not None, reason="torch is installed")
def test_without_torch_the_command_says_what_it_needs() -> None:
    result = gpu("--rows", 50)
    assert result.returncode == 1
    assert result.stderr.startswith("Error: this needs PyTorch: ")
