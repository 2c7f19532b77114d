"""Random walks as environments of Gymnasium, and a naive recorder that steps them one by one."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

LIMIT = 6
WORDS = ("left", "right", "", "straight on")
POSITION = spaces.Box(-np.inf, np.inf, (3,), np.float64)
OBSERVATIONS = {
    "box": POSITION,
    "dict": spaces.Dict(
        camera=spaces.Box(0, 255, (2, 2), np.uint8), position=POSITION, number=spaces.Discrete(100)
    ),
    "tuple": spaces.Tuple((POSITION, spaces.Dict(word=spaces.Text(20), at=POSITION))),
    "points": spaces.Sequence(POSITION),
}
ACTIONS = {
    "box": spaces.Discrete(3),
    "dict": spaces.Box(-1, 1, (2,), np.float32),
    "tuple": spaces.Tuple((spaces.Discrete(3), spaces.MultiBinary(2))),
    "points": spaces.Discrete(3),
}


class Walk(gymnasium.Env[Any, Any]):
    """A walk that ends at random.

    chance:    of an end, at each step
    in_place:  whether its observations change in place. Such an environment is not for SAME_STEP:
               its reset changes the final observation before anyone has seen it
    """

    def __init__(self, kind: str, *, chance: float = 0.2, in_place: bool = False) -> None:
        self.kind, self.chance, self.in_place = kind, chance, in_place
        self.observation_space, self.action_space = OBSERVATIONS[kind], ACTIONS[kind]
        self.position = np.zeros(3)
        self.camera = np.zeros((2, 2), np.uint8)

    def _observation(self) -> Any:
        self.camera += 1
        return self._seen() if self.in_place else copy.deepcopy(self._seen())

    def _seen(self) -> Any:
        number = int(self.np_random.integers(100))
        if self.kind == "dict":
            return {"camera": self.camera, "position": self.position, "number": number}
        if self.kind == "tuple":
            return self.position, {"word": WORDS[number % 4], "at": self.position}
        if self.kind == "points":
            return (self.position,) * (1 + number % 3)
        return self.position

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.position[:] = self.np_random.normal(size=3)
        return self._observation(), {}

    def step(self, action: Any) -> Any:
        assert self.kind == "tuple" or self.action_space.contains(action)
        self.position += self.np_random.normal(size=3)
        is_over = bool(self.np_random.random() < self.chance)
        return self._observation(), float(self.position[0]), is_over, False, {"walked": 1}


def make(kind: str, **options: Any) -> gymnasium.Env[Any, Any]:
    """Return a walk with a limit of steps, at which it may end at the same time."""
    return gymnasium.wrappers.TimeLimit(Walk(kind, **options), LIMIT)


def makers(kind: str, n: int, **options: Any) -> list[Callable[[], gymnasium.Env[Any, Any]]]:
    return [partial(make, kind, **options) for _ in range(n)]


@dataclass
class Row:
    """A transition: the values in the order of the fields, with truncated, env, and its episode."""

    values: tuple[Any, ...]
    env: int
    episode: tuple[int, int]  # env, number in it


def recorded(
    kind: str,
    n: int,
    seed: int,
    steps: int,
    *,
    actions_of: Callable[[int], Any],
    resets: dict[int, NDArray[np.bool_]],
    mode: AutoresetMode,
) -> list[Row]:
    """Return the transitions of n walks that are stepped by hand, in the order of the steps.

    resets:  by step: the environments that are reset before it, whatever they are at
    """
    envs = [make(kind) for _ in range(n)]
    seen = [copy.deepcopy(env.reset(seed=seed + i)[0]) for i, env in enumerate(envs)]
    episodes, waits, rows = [0] * n, [False] * n, []
    for t in range(steps):
        for i in np.flatnonzero(resets.get(t, np.zeros(n))).tolist():
            seen[i], waits[i] = copy.deepcopy(envs[i].reset()[0]), False
            episodes[i] += 1
        for i, env in enumerate(envs):
            if waits[i]:  # the step of a vector environment that resets this one
                seen[i], waits[i] = copy.deepcopy(env.reset()[0]), False
                episodes[i] += 1
                continue
            action = actions_of(t)[i]
            before = seen[i]
            after, reward, terminated, truncated, _ = env.step(action)
            seen[i] = copy.deepcopy(after)
            values = (before, action, np.float32(reward), seen[i], terminated, truncated)
            rows.append(Row(values, i, (i, episodes[i])))
            if terminated or truncated:
                waits[i] = mode is AutoresetMode.NEXT_STEP
                if not waits[i]:
                    seen[i] = copy.deepcopy(env.reset()[0])
                    episodes[i] += 1
    return rows


def value_at(values: Any, place: int) -> Any:
    """Return one of the values of an element of a batch, nested as it is."""
    if isinstance(values, dict):
        return {key: value_at(part, place) for key, part in values.items()}
    if isinstance(values, tuple):
        return tuple(value_at(part, place) for part in values)
    return values[place]
