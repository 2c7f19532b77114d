"""Steps in environments, recorded once into files, so that all layouts store the same.

A directory holds the frames that were seen, each once, and the numbers of those in each state:
`rows.columns` puts the states together again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np

from bench.rows import Array

# Of each step: state, action, reward, next_state, and whether the environment has ended.
Step = tuple[Array, int, float, Array, bool]
Play = Callable[[int], Iterator[Step]]

FLOATS = 60
EPISODE = 200  # steps
SEED = 1


def walk(steps: int) -> Iterator[Step]:
    """Yield steps of a random walk of 60 numbers, in episodes."""
    rng = np.random.default_rng(SEED)
    for step in range(steps):
        if step % EPISODE == 0:
            state = rng.standard_normal(FLOATS, np.float32)
        next_state = 0.95 * state + 0.3 * rng.standard_normal(FLOATS, np.float32)
        yield state, int(rng.integers(18)), float(next_state[0]), next_state, False
        state = next_state


def cartpole(steps: int) -> Iterator[Step]:
    """Yield steps of random play of CartPole-v1."""
    try:
        import gymnasium
    except ImportError as error:
        raise click.ClickException(f"CartPole needs gymnasium: {error}") from error
    return _played(gymnasium.make("CartPole-v1"), steps)


def atari(game: str) -> Play:
    """Return what yields steps of random play of an Atari game."""

    def play(steps: int) -> Iterator[Step]:
        try:
            from diskreplay_tools.commands.atari import environment_of
        except ImportError as error:
            raise click.ClickException(f"{game} needs the extra atari: {error}") from error
        return _played(environment_of(game), steps)

    return play


def _played(environment: Any, steps: int) -> Iterator[Step]:
    rng = np.random.default_rng(SEED)
    with environment:
        state, _ = environment.reset(seed=SEED)
        for _ in range(steps):
            action = int(rng.integers(environment.action_space.n))
            next_state, reward, terminated, truncated, _ = environment.step(action)
            yield state, action, float(reward), next_state, bool(terminated)
            state = next_state
            if terminated or truncated:
                state, _ = environment.reset()


def record(play: Play, steps: int, stacked: bool, place: Path) -> None:
    """Write steps into a directory.

    stacked:  the first axis of states is that of frames
    """
    frames: list[Array] = []
    numbers: dict[bytes, int] = {}

    def numbers_of(state: Array) -> list[int]:
        found = []
        for frame in state if stacked else [state]:
            content = frame.tobytes()
            if content not in numbers:
                numbers[content] = len(frames)
                frames.append(frame.copy())
            found.append(numbers[content])
        return found

    columns: dict[str, list[Any]] = {
        name: [] for name in ("states", "actions", "rewards", "next_states", "dones")
    }
    for state, action, reward, next_state, done in play(steps):
        row = (numbers_of(state), action, reward, numbers_of(next_state), done)
        for column, value in zip(columns.values(), row, strict=True):
            column.append(value)
    place.mkdir()
    np.save(place / "frames.npy", np.stack(frames))
    for name, dtype in {"actions": np.int64, "rewards": np.float32, "dones": np.float32}.items():
        np.save(place / f"{name}.npy", np.array(columns[name], dtype))
    for name in ("states", "next_states"):
        seen = np.array(columns[name], np.int64)
        np.save(place / f"{name}.npy", seen if stacked else seen[:, 0])
