"""What every Replay that can be written to knows of episodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from common import row
from replays import Exclusive

from diskreplay import ArgumentError, SchemaError


def numbers_in_episodes(replay: Any) -> list[list[int]]:
    """The numbers of the transitions of each whole episode, oldest first."""
    return [(batch.rewards * 8).astype(int).tolist() for batch in replay.episodes()]


def test_episodes_end_with_done_truncated_and_end_episode(
    writer: Exclusive, tmp_path: Path
) -> None:
    with writer.make(tmp_path / "b") as buffer:
        ends = {2: {"truncated": True}, 5: {"done": True}}
        for number, env in enumerate((0, 1, 0, 0, 1, 0)):
            if number == 4:
                buffer.end_episode(env=1)
            buffer.push(**{**row(number), "done": False, **ends.get(number, {})}, env=env)
        buffer.push(**{**row(6), "done": True}, env=1)
        writer.settle(buffer)
        assert sorted(numbers_in_episodes(buffer)) == [[0, 2], [1], [3, 5], [4, 6]]
        assert buffer.stats()["cuts"] == 0
        for bad in ({"env": -1}, {"env": "a"}, {"truncated": 2}, {"truncated": "yes"}):
            with pytest.raises((ArgumentError, SchemaError)):
                buffer.push(**row(7), **bad)
        writer.settle(buffer)
        assert buffer.count == 7
    with writer.open(tmp_path / "b") as again:
        again.push(**{**row(7), "done": True}, env=0)  # begins an episode
        writer.settle(again)
        assert sorted(numbers_in_episodes(again)) == [[0, 2], [1], [3, 5], [4, 6], [7]]
        again.check()


def test_extend_takes_an_env_for_each_transition(writer: Exclusive, tmp_path: Path) -> None:
    with writer.make(tmp_path / "b") as buffer:
        for first in (0, 40):
            rows = [row(number) for number in range(first, first + 40)]
            given = {f"{name}s": [each[name] for each in rows] for name in rows[0]}
            given["dones"] = np.arange(40) >= 36
            given["truncateds"] = np.arange(40) == 17
            buffer.extend(**given, env=np.arange(40) % 4)
        writer.settle(buffer)
        found = numbers_in_episodes(buffer)
        assert [40 + n for n in range(21, 40, 4)] in found
        assert [40 + n for n in range(1, 18, 4)] in found
        assert [40 + n for n in range(0, 40, 4)] in found
        assert buffer.get([buffer.first + 37]).truncated.tolist() == [1]
