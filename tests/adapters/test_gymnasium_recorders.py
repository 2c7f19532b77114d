"""RecordTransitions: extra fields, and several wrappers of one buffer."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

pytest.importorskip("gymnasium", minversion="1.1")

from gym_walks import make, makers
from gymnasium import Env
from gymnasium.error import ResetNeeded
from gymnasium.spaces import Box
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorWrapper

from diskreplay import ArgumentError, EpisodeWarning, ReplayBuffer, SchemaError
from diskreplay.adapters.gymnasium import RecordTransitions


def single(**options: Any) -> Any:
    return make("box", chance=0.0, **options)


def chains(buffer: ReplayBuffer, length: int = 4) -> list[list[int]]:
    """The write ids of the sequences from each transition on, without the padding."""
    found = buffer.sample_sequences(buffer.count, length).indices.tolist()
    return sorted([number for number in ids if number >= 0] for ids in found)


def test_wrappers_that_take_turns_with_one_number_are_told_and_cut() -> None:
    buffer = ReplayBuffer(100)
    first, second = (RecordTransitions(single(), buffer) for _ in range(2))
    first.reset(seed=1)
    first.step(0)
    second.reset(seed=2)
    second.step(0)
    wanted = r"another RecordTransitions has recorded env=0 .*: give each .* with first_env="
    with pytest.warns(EpisodeWarning, match=wanted) as told:
        first.step(0)
    assert [found.filename for found in told] == [__file__]
    first.step(0)
    with pytest.warns(EpisodeWarning):
        second.step(0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first.step(0)  # told once
    assert chains(buffer) == [[0], [1], [2, 3], [3], [4], [5]]


def test_wrappers_one_after_the_other_are_not_told() -> None:
    buffer = ReplayBuffer(100)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first = RecordTransitions(single(), buffer)
        first.reset(seed=1)
        first.step(0)
        second = RecordTransitions(SyncVectorEnv(makers("box", 2, chance=0.0)), buffer)
        second.reset(seed=1)
        second.step([0, 0])
        first.reset(seed=1)
        first.step(0)
        first.step(0)
        other = RecordTransitions(single(), ReplayBuffer(100))
        other.reset(seed=1)
        other.step(0)
        first.step(0)
    assert chains(buffer) == [[0], [1], [2], [3, 4, 5], [4, 5], [5]]


def test_only_the_environments_that_another_wrapper_records_are_cut() -> None:
    buffer = ReplayBuffer(100)
    pair = RecordTransitions(SyncVectorEnv(makers("box", 2, chance=0.0)), buffer)
    alone = RecordTransitions(single(), buffer, first_env=1)
    pair.reset(seed=1)
    pair.step([0, 0])
    alone.reset(seed=1)
    alone.step(0)
    with pytest.warns(EpisodeWarning, match="recorded env=1 of"):
        pair.step([0, 0])
    assert chains(buffer) == [[0, 3], [1], [2], [3], [4]]


def test_the_first_turn_that_is_an_error_changes_nothing() -> None:
    buffer = ReplayBuffer(100)
    first, second = (RecordTransitions(single(), buffer) for _ in range(2))
    for recorder in (first, second):
        recorder.reset(seed=1)
        recorder.step(0)
    for _ in range(2):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(EpisodeWarning):
                first.step(0)
    second.step(0)
    assert chains(buffer) == [[0], [1, 2], [2]]


def test_extra_fields_are_those_before_the_step() -> None:
    buffer, seen = ReplayBuffer(100), [0.0]
    env = RecordTransitions(
        single(), buffer, extra=lambda: {"hidden": [seen[0], -seen[0]], "note": {"at": seen[0]}}
    )
    for number in range(6):
        if number % 3 == 0:
            env.reset(seed=number)
        seen[0] = float(number)
        env.step(0)
    assert buffer.schema is not None
    assert buffer.schema["hidden"].type == "float32[2]"
    batch = buffer.get(range(6))
    assert batch.hidden[:, 1].tolist() == [-float(number) for number in range(6)]
    assert batch.note["at"].tolist() == [*range(6)]
    assert batch.truncated.tolist() == [0.0] * 6


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize("form", ["array", "list"])
def test_extra_fields_of_vector_environments_have_a_row_for_each(
    mode: AutoresetMode, form: str
) -> None:
    n, steps = 3, 40
    buffer, at = ReplayBuffer(1000), [0]

    def extra() -> dict[str, Any]:
        column = at[0] * 10.0 + np.arange(n)
        return {"at": column, "parts": {"at": [*column] if form == "list" else column}}

    envs = SyncVectorEnv(makers("box", n), autoreset_mode=mode)
    recorder = RecordTransitions(envs, buffer, extra=extra)
    recorder.reset(seed=1)
    wanted, is_over = [], np.zeros(n, np.bool_)
    for step in range(steps):
        at[0] = step
        _, _, terminations, truncations, _ = recorder.step([0] * n)
        stored = ~is_over if mode is AutoresetMode.NEXT_STEP else np.ones(n, np.bool_)
        wanted += (step * 10 + np.flatnonzero(stored)).tolist()
        is_over = terminations | truncations
        if mode is AutoresetMode.DISABLED and is_over.any():
            recorder.reset(options={"reset_mask": is_over})
    batch = buffer.get(range(buffer.count))
    assert batch.at.tolist() == wanted
    assert batch.parts["at"].tolist() == wanted
    assert (len(wanted) < n * steps) is (mode is AutoresetMode.NEXT_STEP)


class InPlace(Env[Any, Any]):
    """A walk of one step at a time, which changes the action that it is given."""

    observation_space = action_space = Box(-99, 99, (2,), np.float32)

    def __init__(self) -> None:
        self.position = np.zeros(2, np.float32)

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        self.position[:] = 0
        return self.position.copy(), {}

    def step(self, action: Any) -> Any:
        self.position += 1
        action *= 0
        return self.position.copy(), 0.0, False, False, {}


class StepsFirst(VectorWrapper):
    """A vector environment that changes the actions that it is given, and an array, in a step."""

    seen = np.zeros((3, 2), np.float32)

    def step(self, actions: Any) -> Any:
        self.seen += 1
        found = super().step(actions)
        actions *= 0
        return found


def test_what_the_step_changes_in_place_is_stored_as_it_was_before() -> None:
    inner = InPlace()
    buffer = ReplayBuffer(100)
    env = RecordTransitions(inner, buffer, extra=lambda: {"at": {"position": inner.position}})
    envs = StepsFirst(SyncVectorEnv([InPlace] * 3))
    envs.seen[:] = 0
    of_all = ReplayBuffer(100)
    recorder = RecordTransitions(envs, of_all, extra=lambda: {"at": {"position": envs.seen}})
    env.reset()
    recorder.reset()
    for _ in range(4):
        env.step(np.ones(2, np.float32))
        recorder.step(np.ones((3, 2), np.float32))
    for found, n in ((buffer, 1), (of_all, 3)):
        batch = found.get(range(4 * n))
        assert batch.at["position"][:, 0].tolist() == batch.states[:, 0].tolist()
        assert batch.states[:, 0].tolist() == np.arange(4).repeat(n).tolist()
        assert batch.actions.tolist() == np.ones((4 * n, 2)).tolist()


def test_extra_fields_may_be_tensors() -> None:
    torch = pytest.importorskip("torch")
    n, at = 3, [0]

    def extra() -> dict[str, Any]:
        column = at[0] * 10.0 + torch.arange(n)
        # One has a history, as what a network returns.
        return {"at": column, "grown": column[:, None].requires_grad_() * 2, "listed": [*column]}

    buffer = ReplayBuffer(1000)
    recorder = RecordTransitions(SyncVectorEnv(makers("box", n)), buffer, extra=extra)
    recorder.reset(seed=1)
    wanted, is_over = [], np.zeros(n, np.bool_)
    for step in range(30):
        at[0] = step
        wanted += (step * 10 + np.flatnonzero(~is_over)).tolist()
        _, _, terminations, truncations, _ = recorder.step([0] * n)
        is_over = terminations | truncations
    assert len(wanted) < 30 * n
    batch = buffer.get(range(buffer.count))
    assert batch.at.tolist() == batch.listed.tolist() == wanted
    assert batch.grown[:, 0].tolist() == [2 * number for number in wanted]

    single_buffer = ReplayBuffer(10)
    alone = RecordTransitions(single(), single_buffer, extra=lambda: {"grown": extra()["grown"][1]})
    alone.reset(seed=1)
    alone.step(0)
    assert single_buffer.get([0]).grown.tolist() == [[2 * 291.0]]


@pytest.mark.parametrize("is_vector", [False, True])
def test_wrong_extra_fields_are_named_and_nothing_is_stepped(is_vector: bool) -> None:
    buffer, found = ReplayBuffer(100), {"x": [1.0, 2.0]}
    env: Any = SyncVectorEnv(makers("box", 2, chance=0.0)) if is_vector else single()
    action: Any = [0, 0] if is_vector else 0
    with pytest.raises(ArgumentError, match=r"extra must be a function .* \(found a dict\)"):
        RecordTransitions(env, buffer, extra=found)  # type: ignore[call-overload]
    given: list[Any] = [found]
    recorder = RecordTransitions(env, buffer, extra=lambda: given[0])
    with pytest.raises(ResetNeeded):
        recorder.step(action)
    recorder.reset(seed=1)
    recorder.step(action)
    wrong: list[Any] = [(None, "must return a dictionary of fields by name"), ({1: 2}, "found 1")]
    wrong += [({name: 0}, f"found '{name}'") for name in ("truncated", "env", "priority", "states")]
    if is_vector:
        wrong += [
            ({"x": [1.0]}, "extra field 'x': expected an array of 2 rows, .*found 1 rows"),
            ({"x": {"a": ([0, 0], 1.0)}}, "extra field 'x': .*found a float"),
        ]
    for value, message in wrong:
        given[0] = value
        with pytest.raises(ArgumentError, match=message):
            recorder.step(action)
    given[0] = found
    recorder.step(action)  # the episode goes on: the environment was not stepped
    given[0] = {}
    with pytest.raises(SchemaError, match="missing: x"):
        recorder.step(action)
    with pytest.raises(ResetNeeded):
        recorder.step(action)
    assert chains(buffer, 3) == ([[0, 2], [1, 3], [2], [3]] if is_vector else [[0, 1], [1]])
