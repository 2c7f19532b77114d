"""What the commands say of episodes."""

from __future__ import annotations

from pathlib import Path

import pytest
import stores
from commands import facts, shown

from diskreplay import ReplayBuffer


def test_whole_episodes_are_counted(tmp_path: Path) -> None:
    ids = iter(range(10**6))
    with ReplayBuffer(1000, path=tmp_path / "b") as buffer:
        for length in range(3, 9):
            for step in range(length):  # two environments in turn, one of which is cut off
                for env in (0, 1):
                    last = step == length - 1
                    ends = {"done": last and not env, "truncated": last and bool(env)}
                    buffer.push([float(next(ids))], 0, 1.0, [0.0], **ends, env=env)
        buffer.push([0.0], 0, 1.0, [0.0], False, env=0)  # an episode that goes on
    found = facts(tmp_path / "b")["episodes"]
    lengths = {"min": 3, "mean": 5.5, "max": 8}
    assert found == {
        "of": 67, "whole": 12, "without_done": 6, "length": lengths, "return": lengths
    }  # fmt: skip
    text = shown(tmp_path / "b")
    for line in (
        "Episodes: 12 whole in all 67 transitions",
        "  length       3 to 8, mean 5.5",
        "  return       3 to 8, mean 5.5",
        "  without done 6 of them",
    ):
        assert line in text.splitlines()
    assert "cuts" not in text


@pytest.mark.filterwarnings("ignore::diskreplay.EpisodeWarning")
def test_ends_that_nobody_declared_are_counted(tmp_path: Path) -> None:
    with ReplayBuffer(10, path=tmp_path / "b") as buffer:
        for episode in range(20):
            for step in range(3):
                buffer.push([10.0 * episode + step], 0, 1.0, [10.0 * episode + step + 1], False)
    text = shown(tmp_path / "b")
    assert "Episodes: 2 whole in all 10 transitions" in text
    assert "  cuts         19 ends that nobody declared, in all runs" in text
    assert (facts(tmp_path / "b")["cuts"], facts(tmp_path / "b")["episodes"]["whole"]) == (19, 2)


def test_episodes_of_a_store_without_links_are_not_known(tmp_path: Path) -> None:
    with ReplayBuffer(10, path=tmp_path / "b") as buffer:
        for number in range(5):
            buffer.push([0.0], 0, 1.0, [0.0], False, env=number)
    assert facts(tmp_path / "b")["episodes"] is None
    assert "Episodes: not known; no transition says which one it follows" in shown(tmp_path / "b")
    stores.empty(tmp_path / "none")
    assert "Episodes" not in shown(tmp_path / "none")
    assert facts(tmp_path / "none")["episodes"] is None
