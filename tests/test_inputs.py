"""What users hand over: steps of vector environments, tensors, masked arrays, spaces, floats."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from common import columns, row

from diskreplay import PrioritizedReplayBuffer, ReplayBuffer, SchemaError

KINDS = [ReplayBuffer, PrioritizedReplayBuffer]


# One transition or several


def step_of(environments: int) -> dict[str, Any]:
    """A step of a vector environment, as the arguments of `push`."""
    found = columns(0, environments)
    names = ("state", "action", "reward", "next_state", "done")
    return dict(zip(names, found.values(), strict=True))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("environments", [1, 4])
def test_a_step_of_several_environments_is_no_transition(kind: Any, environments: int) -> None:
    buffer = kind(capacity=10)
    step = step_of(environments)
    with pytest.raises(SchemaError, match=r"'reward': expected one number .* call extend\(\)"):
        buffer.push(**step)
    with pytest.raises(SchemaError, match=r"'done': expected one number .* call extend\(\)"):
        buffer.push(**{**row(0), "done": step["done"]})
    assert buffer.schema is None
    assert len(buffer) == 0
    buffer.extend(**{f"{name}s": values for name, values in step.items()})
    assert len(buffer) == environments
    with pytest.raises(SchemaError, match=r"'state': expected shape \(3,\) .* call extend\(\)"):
        buffer.push(**step)  # also when the schema is known
    with pytest.raises(SchemaError, match=r"'reward': expected shape \(\) .* call extend\(\)"):
        buffer.push(**{**row(0), "reward": step["reward"]})
    assert len(buffer) == environments


def test_a_reward_in_a_list_of_one_is_told_to_be_a_number() -> None:
    buffer = ReplayBuffer(capacity=10)
    for name, value in (("reward", [1.0]), ("done", np.zeros(1)), ("reward", np.zeros((1, 1)))):
        with pytest.raises(SchemaError, match=f"'{name}': .*: give a plain number, or "):
            buffer.push(**{**row(0), name: value})
    for values in (np.zeros((4, 1)), np.zeros((4, 2))):
        with pytest.raises(
            SchemaError, match=r"found shape \(4, .* counts the transitions\)"
        ) as info:
            buffer.extend(**{**columns(0, 4), "rewards": values})
        assert ("give shape (4,)" in str(info.value)) == (values.size == 4)
    buffer.push(**{**row(0), "reward": np.array(1.0), "done": np.array(True)})
    assert buffer.sample(1).rewards.shape == (1,)


def test_a_reward_whose_shape_is_given_may_have_one() -> None:
    schema = {"reward": ("float32", (2,)), "done": ("float32", (1,))}
    buffer = ReplayBuffer(capacity=10, schema=schema)
    buffer.push(**{**row(0), "reward": [1.0, 2.0], "done": [True]})
    several = {"rewards": np.ones((4, 2)), "dones": np.zeros((4, 1))}
    buffer.extend(**{**columns(1, 4), **several})
    assert buffer.get([0, 1]).rewards.tolist() == [[1.0, 2.0], [1.0, 1.0]]


def test_one_transition_is_not_taken_as_several() -> None:
    buffer = ReplayBuffer(capacity=10)
    one = {f"{name}s": value for name, value in row(0).items()}
    for _ in range(2):  # before the schema is known, and after
        with pytest.raises(
            SchemaError, match=r"one number as action, reward, done\): push\(\) takes"
        ):
            buffer.extend(**one)
        with pytest.raises(SchemaError, match=r"number as reward\): push\(\) takes"):
            buffer.extend(**{**columns(0, 3), "rewards": 1.0})
        buffer.push(**row(0))
    assert len(buffer) == 2
