"""Stores that this process has open: a buffer that is unpickled or made again goes on with them."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

import diskreplay
from diskreplay.adapters.vector_steps import VectorSteps

_open_here: weakref.WeakValueDictionary[Path, VectorSteps] = weakref.WeakValueDictionary()


def opened(kind: Any, buffer_size: int, spaces: Any, n_envs: int, options: Any) -> VectorSteps:
    """Open a store, or return the one that is open here if it has the same arguments.

    `DQN.load` and `load_replay_buffer` make a buffer while the one before may still be there.

    spaces:  of observations and of actions
    """
    of_observations, of_actions = spaces
    arguments = kind, buffer_size, of_observations, of_actions, n_envs
    path = options.get("path")
    place = None if path is None else Path(path).resolve()
    there = None if place is None else _open_here.get(place)
    if there is not None and there.is_open_as(*arguments):
        return there
    steps = VectorSteps(*arguments, options)
    _open_here[steps.buffer.path.resolve()] = steps
    return steps


def check_there(path: Any) -> None:
    """Raise NotAStoreError if a buffer was saved as a pointer to a store that is gone."""
    if not (Path(path) / "diskreplay.json").is_file():
        raise diskreplay.NotAStoreError(
            f"{path} holds no store any more (expected the store of the replay buffer that was "
            "saved: the saved file holds its path, and no transitions): put the store back, or "
            "make a model with replay_buffer_kwargs={'path': ...} where it is now"
        )
