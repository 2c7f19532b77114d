"""Schema.from_spaces: samples of each space come back bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("gymnasium", minversion="1.1")

from gymnasium import spaces

from diskreplay import Field, ReplayBuffer, Schema, SchemaError

BOX = spaces.Box(-np.inf, np.inf, (2, 3), np.float64)
ROBOT = spaces.Dict(
    camera=spaces.Box(0, 255, (4, 6, 6), np.uint8),
    arm=spaces.Tuple((spaces.Box(-1, 1, (2,), np.float32), spaces.Discrete(5))),
    goal=spaces.Dict(word=spaces.Text(9), flags=spaces.MultiBinary((2, 2))),
)
SPACES = {
    "float64[2, 3]": BOX,
    "float16[1]": spaces.Box(-1, 1, (1,), np.float16),
    "uint8[4, 6, 6]": ROBOT["camera"],
    "float32": spaces.Box(0, 1, (), np.float32),
    "int64": spaces.Discrete(4, start=-2),
    "int64[3]": spaces.MultiDiscrete([2, 3, 4]),
    "uint8[2, 2]": spaces.MultiDiscrete([[2, 3], [4, 5]], dtype=np.uint8),
    "int8[7]": spaces.MultiBinary(7),
    "str": spaces.Text(12, charset="aäöé ✓"),
    "float64[None, 2, 3]": spaces.Sequence(BOX),
    "int64[None]": spaces.Sequence(spaces.Discrete(3), stack=True),
}
NESTED = {
    "dict": ROBOT,
    "tuple": spaces.Tuple((BOX, BOX, spaces.Tuple((spaces.Discrete(3),)))),
    "sequences": spaces.Dict(points=spaces.Sequence(BOX), n=spaces.Discrete(3)),
}


def bits(value: Any) -> Any:
    """Return a value with its arrays as bytes, with type and shape; nested as it is."""
    if isinstance(value, dict):
        return {key: bits(part) for key, part in sorted(value.items())}
    if isinstance(value, list):
        return [bits(each) for each in value]
    if isinstance(value, tuple):
        return tuple(map(bits, value))
    if isinstance(value, str):
        return value
    array = np.asarray(value)
    return str(array.dtype), array.shape, array.tobytes()


def batched(space: Any, samples: list[Any]) -> Any:
    """Return samples as the element of a batch: nested columns, or lists where they vary."""
    if isinstance(space, spaces.Dict):
        return {key: batched(part, [s[key] for s in samples]) for key, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        parts = enumerate(space.spaces)
        return tuple(batched(part, [sample[i] for sample in samples]) for i, part in parts)
    if isinstance(space, spaces.Sequence):
        of = space.feature_space
        return [np.array(s, of.dtype).reshape(len(s), *of.shape) for s in samples]
    return samples if isinstance(space, spaces.Text) else np.array(samples, space.dtype)


@pytest.mark.parametrize("space", [*SPACES.values(), *NESTED.values()], ids=[*SPACES, *NESTED])
@pytest.mark.parametrize("calls", ["push", "extend"])
def test_samples_come_back_bit_for_bit(space: Any, calls: str) -> None:
    space.seed(7)
    states, actions, next_states = ([space.sample() for _ in range(12)] for _ in range(3))
    buffer = ReplayBuffer(20, schema=Schema.from_spaces(space, space))
    columns = [batched(space, values) for values in (states, actions, next_states)]
    if calls == "push":
        for state, action, next_state in zip(states, actions, next_states, strict=True):
            buffer.push(state, action, 0.5, next_state, False, truncated=True)
    else:
        buffer.extend(columns[0], columns[1], [0.5] * 12, columns[2], [False] * 12)
    batch = buffer.get(np.arange(12))
    assert bits([batch.states, batch.actions, batch.next_states]) == bits(columns)
    assert batch.truncated.all() == (calls == "push")


@pytest.mark.parametrize("kind", SPACES)
def test_the_type_of_a_field_is_that_of_the_space(kind: str) -> None:
    schema = Schema.from_spaces(SPACES[kind], SPACES[kind])
    assert {schema[name].type for name in ("state", "action", "next_state")} == {kind}
    assert {schema[name].type for name in ("reward", "done", "truncated")} == {"float32"}


def test_other_fields_and_the_options_of_a_buffer_go_with_it() -> None:
    frames = Field("next_state.camera", "uint8", (4, 6, 6), frame_axis=0)
    schema = Schema.from_spaces(ROBOT, BOX, reward="float64", log_prob="float32")
    assert schema["action"].type == "float64[2, 3]"
    assert (schema["reward"].type, schema.extra_names) == ("float64", ("truncated", "log_prob"))
    buffer = ReplayBuffer(10, schema=schema, frame_axis=0)
    assert buffer.schema is not None
    assert buffer.schema["next_state.camera"] == frames


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (spaces.Graph(BOX, BOX), "field 'state.a': a Graph has not one dtype and one shape: give"),
        (spaces.Sequence(spaces.Text(3)), "field 'state.a': a Sequence has not one dtype"),
        (spaces.Sequence(spaces.Sequence(BOX)), "field 'state.a': a Sequence has not one dtype"),
        (spaces.Sequence(ROBOT), "field 'state.a': a Sequence has not one dtype"),
        (spaces.Dict({"b.c": BOX}), r"field 'state.a': the keys .*found 'b.c'\): choose another"),
        (spaces.Tuple(()), "field 'state.a' has no parts at all"),
    ],
)
def test_other_spaces_are_refused_by_name(space: Any, message: str) -> None:
    with pytest.raises(SchemaError, match=message):
        Schema.from_spaces(spaces.Dict(a=space), BOX)
