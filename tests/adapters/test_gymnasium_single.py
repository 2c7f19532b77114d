"""RecordTransitions of single environments."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest

pytest.importorskip("gymnasium", minversion="1.1")

from gym_walks import ACTIONS, OBSERVATIONS, Walk, make, recorded, value_at
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers import Autoreset

from diskreplay import PrioritizedReplayBuffer, ReplayBuffer, Schema
from diskreplay.adapters.gymnasium import RecordTransitions

STEPS, SEED = 60, 4


def buffer_for(kind: str, **options: Any) -> ReplayBuffer:
    schema = Schema.from_spaces(OBSERVATIONS[kind], ACTIONS[kind])
    return ReplayBuffer(1000, schema=schema, **options)


@pytest.mark.parametrize("is_autoreset", [False, True])
@pytest.mark.parametrize("kind", OBSERVATIONS)
def test_what_is_stored_is_what_a_naive_recorder_has(kind: str, is_autoreset: bool) -> None:
    ACTIONS[kind].seed(2)
    actions = [ACTIONS[kind].sample() for _ in range(STEPS)]
    buffer = buffer_for(kind)
    recorder: Any = RecordTransitions(make(kind, in_place=True), buffer)
    env = Autoreset(recorder) if is_autoreset else recorder
    env.reset(seed=SEED)
    resets = {} if is_autoreset else {t: np.array([True]) for t in (7, 30, 41)}
    for t, action in enumerate(actions):
        if t in resets:
            env.reset()  # within an episode
        _, _, terminated, truncated, _ = env.step(action)
        if not is_autoreset and (terminated or truncated):
            env.reset()
    rows = recorded(
        kind, 1, SEED, STEPS, actions_of=lambda t: [actions[t]], resets=resets,
        mode=AutoresetMode.NEXT_STEP if is_autoreset else AutoresetMode.DISABLED,
    )  # fmt: skip
    assert buffer.count == len(rows)
    episodes: dict[tuple[int, int], list[int]] = {}
    batch = buffer.get(np.arange(len(rows)))
    for number, row in enumerate(rows):
        found = tuple(value_at(column, number) for column in [*batch[:5], batch.truncated])
        np.testing.assert_equal(found, row.values)
        episodes.setdefault(row.episode, []).append(number)
    buffer.end_episode(0)
    env.step(actions[0])
    assert len(episodes) > 8
    assert [e.indices.tolist() for e in buffer.episodes()][: len(episodes)] == [*episodes.values()]


def test_each_step_needs_a_reset_before() -> None:
    buffer = buffer_for("box")
    env = RecordTransitions(make("box"), buffer)
    with pytest.raises(ResetNeeded, match=r"expected reset\(\) before this step: no episode"):
        env.step(0)
    env.reset(seed=SEED)
    is_over = False
    while not is_over:
        _, _, terminated, truncated, _ = env.step(0)
        is_over = terminated or truncated
    count = buffer.count
    with pytest.raises(ResetNeeded, match=r"Autoreset belongs around RecordTransitions"):
        env.step(0)
    assert buffer.count == count


def test_after_a_failed_step_the_episode_has_ended() -> None:
    buffer = buffer_for("dict")
    env = RecordTransitions(Walk("dict", chance=0.0), buffer)
    env.reset(seed=SEED)
    action = np.zeros(2, np.float32)
    env.step(action)
    with pytest.raises(AssertionError):
        env.step(action + 9)
    with pytest.raises(ResetNeeded, match="or a step failed"):
        env.step(action)
    env.reset()
    env.step(action)
    assert sorted(buffer.sample_sequences(2, 2).indices.tolist()) == [[0, -1], [1, -1]]


def test_a_first_reset_ends_what_was_pushed_before() -> None:
    buffer = PrioritizedReplayBuffer(100)
    for number in range(2):
        env = RecordTransitions(make("box", chance=0.0), buffer, first_env=3)
        env.reset(seed=number)
        env.step(0)
    assert [episode.indices.tolist() for episode in buffer.episodes()] == [[0]]


@pytest.mark.parametrize("is_old", [False, True])
def test_without_gymnasium_the_error_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, is_old: bool
) -> None:
    if is_old:  # it has no AutoresetMode
        monkeypatch.setitem(sys.modules, "gymnasium.vector", ModuleType("gymnasium.vector"))
    else:
        monkeypatch.setitem(sys.modules, "gymnasium", None)
    name = "diskreplay.adapters.gymnasium"
    for loaded in [loaded for loaded in sys.modules if loaded.startswith(name)]:
        monkeypatch.delitem(sys.modules, loaded)
    with pytest.raises(
        ImportError if is_old else ModuleNotFoundError,
        match=r'needs gymnasium 1.1 or newer.*: pip install "diskreplay\[gymnasium\]"',
    ):
        importlib.import_module(name)
