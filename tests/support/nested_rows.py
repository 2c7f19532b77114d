"""Transitions with dictionaries and tuples, that any process can make again from their number."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

NAMES = (
    "state.camera", "state.robot.arm", "state.robot.grip", "state.goal[0]", "state.goal[1]",
    "action.turn", "action.push", "reward",
    "next_state.camera", "next_state.robot.arm", "next_state.robot.grip",
    "next_state.goal[0]", "next_state.goal[1]", "done",
)  # fmt: skip


def states(numbers: NDArray[Any]) -> dict[str, Any]:
    """n nested states, of arrays whose first dimension is n."""
    wide = numbers[:, None]
    return {
        "camera": (wide[:, :, None] + np.arange(12).reshape(3, 4)).astype(np.uint8),
        "robot": {
            "arm": (wide / 2 + np.arange(3)).astype(np.float32),
            "grip": (numbers / 4).astype(np.float32),
        },
        "goal": ((wide * 3 + np.arange(2)).astype(np.int64), numbers * 5),
    }


def columns(first: int, n: int) -> dict[str, Any]:
    """n transitions with the numbers first, first + 1, ..., as the arguments of `extend`."""
    numbers = np.arange(first, first + n)
    return {
        "states": states(numbers),
        "actions": {"turn": numbers % 7, "push": (numbers / 8).astype(np.float32)},
        "rewards": (numbers / 8).astype(np.float32),
        "next_states": states(numbers + 1),
        "dones": numbers % 5 == 4,
    }


def each(value: Any, convert: Any) -> Any:
    """Return a nested value with each of its arrays converted."""
    if isinstance(value, dict):
        return {key: each(part, convert) for key, part in value.items()}
    if isinstance(value, tuple):
        return tuple(each(part, convert) for part in value)
    return convert(value)


def row(number: int) -> dict[str, Any]:
    """The transition of a number, as the arguments of `push`."""
    names = ("state", "action", "reward", "next_state", "done")
    values = columns(number, 1).values()
    return {
        name: each(value, lambda column: column[0])
        for name, value in zip(names, values, strict=True)
    }


def numbers_of(batch: Any) -> NDArray[np.int64]:
    """The numbers of the transitions in a batch, after checking that each is whole."""
    numbers = np.rint(np.asarray(batch.rewards) * 8).astype(np.int64)
    whole = columns(0, int(numbers.max(initial=0)) + 1)
    for found, name in zip(batch, whole, strict=False):
        expected = each(whole[name], lambda column: column[numbers])
        assert_same(found, expected)
    return numbers


def assert_same(found: Any, expected: Any) -> None:
    """Compare nested values: the same structure, in the same order, and the same numbers."""
    assert type(found) is type(expected) or not isinstance(expected, dict | tuple)
    if isinstance(expected, dict):
        assert list(found) == list(expected)
        found, expected = tuple(found.values()), tuple(expected.values())
    if isinstance(expected, tuple):
        assert len(found) == len(expected)
        for part, other in zip(found, expected, strict=True):
            assert_same(part, other)
    else:
        np.testing.assert_array_equal(np.asarray(found), expected)
