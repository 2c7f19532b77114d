"""RecordTransitions of vector environments: what is stored is what a naive recorder has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("gymnasium", minversion="1.1")

from gym_walks import ACTIONS, LIMIT, OBSERVATIONS, Row, Walk, make, makers, recorded, value_at
from gymnasium.error import ResetNeeded
from gymnasium.spaces import Discrete
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv, VectorWrapper
from gymnasium.vector.utils import batch_space, iterate
from gymnasium.wrappers.vector import DictInfoToList

from diskreplay import ArgumentError, ReplayBuffer, Schema, SchemaError
from diskreplay.adapters.gymnasium import RecordTransitions

STEPS, SEED = 60, 11
MODES = list(AutoresetMode)


def buffer_for(kind: str, **options: Any) -> ReplayBuffer:
    schema = Schema.from_spaces(OBSERVATIONS[kind], ACTIONS[kind], env="int64")
    return ReplayBuffer(2000, seed=3, schema=schema, **options)


def resets_of(n: int) -> dict[int, np.ndarray]:
    """Return at some steps the environments that are reset, some of them within an episode."""
    rng = np.random.default_rng(n)
    masks = {t: rng.random(n) < 0.5 for t in range(5, STEPS, 9)}
    return {t: mask for t, mask in masks.items() if mask.any()}


def single_actions(kind: str, n: int) -> tuple[list[Any], Callable[[int], list[Any]]]:
    """Return the actions of each step, and a function that returns those of each environment."""
    space = batch_space(ACTIONS[kind], n)
    space.seed(5)
    batches = [space.sample() for _ in range(STEPS)]
    singles = [list(iterate(space, batch)) for batch in batches]
    return batches, singles.__getitem__


def record(envs: VectorEnv[Any, Any, Any], kind: str, n: int, resets: Any, buffer: Any) -> None:
    """Step through a wrapper, and reset what has ended where nothing else does."""
    batches, _ = single_actions(kind, n)
    recorder = RecordTransitions(envs, buffer)
    recorder.reset(seed=SEED)
    is_disabled = envs.metadata["autoreset_mode"] is AutoresetMode.DISABLED
    for t, actions in enumerate(batches):
        if t in resets:
            recorder.reset(options={"reset_mask": resets[t].copy()})
        _, _, terminations, truncations, _ = recorder.step(actions)
        over = terminations | truncations
        if is_disabled and over.any():
            recorder.reset(options={"reset_mask": over})
    recorder.close()


def check(buffer: ReplayBuffer, rows: list[Row]) -> None:
    """Compare all that a buffer returns with rows."""
    assert buffer.count == len(rows)
    batch = buffer.get(np.arange(len(rows)))
    for place, row in enumerate(rows):
        check_row(batch, place, row)
        assert batch.env[place] == row.env
    after: dict[int, list[int]] = {}  # of each row, the ones of its episode from it on
    by_episode: dict[Any, list[int]] = {}
    for number, row in enumerate(rows):
        by_episode.setdefault(row.episode, []).append(number)
    for numbers in by_episode.values():
        after |= {number: numbers[place:] for place, number in enumerate(numbers)}
    check_n_step(buffer.sample(len(rows), n_step=3, gamma=0.9), rows, after)
    check_sequences(buffer.sample_sequences(len(rows), 4), rows, after, by_episode)
    ended = [
        numbers
        for (env, number), numbers in by_episode.items()
        if any(rows[numbers[-1]].values[4:]) or (env, number + 1) in by_episode
    ]
    assert [episode.indices.tolist() for episode in buffer.episodes()] == sorted(ended)


def check_row(batch: Any, place: int, row: Row) -> None:
    columns = [*batch[:5], batch.truncated]
    found = tuple(value_at(column, place) for column in columns)
    np.testing.assert_equal(found, row.values)


def check_n_step(batch: Any, rows: list[Row], after: dict[int, list[int]]) -> None:
    for place, number in enumerate(batch.indices.tolist()):
        steps = [rows[each].values for each in after[number][:3]]
        total = sum(0.9**k * float(step[2]) for k, step in enumerate(steps))
        assert batch.rewards[place] == pytest.approx(total, rel=1e-6)
        assert batch.discounts[place] == np.float32(0.9 ** len(steps))
        last = [value_at(batch.next_states, place), batch.dones[place], batch.truncated[place]]
        np.testing.assert_equal(last, [steps[-1][3], steps[-1][4], steps[-1][5]])


def check_sequences(batch: Any, rows: list[Row], after: Any, by_episode: Any) -> None:
    for place, start in enumerate(batch.indices[:, 0].tolist()):
        numbers = after[start][:4]
        assert batch.indices[place].tolist() == numbers + [-1] * (4 - len(numbers))
        firsts = [by_episode[rows[number].episode][0] == number for number in numbers]
        assert batch.firsts[place, : len(numbers)].tolist() == firsts
        for at, number in enumerate(numbers):
            state = value_at(value_at(batch.states, place), at)
            np.testing.assert_equal(state, rows[number].values[0])


@pytest.mark.parametrize("kind", OBSERVATIONS)
@pytest.mark.parametrize("n", [1, 2, 7])
@pytest.mark.parametrize("mode", MODES)
def test_every_autoreset_stores_what_a_naive_recorder_does(
    mode: AutoresetMode, n: int, kind: str
) -> None:
    resets = resets_of(n)
    buffer = buffer_for(kind)
    record(SyncVectorEnv(makers(kind, n), autoreset_mode=mode), kind, n, resets, buffer)
    rows = recorded(
        kind, n, SEED, STEPS, actions_of=single_actions(kind, n)[1], resets=resets, mode=mode
    )
    ends = {tuple(map(bool, row.values[4:])) for row in rows}
    assert n == 1 or ends == {(False, False), (True, False), (False, True), (True, True)}
    check(buffer, rows)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ["dict", "points"])
def test_observations_that_are_used_again_are_copied(mode: AutoresetMode, kind: str) -> None:
    in_place = mode is not AutoresetMode.SAME_STEP  # where Gymnasium loses the final observation
    buffer = buffer_for(kind)
    envs = SyncVectorEnv(makers(kind, 2, in_place=in_place), copy=False, autoreset_mode=mode)
    record(envs, kind, 2, {}, buffer)
    actions_of = single_actions(kind, 2)[1]
    check(buffer, recorded(kind, 2, SEED, STEPS, actions_of=actions_of, resets={}, mode=mode))


@pytest.mark.parametrize("mode", MODES)
def test_the_log_changes_nothing(mode: AutoresetMode) -> None:
    buffer = buffer_for("dict", observations="log")
    record(SyncVectorEnv(makers("dict", 2), autoreset_mode=mode), "dict", 2, {}, buffer)
    actions_of = single_actions("dict", 2)[1]
    check(buffer, recorded("dict", 2, SEED, STEPS, actions_of=actions_of, resets={}, mode=mode))


@pytest.mark.parametrize("mode", MODES)
def test_environments_in_processes_of_their_own(mode: AutoresetMode) -> None:
    buffer = buffer_for("dict")
    envs = AsyncVectorEnv(makers("dict", 2), autoreset_mode=mode, context="spawn")
    record(envs, "dict", 2, resets_of(2), buffer)
    rows = recorded(
        "dict", 2, SEED, STEPS,
        actions_of=single_actions("dict", 2)[1], resets=resets_of(2), mode=mode,
    )  # fmt: skip
    check(buffer, rows)


def test_wrappers_of_one_buffer_have_numbers_of_their_own() -> None:
    buffer = buffer_for("box")
    first = RecordTransitions(SyncVectorEnv(makers("box", 2, chance=0.0)), buffer)
    second = RecordTransitions(make("box", chance=0.0), buffer, first_env=2)
    third = RecordTransitions(SyncVectorEnv(makers("box", 2, chance=0.0)), buffer, first_env=3)
    for recorder, action in ((first, [0, 1]), (second, 2), (third, [0, 1])):
        recorder.reset(seed=1)
        recorder.step(action)
    first.step([0, 1])
    first.reset()  # ends the episodes of its own alone
    first.step([0, 1])
    second.step(2)
    third.step([0, 1])
    assert buffer.get(range(12)).env.tolist() == [0, 1, 2, 3, 4, 0, 1, 0, 1, 2, 3, 4]
    chains = {tuple(ids) for ids in buffer.sample_sequences(12, 3).indices.tolist()}
    assert {ids[:2] for ids in chains if ids[1] >= 0} == {(0, 5), (1, 6), (2, 9), (3, 10), (4, 11)}
    assert {ids[2] for ids in chains} == {-1}


def test_what_step_returns_is_unchanged() -> None:
    plain = SyncVectorEnv(makers("dict", 2), autoreset_mode=AutoresetMode.SAME_STEP)
    wrapped = RecordTransitions(
        SyncVectorEnv(makers("dict", 2), autoreset_mode=AutoresetMode.SAME_STEP), buffer_for("dict")
    )
    assert repr(wrapped.reset(seed=SEED)) == repr(plain.reset(seed=SEED))
    for actions in single_actions("dict", 2)[0]:
        assert repr(wrapped.step(actions)) == repr(plain.step(actions))


def test_a_forgotten_reset_is_an_error_that_names_the_environments() -> None:
    envs = SyncVectorEnv(makers("box", 2), autoreset_mode=AutoresetMode.DISABLED)
    buffer = buffer_for("box")
    recorder = RecordTransitions(envs, buffer)
    with pytest.raises(ResetNeeded, match=r"expected reset\(\) before this step"):
        recorder.step([0, 0])
    recorder.reset(seed=SEED)
    over = np.zeros(2, np.bool_)
    while not over.any():
        _, _, terminations, truncations, _ = recorder.step([0, 0])
        over = terminations | truncations
    count = buffer.count
    with pytest.raises(ResetNeeded, match=rf"found \[{np.flatnonzero(over)[0]}.*reset_mask"):
        recorder.step([0, 0])
    recorder.reset(options={"reset_mask": over})
    recorder.step([0, 0])  # what has not ended goes on
    assert buffer.count == count + 2


def test_after_a_failed_step_all_environments_are_reset() -> None:
    buffer = buffer_for("dict")
    recorder = RecordTransitions(SyncVectorEnv(makers("dict", 2, chance=0.0)), buffer)
    recorder.reset(seed=SEED)
    good = np.zeros((2, 2), np.float32)
    recorder.step(good)
    with pytest.raises(AssertionError):
        recorder.step(
            np.float32([[0, 0], [9, 9]])
        )  # one environment has gone on, the other one has not
    with pytest.raises(ResetNeeded, match="or a step failed"):
        recorder.step(good)
    with pytest.raises(ResetNeeded, match="expected a reset of all environments first"):
        recorder.reset(options={"reset_mask": np.array([True, False])})
    recorder.reset(seed=SEED)
    recorder.step(good)
    buffer.end_episode(0)
    buffer.end_episode(1)
    assert [episode.indices.tolist() for episode in buffer.episodes()] == [[0], [1]]


def test_a_push_that_fails_leaves_no_gap_in_an_episode() -> None:
    narrow = Schema.from_spaces(OBSERVATIONS["box"], ACTIONS["box"], action="uint8")
    buffer = ReplayBuffer(100, schema=narrow)
    envs = SyncVectorEnv([lambda: Walk("box")])
    envs.envs[0].action_space = envs.single_action_space = Discrete(1000)
    recorder = RecordTransitions(envs, buffer)
    recorder.reset(seed=1)
    with pytest.raises(SchemaError, match="field 'action'"):
        recorder.step([999])
    with pytest.raises(ResetNeeded):
        recorder.step([1])


class Silent(VectorWrapper):
    """A wrapper that loses the final observations."""

    def step(self, actions: Any) -> Any:
        return *super().step(actions)[:4], {}


@pytest.mark.parametrize("wrapper", [Silent, DictInfoToList])
def test_a_lost_final_observation_is_an_error(wrapper: Callable[[Any], Any]) -> None:
    envs = wrapper(SyncVectorEnv(makers("box", 2), autoreset_mode=AutoresetMode.SAME_STEP))
    buffer = buffer_for("box")
    recorder = RecordTransitions(envs, buffer)
    recorder.reset(seed=SEED)
    with pytest.raises(ArgumentError, match=r'expected infos\["final_obs"\]\[.\], since'):  # noqa: PT012
        for _ in range(LIMIT):
            recorder.step([0, 0])
    assert not buffer.get(np.arange(buffer.count)).dones.any()


def test_the_mode_is_that_of_the_environment_and_must_be_there() -> None:
    envs = SyncVectorEnv(makers("box", 2), autoreset_mode=AutoresetMode.SAME_STEP)
    buffer = buffer_for("box")
    envs.metadata["autoreset_mode"] = AutoresetMode.NEXT_STEP  # as another one of its class sets it
    recorder = RecordTransitions(envs, buffer)
    recorder.reset(seed=SEED)
    for _ in range(STEPS):
        recorder.step([0, 0])
    assert buffer.count == 2 * STEPS  # no step is only a reset
    del envs.autoreset_mode
    envs.metadata["autoreset_mode"] = "SameStep"
    with pytest.raises(ArgumentError, match=r"expected an AutoresetMode as.*found 'SameStep'"):
        RecordTransitions(envs, buffer)


def test_tuples_need_a_schema_that_has_them() -> None:
    for buffer in (ReplayBuffer(10), buffer_for("box")):
        for env in (make("tuple"), SyncVectorEnv(makers("tuple", 3))):
            with pytest.raises(SchemaError, match=r"the part state\[0\], of a Tuple.*from_spaces"):
                RecordTransitions(env, buffer)


def test_without_a_schema_the_first_step_fixes_it() -> None:
    buffer = ReplayBuffer(100)
    recorder = RecordTransitions(SyncVectorEnv(makers("dict", 2)), buffer)
    recorder.reset(seed=1)
    recorder.step(np.zeros((2, 2), np.float32))
    assert buffer.schema is not None
    assert [str(field) for field in buffer.schema.fields] == [
        "state.camera: uint8[2, 2]", "state.position: float32[3]", "state.number: int64",
        "action: float32[2]", "reward: float32",
        "next_state.camera: uint8[2, 2]", "next_state.position: float32[3]",
        "next_state.number: int64", "done: float32", "truncated: float32",
    ]  # fmt: skip
