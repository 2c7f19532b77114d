"""Steps of random environments, for a replay buffer of Stable-Baselines3 and its twin on disk."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

BOX = spaces.Box(-9, 9, (3,), np.float32)
SPACES: dict[str, spaces.Space[Any]] = {
    "box": BOX,
    "doubles": spaces.Box(-9, 9, (2, 2), np.float64),
    "image": spaces.Box(0, 255, (3, 4, 4), np.uint8),
    "discrete": spaces.Discrete(5),
    "multi_discrete": spaces.MultiDiscrete([3, 4]),
    "multi_binary": spaces.MultiBinary(3),
    "dict": spaces.Dict(camera=spaces.Box(0, 255, (2, 2), np.uint8), room=spaces.Discrete(7)),
}
ACTIONS: dict[str, spaces.Space[Any]] = {
    "discrete": spaces.Discrete(4),
    "box": spaces.Box(-1, 1, (2, 2), np.float32),
    "doubles": spaces.Box(-1, 1, (2,), np.float64),
    "multi_discrete": spaces.MultiDiscrete([3, 4]),
}


def stacked(values: list[Any]) -> Any:
    """Return values of several environments as a vector environment of SB3 gives them."""
    if isinstance(values[0], Mapping):
        return {key: np.stack([value[key] for value in values]) for key in values[0]}
    return np.stack(values)


def chosen(ends: list[bool], these: Any, others: Any) -> Any:
    """Return the values of the environments that end, and others of those that do not."""
    if isinstance(these, Mapping):
        return {key: chosen(ends, these[key], others[key]) for key in these}
    return np.array([(a if end else b) for end, a, b in zip(ends, these, others, strict=True)])


def steps_of(
    space: spaces.Space[Any], actions: spaces.Space[Any], n_envs: int, n: int, seed: int
) -> list[tuple[Any, ...]]:
    """Return the arguments of n calls of `add`: episodes of some four steps, a third timed out."""
    space.seed(seed)
    actions.seed(seed)
    generator = np.random.default_rng(seed)

    def observed() -> Any:
        return stacked([space.sample() for _ in range(n_envs)])

    found = []
    last = observed()
    for _ in range(n):
        done = generator.random(n_envs) < 0.25
        timeouts = done & (generator.random(n_envs) < 0.33)
        after = observed()
        action = stacked([actions.sample() for _ in range(n_envs)])
        reward = generator.normal(size=n_envs).astype(np.float32)
        infos = [{"TimeLimit.truncated": bool(timeout)} for timeout in timeouts]
        found.append((last, after, action, reward, done, infos))
        last = chosen(done.tolist(), observed(), after)  # an episode begins with another one
    return found
