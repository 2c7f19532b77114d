"""A reward, or done, with a number for each agent or objective: sums and ends of episodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import diskreplay

N, AGENTS = 60, 2


def rows(rng: np.random.Generator, shape: tuple[int, ...]) -> dict[str, Any]:
    """Return rows of episodes in which the agents are done one after the other."""
    step = np.arange(N) % 6
    dones = np.stack([step >= 3, step == 5], axis=1)[:, -shape[0] :]
    images = rng.integers(0, 255, (N + 1, *shape[1:]), dtype=np.uint8)
    return {
        "states": images[:-1],
        "actions": np.arange(N),
        "rewards": rng.normal(size=(N, AGENTS)).astype(np.float32),
        "next_states": images[1:],
        "dones": dones,
    }


@pytest.mark.parametrize("window", [0, 1 << 20])
@pytest.mark.parametrize("frame_axis", [None, 0])
@pytest.mark.parametrize("agents", [1, 2])
@pytest.mark.parametrize("is_pushed", [True, False])
def test_rewards_are_summed_by_agent_until_all_are_done(
    tmp_path: Path, window: int, frame_axis: int | None, agents: int, is_pushed: bool
) -> None:
    given = rows(np.random.default_rng(1), (agents, 4, 3, 3))
    schema = {
        "state": ("uint8", (4, 3, 3)),
        "action": "int64",
        "reward": ("float32", (AGENTS,)),
        "next_state": ("uint8", (4, 3, 3)),
        "done": ("bool", (agents,)),
    }
    with diskreplay.ReplayBuffer(
        N, path=tmp_path / "store", schema=schema, window_bytes=window, frame_axis=frame_axis
    ) as buffer:
        if is_pushed:
            for row in zip(*given.values(), strict=True):
                buffer.push(*row)
        else:
            buffer.extend(*given.values())
        buffer.flush()
        batch = buffer.sample(40, n_step=4, gamma=0.5)
        assert [len(each.indices) for each in buffer.episodes()] == [6] * (N // 6)
    ends = given["dones"].all(axis=1)
    for place, first in enumerate(batch.indices.tolist()):
        sums, discount, last = np.zeros(AGENTS), 1.0, first
        for last in range(first, min(first + 4, N)):
            sums += discount * given["rewards"][last]
            discount *= 0.5
            if ends[last]:
                break
        np.testing.assert_allclose(batch.rewards[place], sums, rtol=1e-6)
        assert batch.discounts[place] == discount
        assert batch.dones[place].tolist() == given["dones"][last].tolist()
        assert (batch.next_states[place] == given["next_states"][last]).all()
